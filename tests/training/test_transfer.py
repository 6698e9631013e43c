"""`murmura transfer` on tasks that are made to help and to hurt each other."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
import yaml
from cli_in_process import run_here
from tiny_training import rows, write_jsonl

from murmura.runtime.errors import SetupError
from murmura.runtime.model.model import Model
from murmura.training.transfer import trainings
from murmura.training.transfer.advice import Cure
from murmura.training.transfer.run import describe_plan, open_study, run_study

pytestmark = pytest.mark.slow

PARTS = {"validation": "validation.jsonl", "test": "test.jsonl"}
PLAIN: dict[str, Any] = {
    "encoder": {
        **{"source": "scratch", "hidden_size": 16, "layers": 1, "heads": 1, "vocab_size": 150, "max_positions": 32}
    },
    **{"max_tokens": 24, "threads": 1, "dropout": 0.0, "probe": False, "few_rows": 0, "trackers": []},
    "budget": {"epochs": 4, "evaluations": 1},
}
HELPS = {
    **PLAIN,
    "optimiser": {"encoder_lr": 3e-3, "head_lr": 1e-2},
    "tasks": {"many": {"train": "many.jsonl", **PARTS}, "few": {"train": "few.jsonl", **PARTS, "epochs": 12}},
}
"""One task has three rows, the other the same labels and many rows."""
NOISE = dict.fromkeys(("train", *PARTS), "noise.jsonl")
HURTS = {
    **PLAIN,
    "optimiser": {"method": "sgd", "encoder_lr": 0.05, "head_lr": 0.1, "weight_decay": 0.0},
    "tasks": {"intent": {"train": "many.jsonl", **PARTS}, "noise": {**NOISE, "loss_weight": 3000}},
}
"""Labels at random count so much that the clip leaves the other task, by SGD, a step of nearly 0."""


class Killed(Exception):
    pass


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made, draw = tmp_path_factory.mktemp("transfer"), random.Random(0)
    many = rows(240, 1)
    write_jsonl(made / "many.jsonl", many)
    write_jsonl(made / "noise.jsonl", [{**row, "label": draw.choice("ab")} for row in many])
    for name, count, seed in (("few", 3, 5), ("test", 60, 2), ("validation", 30, 3)):
        write_jsonl(made / f"{name}.jsonl", rows(count, seed))
    for name, recipe in (("helps", HELPS), ("hurts", HURTS)):
        (made / f"{name}.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    return made


def test_a_task_of_few_rows_is_helped_by_one_of_the_same_labels(folder: Path) -> None:
    study = open_study(folder / "helps.yaml", folder, folder / "helps", [0, 1, 2])
    result = run_study(study, quiet=True, keep_models=True)
    found = {each.task: each for each in result.transfers}["few"]
    assert found.difference.low is not None
    assert found.difference.low > 0
    advice = {each.task: each for each in result.advice}["few"]
    assert (advice.cure, "helps" in advice.reason) == (Cure.NOTHING, True)
    run_study(study, quiet=True)
    assert {*Model.load(study.out / "alone-few-0" / "model", device="cpu").tasks} == {"few"}
    assert {*Model.load(study.out / "joint-2" / "model", device="cpu").tasks} > {"few"}
    assert not list(study.out.rglob("checkpoint.safetensors"))


def test_a_task_that_is_hurt_gets_a_cure_and_a_killed_comparison_goes_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, taken = open_study(folder / "hurts.yaml", folder, folder / "hurts", [0, 1]), []
    fit = trainings.fit

    def killed_in_the_second(*given: Any, **named: Any) -> Any:
        taken.append(given[2].parent.name)
        if len(taken) == 2:
            raise Killed
        return fit(*given, **named)

    monkeypatch.setattr(trainings, "fit", killed_in_the_second)
    with pytest.raises(Killed):
        run_study(study, quiet=True)
    *states, counted, duration = describe_plan(study)
    assert states[0].endswith("has ended")
    assert counted == "6 trainings, 5 of them to be taken"
    assert duration.startswith("roughly ")
    result = run_study(study, quiet=True)
    assert taken[2:] == ["alone-intent-0", "alone-noise-0", "joint-1", "alone-intent-1", "alone-noise-1"]
    intent = {each.task: each for each in result.transfers}["intent"]
    assert intent.difference.high is not None
    assert intent.difference.high < 0
    advice = {each.task: each for each in result.advice}["intent"]
    assert (advice.cure, advice.keys) == (Cure.MORE_STEPS, "tasks.intent.epochs: twice as many")
    assert {each.task: each.steps for each in result.costs} == {None: 60, "intent": 30, "noise": 30}
    assert not [*study.out.rglob("checkpoint.safetensors"), *study.out.rglob("model")]
    with pytest.raises(SetupError, match="its model was not kept; remove the folder to train it again"):
        run_study(study, quiet=True, keep_models=True)

    done = run_here("transfer", str(study.path), "--data", str(folder), "--out", str(study.out), "--seeds", "0", "1")
    assert len(taken) == 7  # nothing is taken again
    assert "intent: more steps: Joint training hurts" in done.stdout
    written = json.loads((study.out / "transfer.json").read_text())
    assert written["tasks"]["intent"]["by_seed"] == pytest.approx(intent.difference.by_seed)
    assert {each.name for each in study.out.glob("transfer.*")} == {"transfer.html", "transfer.json", "transfer.md"}

    changed = folder / "changed.yaml"
    changed.write_text(yaml.safe_dump({**HURTS, "name": "hurts", "batch_size": 16}))
    with pytest.raises(SetupError, match="a training of another recipe"):
        run_study(open_study(changed, folder, study.out, [0, 1]), quiet=True)
