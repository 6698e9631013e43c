"""Rows of replies without slots, of one piece, or with nothing to learn from."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny_replies import REPLIES, reply_rows
from tiny_training import write_jsonl

from murmura.runtime.errors import SetupError
from murmura.runtime.generation.input_format import format_input
from murmura.runtime.model.model import Model
from murmura.schemas.acts import Act, Utterance
from murmura.training.export.export import export
from murmura.training.fit.loop import fit


def put_recipe(folder: Path, recipe: dict[str, Any]) -> Path:
    (folder / "model.yaml").write_text(yaml.safe_dump(recipe))
    return folder / "model.yaml"


def say(model: Model, said: str, *acts: Act) -> str:
    generation = model.manifest.task("reply").generation
    assert generation is not None
    return model.generate([format_input([Utterance(role="user", text=said)], acts, generation)], task="reply")[0].text


@pytest.mark.parametrize(
    "changed",
    [
        {"reply": "Ok", "acts": [{"act": "greet"}]},
        {"reply": "x", "acts": []},
        {"reply": "{city}", "acts": [{"act": "inform", "slot": "city"}]},
    ],
)
def test_replies_without_slots_or_of_one_piece_are_trained(changed: dict[str, Any], tmp_path: Path) -> None:
    write_jsonl(tmp_path / "replies.jsonl", [row | changed for row in reply_rows(24, 0)])
    recipe = REPLIES | {"budget": {"epochs": 8, "evaluations": 1}, "batch_size": 8, "precision": "fp32"}
    fit(put_recipe(tmp_path, recipe), tmp_path, tmp_path / "run", quiet=True)
    export(tmp_path / "run", tmp_path / "model")
    model = Model.load(tmp_path / "model")
    assert say(model, "hey", *(Act(**act) for act in changed["acts"])) == changed["reply"]


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"reply": ""}, "replies.jsonl:1: the reply is empty"),
        ({"reply": " "}, "replies.jsonl:1: the reply is empty"),
        ({"acts": [{"act": "bark"}]}, "replies.jsonl:1: no act 'bark'; expected one of greet, "),
    ],
)
def test_empty_replies_and_unknown_acts_are_refused_in_one_line(
    changed: dict[str, Any], problem: str, tmp_path: Path
) -> None:
    write_jsonl(tmp_path / "replies.jsonl", [row | changed for row in reply_rows(9, 0)])
    with pytest.raises(SetupError, match=re.escape(problem)) as refused:
        fit(put_recipe(tmp_path, REPLIES), tmp_path, tmp_path / "run", quiet=True)
    assert "\n" not in str(refused.value)
