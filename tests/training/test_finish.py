"""What is chosen after the last step, judged by what the exported model serves."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tiny_training import rows, write_jsonl
from tokenizers import Tokenizer

from murmura.runtime.model.decoding import score_labels
from murmura.training.data.example import Example, Span
from murmura.training.evaluate.evaluate import evaluate
from murmura.training.export.export import export
from murmura.training.fit.finish.finish import finish
from murmura.training.fit.loop import fit
from murmura.training.kinds.kind import Kind
from murmura.training.kinds.registry import KINDS
from murmura.training.model.encoders import train_tokenizer
from murmura.training.prepare.tasks import TaskData
from murmura.training.recipe.keys.tasks import Task
from murmura.training.report.decisions import describe_decisions


@pytest.mark.parametrize("learn", [True, False])
def test_a_well_fitted_model_with_few_rows_out_of_scope_answers_the_genuine(
    learn: bool, tmp_path: Path, write_recipe: Callable[..., Path]
) -> None:
    made = rows(360, 1)
    few = [row for row in made if row["label"] != "other"] + [row for row in made if row["label"] == "other"][:12]
    write_jsonl(tmp_path / "train.jsonl", few)
    write_jsonl(tmp_path / "test.jsonl", rows(60, 2))
    scope = {"out_of_scope": {"label": "other", "learn": learn}, "thresholds": {"max_flagged": 0.05}}
    task = {"train": "train.jsonl", "test": "test.jsonl", **scope}
    recipe = write_recipe(tasks={"intent": task}, budget={"epochs": 12, "evaluations": 1})
    fit(recipe, tmp_path, tmp_path / "run", quiet=True)
    export(tmp_path / "run", tmp_path / "out")
    figures = evaluate(tmp_path / "out", tmp_path)["intent"]["test"].figures
    assert figures["served"] >= 0.9
    assert not learn or figures["out_of_scope_recall"] > 0.2


def task_data(kind: str, labels: list[str], validation: list[Example], **task: object) -> TaskData:
    read = Task.model_validate({"kind": kind, "train": "x.jsonl", **task})
    return TaskData("t", read, KINDS.get(kind), labels, validation, validation, [], [], [], {}, {})


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(["send money to rome and paris today"], 120, lowercase=True)


def test_a_limit_that_no_threshold_keeps_is_said(tokenizer: Tokenizer, caplog: pytest.LogCaptureFixture) -> None:
    validation = [Example("x", (label,)) for label in ("a", "b", "a", "none")]
    data = task_data(
        "classification", ["a", "b", "none"], validation, out_of_scope="none", thresholds={"max_flagged": 0.1}
    )
    logits = [np.array(row, float) for row in ([5, 0, -9], [0, 5, -9], [0, 0, 99], [0, 0, 1])]
    spec = finish(data, lambda examples: logits, tokenizer)
    assert spec.thresholds.out_of_scope is not None
    assert (
        "no threshold withholds at most 10.0 % of the genuine texts; the one chosen withholds 33.3 % of 3"
        in caplog.text
    )


@pytest.mark.parametrize(
    ("limit", "named"),
    [({"max_flagged": 0.25}, [0.9, 0.5, 0.6]), ({"max_flagged": 0.0}, [0.9]), ({}, [0.9, 0.5, 0.3, 0.6, 0.35])],
)
def test_several_labels_get_the_threshold_that_finds_most_of_those_that_name_few_texts_without_any(
    tokenizer: Tokenizer, limit: dict[str, float], named: list[float]
) -> None:
    scores = {"a": [0.9, 0.5, 0.3], "": [0.6, 0.35, 0.1, 0.1]}
    validation = [Example("x", (label,) if label else ()) for label, each in scores.items() for _ in each]
    logits = {score: np.log(score / (1 - score)) for each in scores.values() for score in each}
    rows = [np.array([logits[score], -9.0]) for each in scores.values() for score in each]
    spec = finish(task_data("multi_label", ["a", "b"], validation, thresholds=limit), lambda _: rows, tokenizer)
    least = spec.thresholds.label
    served = {score: score_labels(np.array([logit]), spec.calibration)[0] for score, logit in logits.items()}
    assert [score for score, published in served.items() if published >= least] == named


def test_the_temperature_of_a_tagger_undoes_overconfidence_and_leaves_its_spans(tokenizer: Tokenizer) -> None:
    draw = np.random.default_rng(0)
    validation = [Example("rome and paris today", spans=(Span(0, 4, "p"),)) for _ in range(150)]
    data = task_data("tagging", ["O", "B-p", "I-p"], validation)

    def score(examples: list[Example]) -> list[np.ndarray]:
        made = []
        for example in examples:
            target = data.kind.target(example, tokenizer.encode(example.text), {"O": 0, "B-p": 1, "I-p": 2})
            wrong = draw.random(len(target)) < 0.3
            made.append(np.eye(3)[np.where(wrong, 0, np.maximum(target, 0))] * 12.0)
        return made

    spec = finish(data, score, tokenizer)
    assert spec.calibration.temperature > 2
    assert spec.calibration_rows == 150
    assert spec.words == "text"


def test_a_kind_that_chooses_no_temperature_says_of_no_rows_that_they_chose_it(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = task_data("classification", ["a", "b"], [Example("x", ("a",))])
    monkeypatch.setattr(type(data.kind), "calibrate", Kind.calibrate)
    spec = finish(data, lambda examples: [], tokenizer)
    assert spec.calibration_rows is None
    assert describe_decisions(spec) == "temperature 1."
