"""A task that joint training hurts, and one of the cures: more steps of its own."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tiny_training import RECIPE, write_jsonl

from murmura.training.fit.loop import fit

PEOPLE = ["anna", "bert", "carl", "dora", "emil", "fred", "gina", "hugo"]
THINGS = ["apple", "bread", "candy", "dates", "eggs", "figs", "grapes", "honey"]


def purchases(count: int, seed: int) -> list[dict[str, str]]:
    """Rows that say who buys what, which are their labels."""
    draw = random.Random(seed)
    pairs = [(draw.choice(PEOPLE), draw.choice(THINGS)) for _ in range(count)]
    return [{"text": f"{who} buys {what}", "who": who, "what": what} for who, what in pairs]


def test_a_task_whose_encoder_another_one_takes_gets_better_by_more_of_its_own_steps(
    tmp_path: Path, write_recipe: Callable[..., Path]
) -> None:
    """Eight numbers of the encoder have to tell who from what, and who counts five times. Of seeds 0 to 6 the task alone was right
    for 46 to 93 %, jointly for 16 to 23 %, and with three times the steps for 53 to 66 %.
    """
    write_jsonl(tmp_path / "train.jsonl", purchases(400, 1))
    write_jsonl(tmp_path / "held.jsonl", purchases(200, 2))
    files = {"train": "train.jsonl", "validation": "held.jsonl", "epochs": 4}
    who, what = ({**files, "columns": {"label": name}} for name in ("who", "what"))
    keys: dict[str, Any] = {"trackers": [], "probe": False, "few_rows": 0, "budget": {"evaluations": 1}}
    keys["encoder"] = {**RECIPE["encoder"], "hidden_size": 8, "layers": 1, "heads": 1}
    keys["optimiser"] = {"encoder_lr": 1e-2, "head_lr": 2e-2}

    def right(name: str, **tasks: Any) -> float:
        """Train these tasks; return the accuracy of `what`."""
        record = fit(write_recipe(name, tasks=tasks, **keys), tmp_path, tmp_path / name, quiet=True)
        return record.validation["what"]["main"]

    alone = right("alone", what=what)
    joint = right("joint", who={**who, "loss_weight": 5}, what=what)
    cured = right("cured", who={**who, "loss_weight": 5}, what={**what, "epochs": 12})
    assert joint < alone - 0.2
    assert cured > joint + 0.2
