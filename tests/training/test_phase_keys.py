"""What a phase says of itself acts in that phase: its dropout, its patience, and what it holds the other tasks to."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_methods import METHODS
from tiny_replies import TASK, reply_rows
from tiny_training import RECIPE, write_jsonl
from torch import Tensor, nn
from torch.nn import functional as F

from murmura.training.fit.checkpoint import checkpoint_weights, restore
from murmura.training.fit.loop import fit
from murmura.training.fit.phases import Base, begin_phase
from murmura.training.fit.rows.batches import collate
from murmura.training.fit.setup import Fitting
from murmura.training.fit.steps.gradient import measure_losses
from murmura.training.model.network import logits_of
from murmura.training.run_folders.run_folder import RunFolder

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


def test_a_phase_asks_the_other_tasks_for_what_they_answered_when_it_began(begin: Callable[..., Fitting]) -> None:
    phases = [{"name": "joint", "steps": 2}, {"name": "one", "tasks": ["intent"], "steps": 3, "held_rows": 0.5}]
    run = begin(1, phases=phases, hold={"weight": 2.0})
    read = [{task: len(rows) for task, rows in step} for step in run.plan]
    assert sum(step.get(1, 0) for step in read) == pytest.approx(0.5 * sum(step[0] for step in read), abs=1)
    rows = [(1, [*range(len(run.train[1].ids))])]
    before = logits_of(run.model, 1, run.train[1].ids, device="cpu", bf16=False)
    assert measure_losses(run, rows)[1] == pytest.approx(0, abs=1e-6)
    with torch.no_grad():
        for parameter in run.model.encoder.encoder.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    now = logits_of(run.model, 1, run.train[1].ids, device="cpu", bf16=False)
    asked = [target >= 0 for target in run.train[1].targets]  # the first piece of each word
    a, b = (
        torch.tensor(np.concatenate([x[at] for x, at in zip(each, asked, strict=True)])) / 2 for each in (before, now)
    )
    moved = F.kl_div(b.log_softmax(-1), a.log_softmax(-1), reduction="batchmean", log_target=True)
    assert measure_losses(run, rows)[1] == pytest.approx(2 * 4 * float(moved), rel=1e-4)
    assert moved > 1e-4


def test_a_held_task_keeps_its_answers_while_another_one_learns(
    few: Path, tmp_path: Path, write_recipe: WriteRecipe, open_run: Callable[..., Fitting]
) -> None:
    joint = {"name": "joint", "steps": 20}
    ways = {"joint": []} | {
        name: [{"name": "one", "tasks": ["intent"], "steps": 40, "held_rows": share}]
        for name, share in (("held", 2.0), ("free", 0))
    }
    answers = {}
    for name, further in ways.items():
        fit(write_recipe(phases=[joint, *further], **SHORT), few, tmp_path / name, quiet=True)
        run = open_run(few, encoder=RECIPE["encoder"], **SHORT)
        restore(run.model, RunFolder(tmp_path / name).weights(), low_rank=False)
        answers[name] = np.concatenate(logits_of(run.model, 1, run.train[1].ids, device="cpu", bf16=False))
    moved = {name: float(np.abs(each - answers["joint"]).mean()) for name, each in answers.items()}
    assert moved["held"] < 0.5 * moved["free"]


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
