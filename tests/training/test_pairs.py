"""Two texts that are read together: rows, what counts as the same, what people say of answers to them, and what is kept."""

import ast
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ingest_sets import make_in
from ingest_world import World
from installed_package import PAIRS, installed_example
from tiny_training import rows, write_jsonl
from tokenizers import processors

from murmura import training
from murmura.runtime.errors import SetupError
from murmura.runtime.model.inputs import TextPair
from murmura.runtime.testing.fakes import classified
from murmura.runtime.wire.request import Incoming
from murmura.schemas.manifest import TaskSpec
from murmura.training.data.example import Example, digest_rows
from murmura.training.data.near_texts import near_form
from murmura.training.data.typos import typo_copies
from murmura.training.fit import check_data
from murmura.training.fit.loop import fit
from murmura.training.kinds.registry import kind_of
from murmura.training.mix.corrections import Corrections
from murmura.training.mix.hold_texts import all_texts, is_kept_apart, texts_read_by
from murmura.training.model.encoders import train_tokenizer
from murmura.training.prepare.data_checks import Texts
from murmura.training.prepare.label_names import name_rows
from murmura.training.prepare.splits import units_of
from murmura.training.prepare.tasks import divide, read_tasks
from murmura.training.recipe.recipe import load_recipe
from murmura.training.run_folders.run_folder import RunFolder

FOLLOWS = TaskSpec(name="follows", kind="entailment", labels=["no", "yes"])
ONE, OTHER = TextPair("a man plays", "music sounds"), TextPair("a man plays", "nobody plays")


@pytest.fixture(scope="module", autouse=True)
def package(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with installed_example(tmp_path_factory.mktemp("package"), PAIRS):
        yield


def paired(count: int, seed: int, second: str = "text_pair") -> list[dict[str, Any]]:
    """Return rows of which the second text alone says what is right."""
    others = rows(count, seed + 1000)
    random.Random(seed).shuffle(others)
    return [
        {"text": row["text"], second: other["text"], "label": other["label"]}
        for row, other in zip(rows(count, seed), others, strict=True)
    ]


def example(pair: TextPair, *labels: str, place: str = "") -> Example:
    return Example(pair.text, labels, second=pair.second, place=place)


class TestRows:
    def read(self, folder: Path, write_recipe: Callable[..., Path], lines: list[Any], **task: Any) -> Any:
        write_jsonl(folder / "rows.jsonl", lines)
        recipe = write_recipe(tasks={"follows": {"kind": "entailment", "train": "rows.jsonl", **task}})
        return read_tasks(load_recipe(recipe), folder)[0]

    def test_the_second_text_is_read_from_its_column(self, tmp_path: Path, write_recipe: Callable[..., Path]) -> None:
        data = self.read(tmp_path, write_recipe, [{**row, "source": "web"} for row in paired(60, 1)])
        first = data.train[0]
        assert first.given == TextPair(first.text, first.second)
        assert first.meta == {"source": "web"}
        kind = kind_of(FOLLOWS)
        assert kind.write_row(first) == {"text": first.text, "label": first.labels[0], "text_pair": first.second}

    def test_the_column_may_have_another_name(self, tmp_path: Path, write_recipe: Callable[..., Path]) -> None:
        lines = paired(60, 1, "hypothesis")
        data = self.read(tmp_path, write_recipe, lines, columns={"text_pair": "hypothesis"})
        assert {each.second for each in [*data.train, *data.validation]} == {row["hypothesis"] for row in lines}

    @pytest.mark.parametrize(
        ("second", "problem"),
        [
            ({}, r"rows\.jsonl:3: column 'text_pair' is missing; found text, label"),
            ({"text_pair": None}, r"rows\.jsonl:3: column 'text_pair' is missing: its value is null"),
            ({"text_pair": " "}, r"rows\.jsonl:3: the second text is empty"),
            ({"text_pair": 7}, r"rows\.jsonl:3: the second text is int"),
            ({"text_pair": "\ud800"}, r"rows\.jsonl:3: the second text has a lone surrogate"),
        ],
    )
    def test_a_row_without_one_is_named_with_its_line(
        self, tmp_path: Path, write_recipe: Callable[..., Path], second: dict[str, Any], problem: str
    ) -> None:
        lines = paired(60, 1)
        lines[2] = {"text": lines[2]["text"], "label": "lost", **second}
        with pytest.raises(SetupError, match=problem):
            self.read(tmp_path, write_recipe, lines)

    def test_an_encoder_that_cannot_read_two_texts_is_refused_before_the_first_step(
        self, tmp_path: Path, write_recipe: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write_jsonl(tmp_path / "rows.jsonl", paired(60, 1))
        recipe = write_recipe(tasks={"follows": {"kind": "entailment", "train": "rows.jsonl"}})
        opened = check_data.open_checkpoint

        def without_template(*arguments: Any, **options: Any) -> Any:
            checkpoint = opened(*arguments, **options)
            ends = [(name, checkpoint.tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
            template = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
            checkpoint.tokenizer.post_processor = template
            return checkpoint

        monkeypatch.setattr(check_data, "open_checkpoint", without_template)
        with pytest.raises(SetupError, match=r"encoder.*: the tokenizer has no template for two texts"):
            fit(recipe, tmp_path, tmp_path / "run", quiet=True)


class TestSameness:
    def test_rows_are_the_same_when_both_texts_are(self) -> None:
        texts = Texts([example(ONE, "yes"), example(OTHER, "no"), example(ONE, "no"), Example("a man plays")])
        assert (texts.duplicates, texts.contradictions) == (1, 1)
        later = Texts([example(TextPair("A man  plays", "Music sounds")), example(OTHER)])
        assert later.overlap(texts).model_dump() == {"exact": 1, "near": 1}

    def test_near_forms_tell_where_a_text_ends(self) -> None:
        assert near_form(TextPair("a b", "c")) != near_form(TextPair("a", "b c"))
        assert near_form(TextPair("a\nb", "c")) == near_form(TextPair("A b", " c "))

    def test_equal_pairs_stay_on_one_side_and_equal_first_texts_need_not(self) -> None:
        given = [ONE, OTHER, ONE]
        units = units_of(given, [frozenset()] * 3, [[]] * 3, 0)
        assert sorted(unit.rows for unit in units) == [(0, 2), (1,)]
        made = [
            example(TextPair("same", f"text {number % 20}"), "ab"[number % 2], place=f"f:{number}")
            for number in range(80)
        ]
        train, validation = divide(made, 0.2, 0)
        assert validation
        assert not {each.given for each in train} & {each.given for each in validation}

    def test_digests_tell_second_texts_apart_and_stay_as_they_were_without(self) -> None:
        assert digest_rows([example(ONE, "yes")]) != digest_rows([example(OTHER, "yes")])
        assert digest_rows([Example("a", ("b",))]).startswith("4414345e")

    def test_copies_with_slips_have_them_in_both_texts(self) -> None:
        before = example(TextPair("several words " * 20, "further words " * 20), "yes")
        (copy,) = typo_copies([before], 1, random.Random(0))
        assert copy.text != before.text
        assert copy.second not in {before.second, None}

    def test_names_of_labels_are_no_pairs(self, tmp_path: Path, write_recipe: Callable[..., Path]) -> None:
        write_jsonl(tmp_path / "rows.jsonl", paired(60, 1))
        recipe = write_recipe(tasks={"follows": {"kind": "entailment", "train": "rows.jsonl"}})
        assert name_rows(read_tasks(load_recipe(recipe), tmp_path)[0]) == []

    def test_a_vocabulary_of_ones_own_reads_pairs(self) -> None:
        tokens = train_tokenizer(["one two"], 60, lowercase=True).encode("one", "two").tokens
        assert [token for token in tokens if token in {"[CLS]", "[SEP]"}] == ["[CLS]", "[SEP]", "[SEP]"]


def test_the_score_of_the_frozen_encoder_is_that_of_both_texts(
    base: Path, tmp_path: Path, write_recipe: Callable[..., Path]
) -> None:
    """The first text says nothing: without the second one the score would be chance, a third."""
    write_jsonl(tmp_path / "train.jsonl", paired(600, 1))
    write_jsonl(tmp_path / "test.jsonl", paired(240, 2))
    tasks = {"follows": {"kind": "entailment", "train": "train.jsonl", "test": "test.jsonl"}}
    recipe = write_recipe(encoder=str(base), tasks=tasks, budget={"epochs": 1, "evaluations": 1}, few_rows=200)
    fit(recipe, tmp_path, tmp_path / "run", quiet=True)
    probe = RunFolder(tmp_path / "run").record().data["follows"].probe
    assert probe is not None
    assert probe.scores["test"].accuracy > 0.5


def test_nobody_writes_or_makes_an_example_without_its_second_text() -> None:
    """`write_row` and `make_example` are for callers, `as_row` and `as_example` for kinds."""
    root = Path(training.__file__).parent
    found = {
        str(path.relative_to(root))
        for path in root.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr in {"as_row", "as_example"} and path.parent.name != "ingest"
    }
    assert found == {"kinds/kind.py"}


class TestFeedback:
    def test_rows_of_a_pair_have_both_texts_and_rows_of_a_text_one(self, tmp_path: Path) -> None:
        world = World()
        answer = {**classified("no", 0.6, ("yes", 0.4)), "kind": "entailment"}
        for number, second in enumerate(("music sounds", "nobody plays")):
            outputs = {"follows": answer, "intent": classified("other", 0.6, ("refund", 0.4))}
            asked = world.ask("a man plays", outputs, key=f"talk-{number}".encode(), second=second)
            world.judge(asked, ["yes", "no"][number], task="follows")
            world.judge(asked, "refund")
        made = make_in(tmp_path)(world)
        follows = {(row["text"], row["text_pair"]): row["label"] for row in made.rows("follows")}
        assert follows == {tuple(ONE[:2]): "yes", tuple(OTHER[:2]): "no"}
        (intent,) = made.rows()
        assert (intent["text"], intent["label"], intent["people"]) == ("a man plays", "refund", 1)
        assert "text_pair" not in intent
        assert made.left_out() == {"f-2": "superseded"}

    def test_contradictions_preferences_and_preferred_answers_name_both_texts(self, tmp_path: Path) -> None:
        world = World()
        yes, no = (
            {"follows": {**classified(label, 0.6, (other, 0.4)), "kind": "entailment"}}
            for label, other in (("yes", "no"), ("no", "yes"))
        )
        good = world.ask("a man plays", yes, key=b"1", second="music sounds")
        bad = world.ask("a man plays", no, key=b"1", second="music sounds")
        unlike = world.ask("a man plays", no, key=b"1", second="nobody plays")
        world.judge(good, task="follows", verdict="up", by="ann")
        world.judge(bad, task="follows", verdict="down", by="ann")
        world.judge(unlike, task="follows", verdict="down", by="ann")
        disputed = world.ask("a man plays", yes, key=b"1", second="he is famous")
        world.judge(disputed, "yes", task="follows", by="ann")
        world.judge(disputed, "no", task="follows", by="bob")
        made = make_in(tmp_path)(world)
        assert {row["text_pair"] for row in made.lines("preferences.jsonl")} == {"music sounds", "nobody plays"}
        (pair,) = made.lines("pairs.jsonl")
        assert (pair["text"], pair["text_pair"]) == tuple(ONE[:2])
        assert (pair["chosen"]["prediction_id"], pair["rejected"]["prediction_id"]) == (good, bad)
        (line,) = made.lines("contradictions.jsonl")
        assert (line["text"], line["text_pair"]) == ("a man plays", "he is famous")


class TestHold:
    SPECS = (FOLLOWS, TaskSpec(name="intent", kind="classification", labels=["a", "b"]))

    def test_each_task_holds_on_to_what_it_reads(self, tmp_path: Path) -> None:
        file = write_jsonl(tmp_path / "more.jsonl", [{"text": "usual"}, {"text": "usual", "text_pair": "second"}])
        feedback = {"follows": Corrections(FOLLOWS, [example(ONE, "yes"), example(OTHER, "no")], [], [])}
        texts = all_texts(feedback, [file])
        pairs, alone = (texts_read_by(spec, texts) for spec in self.SPECS)
        assert pairs == [ONE, OTHER, TextPair("usual", "second")]
        assert alone == ["a man plays", "usual"]

    def test_what_is_kept_apart_depends_on_both_texts(self) -> None:
        apart = [is_kept_apart(TextPair("a man plays", f"second {number}")) for number in range(200)]
        assert 20 < sum(apart) < 60


def test_a_request_in_an_event_keeps_its_second_text_when_it_is_handed_on() -> None:
    request = Incoming("a man plays", request_id="1", text_pair="music sounds", is_plain=False)
    assert json.loads(request.plain_value()) == {"text": "a man plays", "id": "1", "text_pair": "music sounds"}
