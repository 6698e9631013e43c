"""What a phase says of itself acts in that phase: its dropout, its patience, and what it holds the other tasks to."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_methods import METHODS
from tiny_replies import TASK, reply_rows
from tiny_training import RECIPE, write_jsonl
from torch import Tensor, nn

from murmura.training.fit.checkpoint import checkpoint_weights
from murmura.training.fit.loop import fit
from murmura.training.fit.phases import Base, begin_phase
from murmura.training.fit.rows.batches import collate
from murmura.training.fit.setup import Fitting

WriteRecipe = Callable[..., Path]
TWO = {name: RECIPE["tasks"][name] for name in ("intent", "places")}
SHORT = {"tasks": TWO, "trackers": [], "probe": False, "few_rows": 0, "budget": {"evaluations": 1}}


@pytest.fixture
def begin(few: Path, open_run: Callable[..., Fitting]) -> Callable[..., Fitting]:
    """`begin(number, phases=...)` prepares a run and puts it at the beginning of a phase, with the network as it was drawn."""

    def begun(number: int, **keys: Any) -> Fitting:
        run = open_run(few, **{**SHORT, **keys})
        run.folder.path.mkdir(exist_ok=True)
        run.folder.save_weights(checkpoint_weights(run.model, low_rank=run.recipe.low_rank))
        begin_phase(run, Base(run.recipe, run.train, run.trained), number, goes_on=False)
        return run

    return begun


def differences(run: Fitting) -> dict[str, float]:
    """Return by how much two passes in training differ: of the encoder, and of each head on the same states."""
    batch = collate(run.train, run.tasks, [(0, [0, 1])], "cpu")[0]
    run.model.eval()
    with torch.no_grad():
        texts = run.model.encode(batch.ids, batch.mask)
        run.model.train()

        def two(compute: Callable[[], Tensor]) -> float:
            return float((compute() - compute()).abs().max())

        found = {"encoder": two(lambda: run.model.encode(batch.ids, batch.mask).states)}
        for at, data in enumerate(run.tasks):
            target = torch.zeros(2, 3, dtype=torch.long) if data.kind.generates else None
            found[data.name] = two(lambda at=at, target=target: run.model.answer(at, texts, target))  # type: ignore[misc]
    return found


def test_the_dropout_of_a_phase_acts_on_encoder_heads_and_decoders_and_ends_with_it(
    few: Path, begin: Callable[..., Fitting]
) -> None:
    write_jsonl(few / "replies.jsonl", reply_rows(30, 0))
    hidden = {**RECIPE["tasks"]["topics"], "head": {"layers": "mix", "hidden": 16}}
    tasks = {**TWO, "topics": hidden, "reply": TASK}
    phases = [
        {"name": "plain", "steps": 1},
        {"name": "dropped", "steps": 1, "dropout": 0.5},
        {"name": "again", "steps": 1},
    ]
    keys = {
        "tasks": tasks,
        "phases": phases,
        "method": METHODS["lora"] | {"dropout": 0.0},
        "max_tokens": 32,
        "dropout": 0.0,
    }
    found = [differences(begin(number, **keys)) for number in range(3)]
    assert set(found[0]) == {"encoder", "intent", "places", "topics", "reply"}
    assert set(found[0].values()) == set(found[2].values()) == {0.0}
    assert min(found[1].values()) > 1e-3


def test_the_dropout_of_a_phase_is_not_that_of_lora(begin: Callable[..., Fitting]) -> None:
    run = begin(0, method={"name": "lora", "dropout": 0.3}, phases=[{"name": "a", "steps": 1, "dropout": 0.5}])
    shares = {("lora" in name, part.p) for name, part in run.model.named_modules() if isinstance(part, nn.Dropout)}
    assert shares == {(True, 0.3), (False, 0.5)}


def test_the_patience_of_a_phase_ends_it_alone(few: Path, tmp_path: Path, write_recipe: WriteRecipe) -> None:
    still = {"encoder_lr": 1e-12, "head_lr": 1e-12}
    phases = [
        {"name": "whole", "steps": 8, "evaluations": 4},
        {"name": "ended", "steps": 12, "evaluations": 6, "patience": 2},
        {"name": "long", "steps": 4},
        {"name": "last", "steps": 9, "evaluations": 9, "patience": 1},
    ]
    path = write_recipe(phases=phases, optimiser=still, **SHORT)
    record = fit(path, few, tmp_path / "run", quiet=True)
    assert [phase.steps for phase in record.phases] == [8, 6, 4, 2]
    assert not record.interrupted, "the last phase has come to its end"
    assert not [*(tmp_path / "run").glob("state.*")]
