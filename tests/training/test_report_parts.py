"""What the report says of how a model was trained: around the encoder, by which words, on which rows, in which phases."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from browser import browser_thread
from tiny_training import RECIPE, rows, write_jsonl

from murmura.runtime.model.folders.folder import read_manifest
from murmura.schemas.manifest import Base, EncoderSpec, FileEntry, ModelManifest, TaskSpec
from murmura.training.evaluate.evaluate import evaluate
from murmura.training.export.export import export
from murmura.training.fit.loop import fit
from murmura.training.recipe.recipe import Recipe, load_recipe
from murmura.training.report.made import Made
from murmura.training.report.method import describe_method
from murmura.training.report.part import Group, Part, Table, as_markdown
from murmura.training.report.parts import describe_training
from murmura.training.report.phases import describe_phases
from murmura.training.report.rows import describe_rows
from murmura.training.report.words import describe_words
from murmura.training.run_folders.run_folder import PhaseRecord, RunFolder, RunRecord, TrainedCount

WriteRecipe = Callable[..., Path]
SHA = "0" * 64
SIZES = {"vocab_size": 9, "hidden_size": 8, "layers": 2, "heads": 2, "intermediate_size": 8, "max_positions": 8}
OWN = 1080
"""Numbers of an encoder of these sizes."""
TASKS: dict[str, Any] = {name: {"train": "rows.csv"} for name in ("intent", "places")}
WORDS = {"lost": "card", "other": "weather", "transfer": "money"}
VERBALISER = {"template": "is my {mask} in {text}", "words": WORDS}


def made(keys: dict[str, Any], files: tuple[FileEntry, ...] = (), data: Any = None, **record: Any) -> Made:
    """A model with the tasks of a recipe of these keys, and the record of its run."""
    recipe = Recipe.model_validate({"tasks": {"intent": TASKS["intent"]}, **keys})
    encoder = EncoderSpec(source="package:some", sha256=SHA, **SIZES)
    tasks = [TaskSpec(name=name, kind="classification", labels=[*WORDS]) for name in recipe.tasks]
    manifest = ModelManifest(name="desk", encoder=encoder, tasks=tasks, files=[*files], data=data or {})
    about = {"name": "desk", "encoder": encoder, "tasks": tasks, "max_tokens": 8, "recipe_sha256": SHA, "seed": 0}
    went = {"steps": 9, "best_step": 9, "cpu_seconds": 1, "validation": {}}
    return Made(manifest, recipe, RunRecord(**{**about, **went, **record}))


def facts(part: Part | None, at: int = 0) -> dict[str, str]:
    assert part is not None
    return dict(part.groups[at].facts)


@pytest.mark.parametrize(
    ("keys", "said", "merged"),
    [
        ({"lora": {"rank": 4}}, {"rank": "4", "alpha": "8", "dropout": "0.05", "targets": "query, key, value, dense"}, True),
        ({"method": {"name": "dora", "rank": 2, "alpha": 3}}, {"rank": "2", "alpha": "3"}, True),
        ({"method": "adalora"}, {"rank": "8", "start_rank": "12", "alpha": "24", "settled": "0.3"}, True),
        ({"method": "ia3"}, {"encoder_lr": "0.01"}, True),
        ({"method": {"name": "bottleneck", "width": 5}}, {"width": "5"}, False),
        ({"method": {"name": "prefix", "tokens": 3}}, {"tokens": "3"}, False),
        ({"method": {"name": "prompt", "tokens": 3}}, {"tokens": "3"}, False),
        ({"method": {"name": "p_tuning", "tokens": 3}, "optimiser": {"encoder_lr": 0.5}}, {"tokens": "3", "encoder_lr": "0.5"}, False),
    ],
)  # fmt: skip
def test_a_method_is_named_with_its_settings_its_parameters_and_what_the_export_made_of_it(
    keys: dict[str, Any], said: dict[str, str], merged: bool
) -> None:
    found = facts(describe_method(made(keys, trained=TrainedCount(encoder=270, heads=27))))
    name = "lora" if "lora" in keys else keys["method"] if isinstance(keys["method"], str) else keys["method"]["name"]
    assert found["method"].startswith(f"{name}: ")
    assert said.items() <= found.items()
    assert "decoder_rank" not in found, "no task writes replies"
    assert found["trained around the encoder"] == f"270 parameters, 25 % of the encoder's {OWN:,}"
    assert found["trained in the heads"] == "27 parameters"
    assert found["in the model"].startswith("merged into" if merged else "a part of the graph")
    assert "delta" not in found


def test_the_size_of_a_delta_and_the_rank_of_its_decoder_are_said() -> None:
    delta = FileEntry(path="delta.safetensors", role="delta", sha256=SHA, bytes=1_230_000)
    replies = {"tasks": {"reply": {"kind": "generation", "train": "rows.jsonl"}}}
    recipe = Recipe.model_validate({"lora": True, **replies})
    known = made({"lora": True}, files=(delta,))
    base = known.manifest.model_copy(update={"base": Base(source="package:some", sha256=SHA)})
    found = facts(describe_method(Made(base, recipe, known.record)))
    assert found["delta"] == "delta.safetensors, 1.23 MB"
    assert found["decoder_rank"] == "64"
    assert "where the delta is assembled" in found["in the model"]
    assert "trained around the encoder" not in found, "a record of an earlier version does not say it"


@pytest.mark.parametrize(
    "nothing",
    [
        made({}),
        made({"lora": True, "encoder": {"source": "some", "frozen": True}}),
        made({"lora": True}, trained=TrainedCount(encoder=0, heads=9)),
        Made(made({}).manifest),
    ],
)
def test_a_training_without_a_method_says_none(nothing: Made) -> None:
    assert describe_method(nothing) is None
    assert describe_words(nothing) is None
    assert describe_rows(nothing) is None
    assert describe_phases(nothing) is None


def test_a_verbaliser_is_its_template_and_the_word_of_each_label() -> None:
    found = describe_words(made({"tasks": {"intent": {**TASKS["intent"], "verbaliser": VERBALISER}}}))
    assert facts(found) == {"task": "intent", "template": "is my {mask} in {text}"}
    assert found is not None
    assert found.groups[0].table is not None
    assert [*found.groups[0].table.rows] == [[label, word] for label, word in WORDS.items()]


@pytest.mark.parametrize(
    ("sampling", "said"),
    [
        ("proportional", "proportional: by the rows of a task times its passes"),
        ("equal", "equal: each task has the same share"),
        ({"method": "temperature", "temperature": 3}, "temperature 3: by the rows of a task times its passes, to the power of 1/3"),
        ("annealed", "annealed: by the rows of a task times its passes at first, nearly equal at the end"),
    ],
)  # fmt: skip
def test_rows_are_said_to_be_drawn_as_the_recipe_says_and_counted_as_the_steps_read_them(
    sampling: Any, said: str
) -> None:
    data = {"intent": {"kind": "classification", "parts": {"train": {"rows": 1000, "labels": {}, "duplicates": 0}}}}
    known = made({"tasks": TASKS, "sampling": sampling}, data=data, rows_read={"intent": 1500, "places": 500})
    found = describe_rows(known)
    assert facts(found) == {"sampling": said, "rows of a step": "32"}
    assert found is not None
    assert found.groups[0].table == Table(
        "Rows of the tasks",
        ["task", "share", "rows read", "training rows"],
        [["intent", "75.0 %", "1,500", "1,000"], ["places", "25.0 %", "500", "–"]],
    )


def test_weights_of_sampling_and_least_rows_of_a_step_are_said_where_there_are_some() -> None:
    tasks = {**TASKS, "places": {**TASKS["places"], "sampling_weight": 2}}
    read = {"intent": 1, "places": 3}
    found = describe_rows(made({"tasks": tasks, "weights": "famo"}, rows_read=read))
    assert facts(found)["min_rows"] == "at least 1 of each task in a step"
    assert found is not None
    assert found.groups[0].table is not None
    assert [row[-1] for row in found.groups[0].table.rows] == ["1", "2"]


def phase(name: str, *tasks: str, **changes: Any) -> PhaseRecord:
    went = {"steps": 20, "best_step": 15, "validation": {"intent": {"main": 0.9}, "places": {"main": 0.5}}}
    return PhaseRecord(name=name, tasks=[*tasks], **{**went, **changes})


def test_each_phase_is_named_with_its_tasks_keys_length_rows_and_what_it_did_to_all_tasks() -> None:
    phases = [
        {"name": "joint"},
        {"name": "one", "tasks": ["intent"], "epochs": 2, "optimiser": {"encoder_lr": 1e-5}, "freeze": 2, "dropout": 0.2},
        {"name": "free", "tasks": ["intent"], "held_rows": 0, "freeze": "embeddings", "patience": 1, "evaluations": 3},
        {"name": "heads", "tasks": ["intent"], "freeze": "encoder"},
    ]  # fmt: skip
    went = [
        phase("joint", "intent", "places", best_step=0),
        phase("one", "intent", rows_read={"intent": 640, "places": 0}),
        phase("free", "intent", steps=1, best_step=1),
        phase("heads", "intent"),
        phase("of a recipe that is not known", "intent"),
    ]
    found = describe_phases(made({"tasks": TASKS, "phases": phases, "weights": "dwa"}, phases=went))
    said = [facts(found, at) for at in range(len(went))]
    assert said[0] == {
        "teaches": "intent, places",
        "weights of the tasks": "dwa",
        "length": "20 steps",
        "validation rows": "intent 90.0 %, places 50.0 %",
    }
    assert said[1]["holds"] == "places to their answers, by 0.5 rows for each row that it teaches"
    assert (
        said[1]["keys"]
        == "epochs 2; optimiser.encoder_lr 1e-05; dropout 0.2; freeze the embeddings and the first 2 layers"
    )
    assert said[1]["weights of the tasks"] == "static"
    assert said[1]["length"] == "20 steps; the checkpoint of step 15 was kept"
    assert said[1]["rows read"] == "intent 640"
    assert said[2]["lets change"] == "places"
    assert said[2]["keys"] == "evaluations 3; patience 1; freeze the embeddings"
    assert said[2]["length"] == "1 step; the checkpoint of step 1 was kept"
    assert said[3]["leaves"] == "places as they are: the encoder does not change"
    assert [*said[4]] == ["teaches", "length", "validation rows"]
    assert found is not None
    assert [group.name for group in found.groups] == [each.name for each in went]


def test_the_phase_of_self_training_is_named_with_its_keys_and_what_came_of_it() -> None:
    data = {"intent": {"kind": "classification", "parts": {}, "notes": ["few", "self-training: 10 texts: kept"]}}
    went = [phase("labelled", "intent"), phase("self_training", "intent")]
    keys = {"self_training": {"texts": ["a.txt", {"path": "b.csv"}], "per_label": 5}}
    said = facts(describe_phases(made(keys, data=data, phases=went)), 1)
    assert said["keys"] == "texts a.txt, b.csv; precision 0.9; per_label 5; weight 1"
    assert said["outcome"] == "10 texts: kept"


def test_a_part_is_markdown_whose_cells_hold_no_bars_and_no_lines() -> None:
    part = Part("words", "Words", [Group("one", [("task", "a\nb")], Table("t", ["x", "y"], [["a|b", "c"]]))], ["Note."])
    assert as_markdown(part) == [
        *("## Words", "", "### one", "", "- task: a b", "", "| x | y |", "| --- | --- |", "| a\\|b | c |", "", "Note.", ""),
    ]  # fmt: skip


def test_a_part_that_fails_is_left_out_and_said_in_one_line() -> None:
    broken = made({"lora": True}, rows_read={"intent": 1, "places": 1})
    broken.manifest.data["intent"] = 7  # type: ignore[assignment]
    said: list[str] = []
    assert [part.anchor for part in describe_training(broken, said.append)] == ["method"]
    assert said == ["note: report.md: describe_rows failed: AttributeError: 'int' object has no attribute 'get'"]


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("texts")
    write_jsonl(folder / "train.jsonl", rows(90, 1))
    write_jsonl(folder / "test.jsonl", rows(30, 2))
    write_jsonl(folder / "unlabelled.jsonl", [{"text": row["text"]} for row in rows(60, 9)])
    return folder


def pages_of(path: Path, data: Path, out: Path, base: Path, *, delta: bool) -> tuple[str, str]:
    """Train, export and evaluate; return `report.md` and the page of the model folder."""
    run = out.with_name(f"{out.name}.run")
    fit(path, data, run, quiet=True)
    export(run, out, delta=delta)
    said: list[str] = []
    evaluate(out, data, run=run, base=base if delta else None, print_line=said.append)
    assert not said
    return (out / "report.md").read_text(), (out / "report.html").read_text()


async def test_a_trained_delta_with_words_says_so_in_both_reports_and_on_a_phone(
    texts: Path, base: Path, tmp_path: Path, write_recipe: WriteRecipe
) -> None:
    intent = {"train": "train.jsonl", "test": "test.jsonl", "verbaliser": VERBALISER}
    path = write_recipe(
        encoder=str(base), tasks={"intent": intent}, lora={"rank": 4}, trackers=[], budget={"steps": 3, "evaluations": 1}
    )  # fmt: skip
    text, page = pages_of(path, texts, tmp_path / "desk", base, delta=True)
    record = RunFolder(tmp_path / "desk.run").record()
    assert record.trained is not None
    factors = 2 * (4 * 2 * 32 * 4 + 2 * 4 * (32 + 128))  # in two layers: four weights of 32 x 32, two of 32 x 128
    assert (record.trained.encoder, record.trained.heads) == (factors, 32 * 3 + 3)
    assert record.rows_read == {"intent": 3 * 32}
    size = next(each.bytes for each in read_manifest(tmp_path / "desk").files if each.role == "delta")
    for said in (
        f"{factors:,} parameters",
        f"delta.safetensors, {size / 1e6:.2f} MB",
        "is my {mask} in {text}",
        "weather",
    ):
        assert said in text
        assert said in page
    assert "## Rows of the tasks" not in text, "one task"
    with browser_thread() as browser:
        for width in (1280, 390):
            wider, titles = await browser.use(
                (tmp_path / "desk" / "report.html").as_uri(),
                lambda page: page.evaluate(
                    "[document.documentElement.scrollWidth - innerWidth, [...document.querySelectorAll('h2')].map(each => each.innerText)]"
                ),
                viewport={"width": width, "height": 800},
            )
            assert wider == 0
            assert {"Around the encoder", "Words for labels"} <= {*titles}


def test_rows_that_the_steps_of_each_phase_read_are_counted(
    texts: Path, tmp_path: Path, base: Path, write_recipe: WriteRecipe
) -> None:
    phases = [{"name": "joint", "steps": 2}, {"name": "one", "tasks": ["intent"], "steps": 2}]
    path = write_recipe(
        encoder=str(base),
        tasks={"intent": {**RECIPE["tasks"]["intent"], "validation_share": 0.3}, "places": RECIPE["tasks"]["places"]},
        sampling={"method": "equal", "min_rows": 1},
        phases=phases,
        self_training={"texts": "unlabelled.jsonl", "epochs": 0.5, "precision": 0.1},
        **{"trackers": [], "few_rows": 0, "probe": False, "budget": {"evaluations": 1}},
    )
    text, page = pages_of(path, texts, tmp_path / "desk", base, delta=False)
    record = RunFolder(tmp_path / "desk.run").record()
    joint, one, last = record.phases
    assert joint.rows_read == {"intent": 32, "places": 32}
    assert sum(one.rows_read.values()) == 64
    assert one.rows_read["places"] > 0, "held rows are read, too"
    assert sum(last.rows_read.values()) > 0
    assert record.rows_read == {
        name: sum(each.rows_read[name] for each in record.phases) for name in ("intent", "places")
    }
    for said in ("equal: each task has the same share", "texts unlabelled.jsonl; precision 0.1", "holds"):
        assert said in text
        assert said in page
    assert "Around the encoder" not in page
    assert load_recipe(tmp_path / "desk" / "recipe.yaml").sampling.method == "equal"
