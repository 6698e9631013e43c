"""A model from a few examples of each label: what it is, what it says of itself, and what a mistake in the examples gets."""

import csv
import gzip
import json
import shutil
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
from browser import browser_thread
from tiny_training import rows, write_jsonl

from murmura.runtime.errors import SetupError
from murmura.runtime.model.folders.folder import read_manifest
from murmura.runtime.model.model import Model
from murmura.schemas.manifest import HeadForm
from murmura.training.few_shot import make
from murmura.training.few_shot.make import describe_replaced, make_model
from murmura.training.few_shot.recipe import Wanted
from murmura.training.run_folders.run_folder import RunFolder

HEADER = "text,label\n"
GOOD = HEADER + "a card,lost\nmy card,lost\npay Ann,pay\nsend money,pay\n"


@pytest.fixture(scope="module")
def made(base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A model of eight examples of each of three labels, of a compressed file, and what was said of it."""
    folder = tmp_path_factory.mktemp("few-shot")
    lines: list[str] = []
    with gzip.open(folder / "desk.csv.gz", "wt", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *((row["text"], row["label"]) for row in rows(24, 1))])
    wanted = Wanted(
        folder / "desk.csv", write_jsonl(folder / "test.jsonl", rows(12, 2)), encoder=str(base), max_tokens=24
    )
    make_model(wanted, folder / "desk", lines.append)
    return folder / "desk", lines


def test_it_is_a_model_like_any_other_with_a_score_of_its_test_rows(made: tuple[Path, list[str]]) -> None:
    folder, lines = made
    (spec,) = read_manifest(folder).tasks
    assert (spec.labels, spec.out_of_scope) == (["lost", "other", "transfer", "out_of_scope"], "out_of_scope")
    assert spec.head == HeadForm(distance=True)
    assert json.loads((folder / "report.json").read_text())["intent"]["test"]["rows"] == 12
    assert lines[0] == "intent: 24 examples of 3 labels"


def test_a_compressed_file_is_found_by_the_name_without_gz_and_stands_in_the_run(made: tuple[Path, list[str]]) -> None:
    record = RunFolder(made[0].with_name("desk.run")).record()
    assert [path.name for path in made[0].parent.glob("desk.csv*")] == ["desk.csv.gz"]
    assert "desk.csv" in record.data_files


async def test_its_pages_fit_the_screen_of_a_desk_and_of_a_phone_without_an_error(made: tuple[Path, list[str]]) -> None:
    with browser_thread() as browser:
        for folder in (made[0], made[0].with_name("desk.run")):
            for width in (1280, 390):
                wider, heading = await browser.use(
                    (folder / "report.html").as_uri(),
                    lambda page: page.evaluate(
                        "[document.documentElement.scrollWidth - innerWidth, document.querySelector('h1').innerText]"
                    ),
                    viewport={"width": width, "height": 800},
                )
                assert (wider, "desk" in heading) == (0, True), (folder.name, width)


def test_a_task_of_the_model_that_is_replaced_is_named(made: tuple[Path, list[str]]) -> None:
    folder, lines = made
    assert not any("is replaced" in line for line in lines)
    again = Wanted(folder.with_name("desk.csv"), encoder=str(folder))
    (note,) = describe_replaced(again)
    assert note.startswith(f"note: the task intent of {folder}, with 4 labels, is replaced: ")
    assert describe_replaced(again._replace(task="mood")) == []


def test_tasks_that_a_changed_encoder_leaves_out_are_named_and_not_lost_in_place(
    model_folder: Path, tmp_path: Path
) -> None:
    begun = Path(shutil.copytree(model_folder, tmp_path / "begun"))
    examples = write_jsonl(tmp_path / "rows.jsonl", rows(12, 1))
    wanted = Wanted(examples, encoder=str(begun), task="intent", tune_encoder=True)
    replaced, left_out = describe_replaced(wanted)
    assert "another --task keeps both" not in replaced
    assert "the new model has the task intent alone: topics, places of" in left_out
    with pytest.raises(SetupError, match=r"begun: its tasks topics, places would be lost, .* choose another --out"):
        make_model(wanted, begun, print)
    lines: list[str] = []
    make_model(wanted, tmp_path / "new", lines.append)
    assert [spec.name for spec in read_manifest(tmp_path / "new").tasks] == ["intent"]
    assert left_out in lines


def test_that_a_task_is_replaced_is_said_before_it_is_trained(
    made: tuple[Path, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any, **__: Any) -> NoReturn:
        raise SetupError("stopped before the first step")

    folder, lines = made[0], list[str]()
    monkeypatch.setattr(make, "fit", stop)
    with pytest.raises(SetupError, match="stopped before the first step"):
        make_model(Wanted(folder.with_name("desk.csv"), encoder=str(folder)), tmp_path / "again", lines.append)
    assert [line.partition(" of ")[0] for line in lines] == ["note: the task intent"]


def test_every_example_is_scored_by_a_head_that_has_not_seen_it(made: tuple[Path, list[str]]) -> None:
    folder, lines = made
    found = RunFolder(folder.with_name("desk.run")).record().data["intent"].cross_validated
    assert found is not None
    assert found.rows == 24
    assert found.interval[0] < found.accuracy < found.interval[1] or found.accuracy == 1
    assert any(line.startswith("cross-validated on 24 rows") for line in lines)
    assert "cross-validated on 24 rows" in (folder / "report.md").read_text()
    assert RunFolder(folder.with_name("desk.run")).record().tasks[0].calibration_rows == 24


def test_an_answer_is_the_same_to_the_bit_alone_and_among_others(made: tuple[Path, list[str]]) -> None:
    model = Model.load(made[0], device="cpu")
    texts = [row["text"] for row in rows(9, 5)]

    def logits(given: list[str]) -> list[bytes]:
        batches = [(model.run(batch).values["intent"], batch) for batch, _ in model.batches(given)]
        return [row.tobytes() for values, _ in batches for row in values]

    assert sorted(logits(texts)) == sorted(each for text in texts for each in logits([text]))


def test_a_text_is_out_of_scope_where_it_lies_beyond_the_limit(made: tuple[Path, list[str]]) -> None:
    weights = RunFolder(made[0].with_name("desk.run")).weights()
    scale, limit = weights["heads.intent.limits"]
    centres = weights["heads.intent.centres"]
    assert np.allclose(np.linalg.norm(centres[:3], axis=1), 1, atol=1e-5)
    assert not centres[3].any()
    assert scale > 0
    assert -1 <= limit <= 1


def test_a_file_that_is_not_there_is_said_to_be_so(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="no such file; expected a CSV or JSON lines"):
        make_model(Wanted(tmp_path / "gone.csv"), tmp_path / "desk", lambda line: None)


def test_an_encoder_that_learns_the_labels_first_is_judged_by_examples_that_it_has_not_seen(
    base: Path, tmp_path: Path
) -> None:
    examples = write_jsonl(tmp_path / "desk.jsonl", rows(24, 1))
    wanted = Wanted(examples, encoder=str(base), max_tokens=24, tune_encoder=True)
    make_model(wanted, tmp_path / "desk", lambda line: None)
    record = RunFolder(tmp_path / "desk.run").record()
    assert record.pretraining is not None
    assert record.pretraining["objectives"]["labelled_texts"].endswith("of 3 labels")
    found = record.data["intent"].cross_validated
    assert found is not None
    assert found.rows == record.data["intent"].parts["validation"].rows < 24


def test_a_test_row_whose_label_has_no_example_is_refused_in_the_words_of_the_command(
    tmp_path: Path, base: Path
) -> None:
    (tmp_path / "desk.csv").write_text(GOOD)
    (tmp_path / "test.csv").write_text(HEADER + "a card,lost\nanything,out_of_scope\nhello,greet\n")
    wanted = Wanted(tmp_path / "desk.csv", tmp_path / "test.csv", encoder=str(base))
    with pytest.raises(SetupError, match=r"test\.csv:4: the label 'greet' has no example in .*--out-of-scope"):
        make_model(wanted, tmp_path / "desk", lambda line: None)
    assert not (tmp_path / "desk.run").exists()


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("text,label\n", "no rows; expected a header"),
        ("texts,label\na,b\n", "column 'text' is missing; found texts, label; did you mean `--text texts`?"),
        ("text,intention\na,b\n", "column 'label' is missing; found text, intention; name it with --label"),
        ("text;label\na;b\n", "one column, 'text;label'; expected commas, found ';' between cells"),
        (HEADER + "a card,lost\nmy card,lost\n", "examples of 1 label ('lost'); expected two labels or more"),
        (GOOD + "hello,greet\n", "1 different example of 'greet', and 2 of 'lost'; expected 2 of each label"),
        (GOOD + "hello,greet\nHELLO,greet\n", "1 different example of 'greet'"),
        (GOOD + "My  Card,pay\n", "desk.csv:6: the text of "),
        (GOOD + " ,pay\n", "desk.csv:6: the text is empty"),
        (
            GOOD + "a" * 10**6 + ",pay\n",
            "desk.csv:6: the text has 1,000,000 characters; expected an example of at most",
        ),
        (GOOD + "hello,nan\n", "'label' is 'nan', which programs write where a value is missing"),
    ],
)
def test_a_mistake_gets_one_line_before_anything_is_written(
    tmp_path: Path, base: Path, lines: str, expected: str
) -> None:
    examples = tmp_path / "desk.csv"
    examples.write_text(lines)
    with pytest.raises(SetupError) as refused:
        make_model(Wanted(examples, encoder=str(base)), tmp_path / "desk", lambda line: None)
    assert expected in str(refused.value)
    assert "\n" not in str(refused.value)
    assert [path.name for path in tmp_path.iterdir()] == ["desk.csv"]
