"""A retraining that is interrupted while it trains."""

import json
from contextlib import suppress
from pathlib import Path

import pytest
from stopped_training import Stopped, stop_before
from tiny_loop import write_corrections, write_job

from murmura.training.retrain.run import GateRefused, retrain


def test_a_training_that_was_interrupted_goes_on_at_its_last_step_to_the_same_weights(
    desk_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    write_corrections(tmp_path / "corrections")
    fitted = {"epochs": 3, "evaluations": 1, "encoder_lr": 1e-3, "dropout": 0.1, "threads": 1}
    retrain(
        write_job(tmp_path, desk_base, fit=fitted, model={"folder": str(desk_base / "desk")}),
        tmp_path / "whole",
        quiet=True,
    )
    fitted |= {"save_minutes": 0}
    job = write_job(tmp_path, desk_base, fit=fitted, model={"folder": str(desk_base / "desk")})
    stop_before(30, monkeypatch)
    with pytest.raises(Stopped):
        retrain(job, tmp_path / "work", quiet=True)
    monkeypatch.undo()
    taken, said = stop_before(None, monkeypatch), list[str]()
    retrain(job, tmp_path / "work", quiet=True, say=said.append)
    steps = json.loads((tmp_path / "work" / "fit" / "done.json").read_text())["steps"]
    assert (len(taken), steps > 40) == (steps - 29, True)
    assert f"fit: {steps} steps in" in "\n".join(said)
    for name in ("fit/run/checkpoint.safetensors", "export/model/model.safetensors"):
        assert (tmp_path / "work" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_training_that_cannot_go_on_begins_anew_and_says_why(
    desk_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    write_corrections(tmp_path / "corrections")
    job = write_job(tmp_path, desk_base, fit={"steps": 6, "save_minutes": 0, "threads": 1})
    stop_before(4, monkeypatch)
    with pytest.raises(Stopped):
        retrain(job, tmp_path / "work", quiet=True)
    monkeypatch.undo()
    (tmp_path / "work" / "fit" / "run" / "state.safetensors").write_bytes(b"half")
    taken, said = stop_before(None, monkeypatch), list[str]()
    with suppress(GateRefused):
        retrain(job, tmp_path / "work", quiet=True, say=said.append)
    assert len(taken) == 6
    (why,) = [line for line in said if line.startswith("fit: begins anew")]
    assert why.endswith("state.safetensors: not a state of this version")
