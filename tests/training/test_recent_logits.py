"""A model is not run again for a text that it was asked lately."""

import json
from pathlib import Path
from typing import Any

import pytest

from murmura.runtime.model.model import Model
from murmura.training.data.example import example_of
from murmura.training.evaluate import recent_logits
from murmura.training.evaluate.evaluate import answers

TEXTS = ["my card was stolen", "hello london", "i want one", "great, thanks", "i want one"]


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many texts each run of a model had."""
    sizes, run = [], Model.run

    def run_and_count(self: Model, batch: Any) -> Any:
        sizes.append(len(batch))
        return run(self, batch)

    monkeypatch.setattr(Model, "run", run_and_count)
    return sizes


def ask(model: Model, task: str) -> dict[str, Any]:
    found = answers(model, model.tasks[task], [example_of(text) for text in TEXTS])
    return {answer.example.text: rounded(answer.output) for answer in found}


def rounded(output: Any) -> Any:
    """An output without the last digits of its scores, which differ with what else is in a batch."""
    return json.loads(json.dumps(output), parse_float=lambda number: round(float(number), 4))


def test_one_pass_answers_all_tasks_as_predict_does(tiny_model: Path, ran: list[int]) -> None:
    model, tasks = Model.load(tiny_model), ("intent", "sentiment", "topics", "entities")
    ran.clear()
    given = {task: ask(model, task) for task in tasks}
    assert sum(ran) == 4
    outputs = dict(zip(TEXTS, model.predict(TEXTS, tasks), strict=True))
    assert given == {task: {text: rounded(outputs[text][task]) for text in TEXTS} for task in tasks}


def test_only_so_many_tokens_are_kept(tiny_model: Path, ran: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recent_logits, "KEPT_TOKENS", 12)
    model = Model.load(tiny_model)
    first = ask(model, "intent")
    ran.clear()
    assert ask(model, "intent") == first
    assert 0 < sum(ran) < 4
