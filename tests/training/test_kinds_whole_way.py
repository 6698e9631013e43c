"""Every kind of task goes the whole way, one of a user's package, too: from rows to a model, its answers, and what people say of them."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from ingest_sets import make_in
from ingest_world import World
from installed_package import PAIRS, installed_example
from tiny_loop import damaged
from tiny_training import RECIPE, rows, write_jsonl

from murmura.agents.analysis import agent as analysis
from murmura.agents.classification import agent as classification
from murmura.runtime.errors import ModelRefused, RecordError
from murmura.runtime.model.inputs import Input, with_second
from murmura.runtime.model.kinds.registry import KINDS as SERVED
from murmura.runtime.model.kinds.registry import kind_of
from murmura.runtime.model.model import Model
from murmura.runtime.model.reference_sample import check_reference
from murmura.runtime.settings.settings import Settings
from murmura.runtime.testing.rehearsal import rehearse
from murmura.runtime.wire.feedback import check_form, known_labels
from murmura.runtime.wire.summary import record_line
from murmura.schemas.feedback import Feedback
from murmura.schemas.result import Result
from murmura.training.evaluate.evaluate import answers, evaluate
from murmura.training.export.export import export
from murmura.training.fit.loop import fit
from murmura.training.fit.setup import prepare
from murmura.training.gate.compare_folders import compare_folders
from murmura.training.gate.verdict import Verdict
from murmura.training.kinds.registry import KINDS as TRAINED
from murmura.training.kinds.registry import kind_of as trained_kind_of
from murmura.training.mix.corrections import read_corrections
from murmura.training.prepare.reading import read_part
from murmura.training.recipe.recipe import load_recipe
from murmura.training.run_folders.run_folder import RunFolder

TEXT = "please send money to paris"
SECOND = "the money went to paris"
STARS = {"lost": ["1", "2"], "transfer": ["3", "4"], "other": ["4", "5"]}
TASKS: dict[str, dict[str, Any]] = {
    **RECIPE["tasks"],
    "stars": {"kind": "ordinal", "columns": {"label": "stars"}, "train": "train.jsonl", "test": "test.jsonl"},
    "pair": {"kind": "entailment", "columns": {"label": "pair"}, "train": "train.jsonl", "test": "test.jsonl"},
}
NAMES = list(TASKS)
RIGHT: dict[str, Any] = {
    "intent": "transfer",
    "topics": ["money", "travel"],
    "places": [{"start": 21, "end": 26, "label": "place"}],
    "stars": "4",
    "pair": "both",
}
"""A correction of each task for TEXT."""
WRONG: dict[str, Any] = {
    "intent": ["transfer"],
    "topics": "money",
    "places": ["place"],
    "stars": ["4"],
    "pair": ["both"],
}
"""A correction of another kind."""
NEW = {"intent": "loan", "topics": "loans", "places": "person", "stars": "6", "pair": "many"}


def graded(count: int, seed: int) -> list[dict[str, Any]]:
    """Return rows with grades, and with a second text: `pair` says how many of the two name paris."""
    seconds = [row["text"] for row in rows(count, seed + 1000)]
    made = []
    for row, second in zip(rows(count, seed), seconds, strict=True):
        stars = STARS[row["label"]]["paris" in row["text"]]
        pair = ("neither", "one", "both")[("paris" in row["text"]) + ("paris" in second)]
        made.append({**row, "stars": stars, "text_pair": second, "pair": pair})
    return made


def given_to(model: Model, name: str, text: str) -> tuple[Input, str | None]:
    """Return what a task reads, and its second text."""
    second = SECOND if name in model.pair_tasks else None
    return with_second(text, second), second


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with data, a recipe with a task of every kind, and the model `desk` that comes of a few steps."""
    folder = tmp_path_factory.mktemp("kinds")
    write_jsonl(folder / "train.jsonl", graded(360, 1))
    write_jsonl(folder / "test.jsonl", graded(90, 2))
    tasks = {name: {**task, "open": True} for name, task in TASKS.items()}
    budget = {"epochs": 8, "evaluations": 2}
    document = {**RECIPE, "tasks": tasks, "budget": budget, "name": "desk"}
    (folder / "base.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
    with installed_example(folder / "package"), installed_example(folder / "pairs", PAIRS):
        fit(folder / "base.yaml", folder, folder / "run", quiet=True)
        export(folder / "run", folder / "desk", graphs=("ragged", "padded"))
        evaluate(folder / "desk", folder)
        yield folder


@pytest.fixture(scope="module")
def model(place: Path) -> Model:
    return Model.load(place / "desk", device="cpu")


def test_there_is_a_task_of_every_kind_that_answers_requests(model: Model) -> None:
    answering, trained = (
        [name for name in registry.names() if not SERVED.get(name).generates] for registry in (SERVED, TRAINED)
    )
    kinds = sorted(task.kind for task in model.manifest.tasks)
    assert kinds == answering == trained == ["classification", "entailment", "multi_label", "ordinal", "tagging"]


@pytest.mark.parametrize("name", NAMES)
class TestEveryKind:
    def test_both_graphs_decide_alike(self, name: str, place: Path, model: Model) -> None:
        """That they give torch's numbers, the export has proved."""
        padded = Model.load(place / "desk", device="cpu", graph="padded")
        pairs = name in model.pair_tasks
        texts = [with_second(row["text"], row["text_pair"] if pairs else None) for row in graded(20, 3)]
        batch = model.encode(texts)
        spec, (one, other) = model.tasks[name], (each.run(batch) for each in (model, padded))
        kind = kind_of(spec)
        split = [kind.split_rows(logits.values[name], logits.starts) for logits in (one, other)]
        assert len(split[0]) == len(texts)
        assert all(trained_kind_of(spec).decide_alike(*pair) for pair in zip(*split, strict=True))
        assert all(np.allclose(kind.to_scores(a), kind.to_scores(b), atol=1e-5) for a, b in zip(*split, strict=True))

    def test_a_sample_with_another_decision_is_not_reproduced(self, name: str, place: Path, tmp_path: Path) -> None:
        shutil.copytree(place / "desk", tmp_path / "desk")
        other = Model.load(tmp_path / "desk", device="cpu", verify=False)
        sample = json.loads((tmp_path / "desk/reference.json").read_text())
        first = np.array(sample["outputs"][name][0])
        sample["outputs"][name][0] = (-first).tolist()
        with pytest.raises(ModelRefused, match=f"task {name} does not reproduce reference text 0: a score differs"):
            check_reference(other, sample)

    def test_what_is_served_is_scored(self, name: str, place: Path) -> None:
        figures = json.loads((place / "desk/report.json").read_text())[name]["test"]
        main = {"intent": "accuracy", "topics": "micro_f1", "places": "f1", "stars": "accuracy", "pair": "accuracy"}[
            name
        ]
        assert figures["rows"] + figures.get("out_of_scope_rows", 0) == 90
        assert figures[main] > 0.6
        report = (place / "desk/report.md").read_text()
        lines = [
            line for line in report.split(f"## {name} (")[1].split("\n## ")[0].splitlines() if line.startswith("| ")
        ]
        assert {cells[1].strip() for line in lines if len(cells := line.split("|")) == 5} >= set(figures) - {
            "intervals"
        }
        assert not any(line.endswith("|  |") for line in lines)

    def test_answers_that_are_right_cost_nothing_and_others_do(self, name: str, place: Path, model: Model) -> None:
        spec, kind = model.tasks[name], trained_kind_of(model.tasks[name])
        recipe = load_recipe(place / "base.yaml")
        given = list(answers(model, spec, read_rows(name, place)))
        scope = recipe.tasks[name].out_of_scope.label if recipe.tasks[name].out_of_scope else None
        outcome = kind.outcome(given, spec, scope)
        wrong = np.array([kind.is_wrong(answer, spec, scope) for answer in given])
        lost = outcome.columns[:, 0] < outcome.columns[:, 1]
        assert (lost == wrong).all()
        assert 0 < wrong.mean() < 0.5 or not wrong.any()

    def test_the_gate_sees_a_damaged_head_of_this_task_alone(self, name: str, place: Path, tmp_path: Path) -> None:
        damaged(place, tmp_path, name)
        found = {each.task: each for each in compare_folders(place / "desk", tmp_path / "model", place).comparisons}
        assert found[name].verdict is Verdict.WORSE
        assert {each.verdict for task, each in found.items() if task != name} == {Verdict.HELD}

    async def test_it_is_routed_by_its_labels_and_summarised(self, name: str, model: Model) -> None:
        agent = analysis if name == "places" else classification
        given, second = given_to(model, name, TEXT)
        output = model.predict([given], [name])[0][name]
        label, score = next(iter(kind_of(model.tasks[name]).list_answers(output)))
        assert label in known_labels(model.tasks[name])
        rule = {"agent": agent.name, "task": name, "label": label, "topic": "people"}
        rules = [rule | {"score_at_least": score}, rule | {"score_below": score, "topic": "others"}]
        settings = Settings(app="rehearsal", routing=rules)
        request = {"text": TEXT, "tasks": [name]} | ({"text_pair": second} if second else {})
        done = await rehearse([agent], request, model=model, settings=settings)
        assert [record.topic for record in done.handed_on] == ["people"]
        line = record_line(json.dumps(done.results[0]).encode(), ())
        assert line.startswith(f"{agent.name}  {name}: ")
        assert str(label) in line
        assert "{" not in line
        assert Result.model_validate(done.results[0]).outputs[name].kind == model.tasks[name].kind

    def test_a_correction_becomes_a_row_that_training_reads(self, name: str, model: Model, tmp_path: Path) -> None:
        spec, world = model.tasks[name], World()
        given, second = given_to(model, name, TEXT)
        output = model.predict([given], [name])[0][name]
        for number in range(12):
            asked = {"key": f"talk-{number}".encode(), "second": second}
            prediction = world.ask(f"{TEXT} {number}", {name: output}, **asked)
            world.judge(prediction, RIGHT[name], task=name)
        confirmed = world.ask(f"{TEXT} again", {name: output}, key=b"talk-again", second=second)
        world.judge(confirmed, task=name)
        made = make_in(tmp_path)(world)
        assert made.left_out() == {}
        found = read_corrections(made.folder, model.manifest, 1)[name]
        kind = trained_kind_of(spec)
        rows_by_text = {each.text: kind.write_row(each) for each in found.train}
        assert RIGHT[name] in rows_by_text[f"{TEXT} 3"].values()
        again = with_second(f"{TEXT} again", second)
        assert rows_by_text[f"{TEXT} again"] == kind.write_row(kind.make_example(again, output))
        assert {each.second for each in found.train} == {second}

    def test_a_correction_of_another_kind_is_refused(self, name: str, model: Model) -> None:
        fields = {"id": "1", "prediction_id": "0" * 32, "agent": "a", "task": name, "verdict": "correction"}
        fields |= {"by": "me", "at": "2025-01-31T12:00:00Z"}
        check_form(Feedback.model_validate({**fields, "value": RIGHT[name]}), model.tasks[name])
        with pytest.raises(RecordError, match=f"a correction of a {model.tasks[name].kind} task is a "):
            check_form(Feedback.model_validate({**fields, "value": WRONG[name]}), model.tasks[name])

    def test_a_head_grows_by_a_label_and_holds_on_to_what_it_answered(
        self, name: str, place: Path, model: Model, tmp_path: Path
    ) -> None:
        kind, spec = trained_kind_of(model.tasks[name]), model.tasks[name]
        new = kind.label_logits([NEW[name]])
        old = graded(30, 5)
        write_jsonl(tmp_path / "old.jsonl", old)
        write_jsonl(tmp_path / "new.jsonl", [{**row, **new_fields(name, row["text"])} for row in graded(30, 6)])
        task = {key: value for key, value in TASKS[name].items() if key != "test"}
        task |= {"labels": [*spec.labels, *new], "train": ["new.jsonl", {"path": "old.jsonl", "soft": "all"}]}
        task |= {"validation": ["new.jsonl", "old.jsonl"]}
        budget = {"epochs": 1, "evaluations": 1}
        document = {**RECIPE, "encoder": str(place / "desk"), "tasks": {name: task}, "budget": budget}
        (tmp_path / "more.yaml").write_text(yaml.safe_dump(document))
        run = prepare(load_recipe(tmp_path / "more.yaml"), tmp_path, RunFolder(tmp_path / "prepared"))
        before = run.checkpoint.weights[f"heads.{name}.weight"]
        assert list(run.grown[name]) == new
        assert np.array_equal(run.model.heads[0].weight.detach().numpy()[: len(before)], before)
        assert len(run.train[0].held) >= len(old)
        fit(tmp_path / "more.yaml", tmp_path, tmp_path / "run", quiet=True)
        export(tmp_path / "run", tmp_path / "grown")
        assert Model.load(tmp_path / "grown", device="cpu").tasks[name].labels == [*spec.labels, *new]


def read_rows(name: str, place: Path) -> list[Any]:
    recipe = load_recipe(place / "base.yaml")
    task = recipe.tasks[name]
    return list(read_part(task.test, task, place, seed=recipe.data_seed))


def new_fields(name: str, text: str) -> dict[str, Any]:
    """Return the fields of a row with the new label."""
    value: Any = NEW[name]
    if name == "topics":
        value = [value]
    if name == "places":
        return {"spans": [{"start": 0, "end": text.index(" ", 1), "label": value}]}
    return {TASKS[name].get("columns", {}).get("label", "label"): value}
