"""What runs out of memory outside of a step is named, with what takes less memory there."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
from tiny_few_rows import INTENT
from tiny_replies import REPLIES, TASK, reply_rows
from tiny_training import RECIPE, rows, write_jsonl

from murmura.runtime.errors import SetupError
from murmura.training.few_shot.make import make_model
from murmura.training.few_shot.recipe import Wanted
from murmura.training.fit.loop import fit

WriteRecipe = Callable[..., Path]
FIT = "murmura.training.fit"
BUDGET = {"steps": 1, "evaluations": 1}
SHORT: dict[str, Any] = {"budget": BUDGET, "trackers": [], "tasks": {"intent": INTENT}}
PLACES = RECIPE["tasks"]["places"]


def take_too_much(*_: Any, **__: Any) -> NoReturn:
    torch.empty(10**14)
    raise AssertionError("there was so much memory")


PARTS: dict[str, tuple[str, dict[str, Any], str]] = {
    "reading of the rows and the encoder": ("setup.report_tasks", {}, "read fewer `rows` of a source, or take"),
    "network": ("setup.build_model", {}, "take a smaller encoder"),
    "probe on the frozen encoder": ("probe.probe.fit_probe", {}, "lower max_tokens, or set `probe: false`"),
    "label errors": (
        "label_quality.check.Frozen.of_run",
        {"report": {"label_errors": True}, "probe": False},
        "lower max_tokens, or leave `report.label_errors` out",
    ),
    "vectors of the training rows": (
        "rows.pooled_texts.pad",
        {"encoder": {"frozen": True}},
        "lower max_tokens",
    ),
    "validation": ("progress.validation.logits_of", {}, "lower max_tokens or budget.validation_rows"),
    "refit of heads": ("finish.head_finish.fit_regression", {}, "lower max_tokens, or set `few_rows: 0`"),
    "calibration": ("progress.validation.finish", {}, "lower max_tokens"),
    "answers that other tasks are held to": (
        "phases.logits_of",
        {
            "tasks": {"intent": INTENT, "places": PLACES},
            "phases": [{"name": "a", "steps": 1, "tasks": ["intent"]}, {"name": "b", "steps": 1}],
            "budget": {"evaluations": 1},
        },
        "lower max_tokens, or set `held_rows: 0`",
    ),
    "guesses of self-training": (
        "self_training.phase.choose_threshold",
        {"self_training": {"texts": "more.jsonl", "epochs": 1}},
        "lower max_tokens, or name fewer texts",
    ),
}
"""By part: what takes too much there, keys of the recipe, and what is advised."""


@pytest.mark.parametrize("part", PARTS)
def test_a_part_of_a_training_beyond_the_memory_is_named_with_what_to_lower(
    part: str, base: Path, few: Path, tmp_path: Path, write_recipe: WriteRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken, keys, advice = PARTS[part]
    write_jsonl(few / "more.jsonl", [{"text": f"{row['text']} {number}"} for number, row in enumerate(rows(30, 9))])
    encoder = {"source": str(base), **keys.get("encoder", {})}
    monkeypatch.setattr(f"{FIT}.{broken}", take_too_much)
    with pytest.raises(SetupError) as caught:
        fit(write_recipe(**SHORT | keys | {"encoder": encoder}), few, tmp_path / "run", quiet=True)
    said = str(caught.value)
    assert said.startswith(f"{part}: out of memory; {advice}")
    assert "allocate memory" in said
    assert "\n" not in said


def test_so_is_the_teacher_and_so_is_the_second_stage_of_replies(
    run: Path, few: Path, tmp_path: Path, write_recipe: WriteRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = RECIPE["tasks"]["intent"]
    path = write_recipe(**SHORT | {"tasks": {"intent": task}, "teachers": str(run), "probe": False})
    with monkeypatch.context() as patch:
        patch.setattr(f"{FIT}.teachers.answers.build_network", take_too_much)
        with pytest.raises(SetupError, match=r"^answers of a teacher: out of memory; take a smaller teacher, or one"):
            fit(path, few, tmp_path / "taught", quiet=True)
    write_jsonl(few / "replies.jsonl", reply_rows(40, 0))
    stage = {"tasks": {"reply": {**TASK, "objective": {"steps": 1}}}, "budget": BUDGET}
    monkeypatch.setattr(f"{FIT}.finish.second_stage.compute_reward", take_too_much)
    with pytest.raises(SetupError, match=r"^second stage: out of memory; lower objective\.samples, batch_size or max_"):
        fit(write_recipe("replies", **REPLIES | stage), few, tmp_path / "replies", quiet=True)


@pytest.mark.parametrize("tune_encoder", [False, True])
def test_of_a_few_examples_options_of_the_command_are_named_and_no_keys_of_a_recipe(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tune_encoder: bool
) -> None:
    monkeypatch.setattr(f"{FIT}.finish.head_finish.fit_regression", take_too_much)
    if tune_encoder:
        monkeypatch.setattr("murmura.training.pretrain.network.Network.encode", take_too_much)
    desk = write_jsonl(tmp_path / "desk.jsonl", rows(24, 1))
    wanted = Wanted(desk, encoder=str(base), max_tokens=24, tune_encoder=tune_encoder)
    with pytest.raises(SetupError) as caught:
        make_model(wanted, tmp_path / "desk", lambda line: None)
    said, without = str(caught.value), " or leave --tune-encoder out," if tune_encoder else ""
    began = "pretrain: step 1: out of memory with 32 rows of labelled_texts" if tune_encoder else "refit of heads: out"
    assert said.startswith(began)
    assert f"; lower --max-tokens (24),{without} or take a smaller --encoder: " in said
    assert not any(key in said for key in ("batch_size", "max_tokens", "accumulate", "few_rows"))
