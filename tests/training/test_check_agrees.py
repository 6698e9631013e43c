"""What `train --check` lets pass can be trained, and what it refuses is refused before training, in the same line: by method
around the encoder and by what stands beside it.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_methods import METHODS
from tiny_training import RECIPE, rows, write_jsonl

from murmura.runtime.errors import SetupError
from murmura.training.fit import loop
from murmura.training.fit.check_data import check_data
from murmura.training.recipe.recipe import load_recipe

ONE = {"intent": RECIPE["tasks"]["intent"]}
VERBALISER = {"template": "is my {mask} in {text}", "words": {"lost": "card", "other": "weather", "transfer": "money"}}
WORD = {"words": {"lost": "card"}}
REPLIES = {"reply": {"kind": "generation", "layers": 1, "train": "replies.jsonl"}}
BESIDE: dict[str, dict[str, Any]] = {
    "nothing": {},
    "self_training": {"self_training": {"texts": "unlabelled.jsonl"}},
    "self_training of rows": {"self_training": {"texts": "train.jsonl"}},
    "self_training of spans": {
        "self_training": {"texts": "unlabelled.jsonl"},
        "tasks": {"places": RECIPE["tasks"]["places"]},
    },
    "smaller": {"smaller": {"layers": 1, "teacher": "a model"}, "encoder": None},
    "teachers": {"teachers": "a model"},
    "phases": {"phases": [{"name": "one", "steps": 1}, {"name": "two", "steps": 1}]},
    "pretrain": {"pretrain": {"steps": 1}},
    "pretrain from scratch": {"pretrain": {"steps": 1}, "encoder": RECIPE["encoder"]},
    "scratch": {"encoder": RECIPE["encoder"]},
    "frozen": {"encoder": {"source": "an encoder", "frozen": True}},
    "freeze": {"freeze": 1},
    "freeze encoder": {"freeze": "encoder"},
    "freeze too much": {"freeze": 3},
    "freeze too much in a phase": {"phases": [{"name": "one", "steps": 1, "freeze": 3}]},
    "spans": {"tasks": {"places": RECIPE["tasks"]["places"]}},
    "several": {"tasks": RECIPE["tasks"]},
    "replies": {"tasks": REPLIES},
    "replies beside": {"tasks": ONE | REPLIES, "self_training": {"texts": "unlabelled.jsonl"}},
    "phase without a step": {
        "phases": [{"name": "one", "steps": 1}, {"name": "two", "epochs": 0.0001}],
        "budget": {"evaluations": 1},
    },
    "one step by epochs": {"budget": {"epochs": 0.01, "evaluations": 1}},
    "one step": {"budget": {"steps": 1, "evaluations": 1}},
    "pooled": {"pooled": "distilled"},
    "verbaliser": {"tasks": {"intent": {"train": "train.jsonl", "verbaliser": VERBALISER}}},
    "verbaliser of other labels": {"tasks": {"intent": {"train": "train.jsonl", "verbaliser": VERBALISER | WORD}}},
}
BUDGET = {"steps": 3, "evaluations": 1}
PASSING = {
    *((None, beside) for beside in ("self_training", "smaller", "teachers", "pretrain from scratch", "verbaliser")),
    *(("p_tuning", beside) for beside in ("smaller", "teachers", "pretrain from scratch")),
}


class Reached(Exception):
    """Raised instead of the first step."""


@pytest.fixture
def folder(few: Path) -> Path:
    """The data that all of them read."""
    write_jsonl(few / "unlabelled.jsonl", [{"text": f"{row['text']} {at}"} for at, row in enumerate(rows(20, 9))])
    reply = {"turns": [{"role": "user", "text": "i lost my card"}], "acts": [], "reply": "Where did you lose it?"}
    write_jsonl(few / "replies.jsonl", [{**reply, "dialogue": str(at)} for at in range(20)])
    return few


@pytest.fixture
def agree(
    base: Path, run: Path, tmp_path: Path, write_recipe: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> Callable[[str | None, str, Path], str]:
    """`agree(method, beside, data)` holds check and training against each other, and returns what training says."""

    def reach(*_: Any, **__: Any) -> None:
        raise Reached

    monkeypatch.setattr(loop, "train_all", reach)

    def hold(name: str | None, beside: str, data: Path) -> str:
        keys = json.loads(json.dumps(BESIDE[beside]).replace("a model", str(run)).replace("an encoder", str(base)))
        plain = {"trackers": [], "probe": False, "few_rows": 0, "budget": BUDGET, "precision": "fp32"}
        path = write_recipe(**{"encoder": str(base), "tasks": ONE, "method": METHODS.get(name or ""), **plain} | keys)
        found = check_data(load_recipe(path), data).problems
        with pytest.raises((SetupError, Reached)) as caught:
            loop.fit(path, data, tmp_path / f"{name} {beside}", quiet=True)
        said = str(caught.value)
        assert found == [] if caught.type is Reached else said in found, (name, beside, said)
        assert "\n" not in said
        return said

    return hold


@pytest.mark.parametrize("beside", BESIDE)
def test_what_is_refused_before_anything_is_read_is_the_same(
    agree: Callable[..., str], tmp_path: Path, beside: str
) -> None:
    for name in (None, *METHODS):
        assert agree(name, beside, tmp_path / "no-data")


@pytest.mark.parametrize("name", [None, "p_tuning"])
@pytest.mark.parametrize(
    "beside",
    [
        *("self_training", "self_training of rows", "smaller", "teachers", "freeze too much", "pretrain from scratch"),
        *("verbaliser", "verbaliser of other labels"),
    ],
)
def test_what_is_refused_when_the_data_are_read_is_the_same(
    agree: Callable[..., str], folder: Path, name: str | None, beside: str
) -> None:
    said = agree(name, beside, folder)
    assert (said == "") == ((name, beside) in PASSING)


@pytest.mark.parametrize(("name", "beside"), [(None, "phase without a step"), ("adalora", "one step by epochs")])
def test_too_few_steps_are_refused_before_the_first(
    agree: Callable[..., str], folder: Path, name: str | None, beside: str
) -> None:
    assert re.search("two trains nothing|adalora takes 2 steps or more, there is 1", agree(name, beside, folder))
