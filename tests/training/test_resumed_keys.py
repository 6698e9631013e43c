"""Keys of a recipe beside which an interrupted run goes on to the same bytes, and what its state has to hold for that."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file
from stopped_training import assert_resumed_equals_whole, fit_until
from tiny_training import RECIPE
from torch import Tensor

from murmura.training.compute.state_file import MOMENTS, read_state_file
from murmura.training.fit.loop import fit
from murmura.training.run_folders.run_folder import STATE, WEIGHTS

WriteRecipe = Callable[..., Path]
Drop = Callable[[dict[str, Any], dict[str, Tensor]], None]
INTENT, TOPICS, PLACES = (RECIPE["tasks"][name] for name in ("intent", "topics", "places"))
SHORT = {"trackers": [], "probe": False, "few_rows": 0, "save_minutes": 0, "dropout": 0.1}
STILL = {"encoder_lr": 1e-6, "head_lr": 1e-7, "schedule": "constant"}
"""Weights change in their last bits, and no answer does: no evaluation is better than the first."""
FIVE_STEPS = {"budget": {"steps": 5, "evaluations": 1}}


def drop_stale(position: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Forget how many evaluations were no better."""
    assert position["standing"]["stale"] == 1
    position["standing"]["stale"] = 0


def drop_moments(position: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Forget what the optimiser has averaged; its count of steps stays."""
    moments = [name for name in tensors if name.partition("/")[0] in MOMENTS and not name.startswith("step/")]
    assert any(name.rpartition("/")[2].startswith("weighting.") for name in moments)
    assert any(bool(tensors[name].any()) for name in moments)
    for name in moments:
        tensors[name].zero_()


def drop_log_variances(position: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Forget how the tasks are weighed."""
    learned = [tensor for name, tensor in tensors.items() if name.startswith("model/weighting.log_variance.")]
    assert learned
    assert all(tensor.ndim == 0 and bool(tensor) for tensor in learned)
    for tensor in learned:
        tensor.zero_()


CASES: dict[str, tuple[dict[str, Any], int, int, list[Drop]]] = {
    # Scored at each second step: the third time that it is no better than the first ends it, at the sixth step.
    "patience, temperature, concat, class weights, focal, sgd": (
        {
            "tasks": {
                "intent": {**INTENT, "head": {"layers": "concat"}, "class_weights": "balanced", "focal": 2},
                "places": PLACES,
            },
            "budget": {"steps": 12, "evaluations": 6, "patience": 2},
            "sampling": {"method": "temperature", "temperature": 3},
            "weights": "uncertainty",
            "optimiser": {"method": "sgd", **STILL},
        },
        6,
        6,
        [drop_stale, drop_moments, drop_log_variances],
    ),
    # As above in the second phase; the first has two steps.
    "patience of a phase, equal, distance, mean and maximum, adafactor": (
        {
            "tasks": {
                "intent": {**INTENT, "out_of_scope": {"label": "other", "by": "distance"}},
                "topics": {**TOPICS, "head": {"pooling": "mean_max"}},
            },
            "phases": [
                {"name": "first", "steps": 2, "evaluations": 1},
                {"name": "second", "steps": 12, "evaluations": 6, "patience": 2},
            ],
            "budget": {},
            "sampling": "equal",
            "weights": "uncertainty",
            "optimiser": {"method": "adafactor", **STILL},
        },
        8,
        8,
        [drop_stale, drop_moments, drop_log_variances],
    ),
    "annealed": (
        {
            "tasks": {"intent": INTENT, "places": PLACES},
            "sampling": "annealed",
            "budget": {"steps": 10, "evaluations": 1},
        },
        7,
        10,
        [],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_run_goes_on_to_the_same_bytes_and_not_without_what_its_state_holds(
    few: Path, tmp_path: Path, write_recipe: WriteRecipe, case: str
) -> None:
    keys, step, steps, drops = CASES[case]
    path = write_recipe(**SHORT, **keys)

    def copy(run: Path) -> None:
        for drop in drops:
            position, tensors = read_state_file(shutil.copytree(run, tmp_path / drop.__name__) / STATE)
            drop(position, tensors)
            save_file(tensors, tmp_path / drop.__name__ / STATE, metadata={"position": json.dumps(position)})

    runs = assert_resumed_equals_whole(path, few, tmp_path, step=step, meanwhile=copy)
    assert (runs.whole.steps, runs.whole.best_step) == (steps, steps)
    for drop in drops:
        record = fit(path, few, tmp_path / drop.__name__, quiet=True, resume=True)
        differs = (tmp_path / drop.__name__ / WEIGHTS).read_bytes() != (runs.whole_folder / WEIGHTS).read_bytes()
        assert differs or record.steps != steps, drop.__name__


def test_a_run_of_an_earlier_version_that_goes_on_says_no_rows_where_a_phase_did_not_count_them(
    few: Path, tmp_path: Path, write_recipe: WriteRecipe
) -> None:
    phases = [{"name": name, "steps": 2, "evaluations": 1} for name in ("first", "second")]
    path = write_recipe(**SHORT, tasks={"intent": INTENT, "places": PLACES}, phases=phases, budget={})
    fit_until(4, path, few, tmp_path / "run")
    position, tensors = read_state_file(tmp_path / "run" / STATE)
    (ended,) = position["standing"]["phases"]
    assert sum(ended.pop("rows_read").values()) == 2 * 32
    save_file(tensors, tmp_path / "run" / STATE, metadata={"position": json.dumps(position)})
    record = fit(path, few, tmp_path / "run", quiet=True, resume=True)
    assert [sum(phase.rows_read.values()) for phase in record.phases] == [0, 2 * 32]
    assert record.rows_read == {}
