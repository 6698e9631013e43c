"""A step minimises sum(alpha_i * mean loss of task i) over the rows of all tasks."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from tiny_training import RECIPE, write_jsonl

from murmura.runtime.errors import SetupError
from murmura.training.data.example import Example
from murmura.training.fit.loop import fit
from murmura.training.fit.rows.batches import PASS_TOKENS, collate, forward_passes
from murmura.training.fit.setup import Fitting, prepare
from murmura.training.fit.steps.failed_step import refuse_non_finite
from murmura.training.fit.steps.joint_step import loss_weights, task_losses, weighted_sum
from murmura.training.kinds.registry import KINDS
from murmura.training.recipe.recipe import load_recipe
from murmura.training.run_folders.run_folder import RunFolder

WriteRecipe = Callable[..., Path]
TWO = {name: RECIPE["tasks"][name] for name in ("intent", "topics")}


@pytest.fixture
def prepared(data: Path, tmp_path: Path, write_recipe: WriteRecipe) -> Callable[..., Fitting]:
    def make(**changes: Any) -> Fitting:
        return prepare(load_recipe(write_recipe(**changes)), data, RunFolder(tmp_path / "run"))

    return make


def gradient(run: Fitting, weights: list[float]) -> torch.Tensor:
    """Return the gradient of the first step, all parameters in one vector; a weight of 0 leaves its task out."""
    run.model.eval()
    run.model.zero_grad()
    rows = [part for part in run.plan[0] if weights[part[0]]]
    batches = collate(run.train, run.tasks, rows, "cpu")
    losses = task_losses(run.model, run.tasks, run.recipe, batches, run.checkpoint.special)
    weighted_sum(losses, weights).backward()
    return torch.cat([torch.zeros(p.numel()) if p.grad is None else p.grad.flatten() for p in run.model.parameters()])


def test_the_gradient_before_the_clip_is_the_weighted_sum_of_the_tasks(prepared: Callable[..., Fitting]) -> None:
    run = prepared()
    assert len(run.plan[0]) == 3
    joint = gradient(run, [0.5, 3.0, 8.0])
    alone = [gradient(run, [float(task == only) for task in range(3)]) for only in range(3)]
    expected = 0.5 * alone[0] + 3.0 * alone[1] + 8.0 * alone[2]
    assert min(each.norm() for each in alone) > 0.01
    assert float((joint - expected).norm() / expected.norm()) < 1e-5


def trained_encoder(data: Path, folder: Path, recipe: Path) -> np.ndarray:
    fit(recipe, data, folder, quiet=True)
    weights = load_file(folder / "checkpoint.safetensors")
    return np.concatenate([weights[name].ravel() for name in sorted(weights) if not name.startswith("heads.")])


def test_a_weight_moves_the_encoder_and_a_common_factor_does_not(
    data: Path, tmp_path: Path, write_recipe: WriteRecipe, prepared: Callable[..., Fitting]
) -> None:
    budget = {"steps": 30, "evaluations": 1}
    began = prepared(tasks=TWO, budget=budget)
    start = began.model.state_dict()
    found = {}
    for weights in ((1, 1), (1, 8), (8, 8)):
        tasks = {n: {**TWO[n], "loss_weight": w} for n, w in zip(TWO, weights, strict=True)}
        recipe = write_recipe(tasks=tasks, budget=budget)
        found[weights] = trained_encoder(data, tmp_path / str(weights), recipe)
    names = sorted(name for name, _ in began.model.encoder.named_parameters())
    whole = {"embeddings.word_embeddings.weight": began.model.table.whole(began.model.encoder)}  # type: ignore[union-attr]
    before = np.concatenate([whole.get(n, start[f"encoder.{n}"]).numpy().ravel() for n in names])
    changed = np.linalg.norm(found[1, 1] - before)
    assert np.linalg.norm(found[1, 8] - found[1, 1]) >= 0.1 * changed
    assert np.linalg.norm(found[8, 8] - found[1, 1]) <= 0.05 * changed


def test_normalise_divides_by_what_a_task_loses_before_it_has_learned(prepared: Callable[..., Fitting]) -> None:
    run = prepared(normalise=True)
    labels = [len(data.labels) for data in run.tasks]
    expected = [1 / math.log(labels[0]), 1 / (labels[1] * math.log(2)), 1 / math.log(labels[2])]
    assert loss_weights(run.recipe, run.tasks) == pytest.approx(expected)
    for head in run.model.heads:
        torch.nn.init.zeros_(head.weight)
    batches = collate(run.train, run.tasks, run.plan[0], "cpu")
    losses = task_losses(run.model, run.tasks, run.recipe, batches, run.checkpoint.special)
    weights = loss_weights(run.recipe, run.tasks)
    assert [weights[task] * loss.item() for task, loss in losses.items()] == pytest.approx([1, 1, 1])


def test_texts_without_words_teach_a_tagger_nothing(tmp_path: Path, write_recipe: WriteRecipe) -> None:
    kind = KINDS.get("tagging")
    logits = torch.randn(2, 3, 5, requires_grad=True)
    loss = kind.loss(logits, torch.full((2, 3), -100), 0.0)
    loss.backward()
    assert loss.item() == 0.0
    assert logits.grad is not None
    assert not logits.grad.any()
    spans = [{"start": 0, "end": 4, "label": "place"}]
    words = [{"text": f"rome {n}", "spans": spans} for n in range(10)]
    write_jsonl(tmp_path / "t.jsonl", [*words, *({"text": "\u200b\u200b", "spans": []} for _ in range(10))])
    recipe = write_recipe(tasks={"places": {"kind": "tagging", "train": "t.jsonl"}}, batch_size=1)
    fit(recipe, tmp_path, tmp_path / "run", quiet=True)
    weights = load_file(tmp_path / "run" / "checkpoint.safetensors")
    assert all(np.isfinite(array).all() for array in weights.values())


@pytest.mark.parametrize(
    ("topics", "norm", "message"),
    [
        (math.nan, math.nan, r"step 7: the loss of task topics is nan on .*train\.jsonl:\d+, .* and \d+ more"),
        (0.5, math.inf, r"step 7: the gradient is inf on task intent: .*task topics: .*task places: "),
    ],
)
def test_a_step_that_gives_no_finite_number_is_named(
    prepared: Callable[..., Fitting], topics: float, norm: float, message: str
) -> None:
    run = prepared()
    refuse_non_finite(run, 7, run.plan[0], {0: 0.5, 1: 0.5, 2: 0.1}, 2.0)
    with pytest.raises(SetupError, match=message):
        refuse_non_finite(run, 7, run.plan[0], {0: 0.5, 1: topics, 2: 0.1}, norm)


def test_what_is_learned_beside_the_rows_is_named_as_what_it_is(base: Path, prepared: Callable[..., Fitting]) -> None:
    run = prepared(encoder=str(base), few_rows=1000, tasks={"intent": RECIPE["tasks"]["intent"]})
    run.guesses = {0: [Example("a text", ("lost",), place="text 7 of 60 of self-training")]}
    first = len(run.tasks[0].train)
    assert len(run.train[0].ids) == first + 2, "the rows, and the names of two labels"
    named = (
        r"nan on the name of the label 'lost', the name of the label 'transfer', text 7 of 60 of self-training; look"
    )
    with pytest.raises(SetupError, match=named):
        refuse_non_finite(run, 7, [(0, [first, first + 1, first + 2])], {0: math.nan}, 1.0)


def test_the_optimiser_does_not_step_on_a_loss_that_is_not_finite(
    data: Path, tmp_path: Path, write_recipe: WriteRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[None] = []
    update = torch.optim.AdamW.step
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda *args: steps.append(None) or update(*args))
    recipe = write_recipe(tasks={"intent": {**TWO["intent"], "class_weights": {"lost": 1e36, "transfer": 1e36}}})
    with pytest.raises(SetupError, match=r"step 1: the gradient is inf on task intent: .*:\d+, .* and 27 more rows"):
        fit(recipe, data, tmp_path / "run", quiet=True)
    assert not steps


def test_tasks_of_like_length_share_a_forward_pass_and_no_row_is_lost() -> None:
    texts = [[np.full(length, 100 * task + row) for row in range(20)] for task, length in enumerate((10, 30, 11))]
    step = [(0, [3, 4, 5]), (1, [7]), (2, [0, 9])]
    saved = 4 * 10
    assert saved < PASS_TOKENS
    assert forward_passes(step, texts) == [[(0, [3, 4, 5]), (2, [0, 9]), (1, [7])]]
    step[0] = (0, list(range(20)))
    assert forward_passes(step, texts) == [[(0, list(range(20))), (2, [0, 9])], [(1, [7])]]
    assert forward_passes(step[1:2], texts) == [step[1:2]]


def test_tasks_with_a_text_in_common_share_a_pass_through_others_as_well() -> None:
    texts = [[np.full(length, 100 * task + row) for row in range(5)] for task, length in enumerate((10, 60, 30, 100))]
    texts[2][0], texts[1][0], texts[2][1] = texts[0][0], texts[3][0], texts[3][1]
    step = [(0, [0] * 20), (1, [0, 1]), (2, [0, 1]), (3, [0, 1])]
    ((*whole,),) = forward_passes(step, texts)
    assert sorted(whole) == step


def test_a_text_of_two_tasks_goes_through_the_encoder_once(prepared: Callable[..., Fitting]) -> None:
    run = prepared(tasks=TWO)
    (one, other) = run.train
    own = {text.tobytes(): row for row, text in enumerate(one.ids)}
    common = [(own[text.tobytes()], row) for row, text in enumerate(other.ids) if text.tobytes() in own]
    mine, theirs = (list(rows) for rows in zip(*common[:6], strict=True))
    step = [(0, [*mine, mine[0]]), (1, theirs[::-1])]
    (batch,) = collate(run.train, run.tasks, step, "cpu")
    different = len({one.ids[row].tobytes() for row in mine})
    assert len(batch.ids) == different > 1
    assert batch.tokens == sum(len(text) for text in {one.ids[row].tobytes(): one.ids[row] for row in mine}.values())
    run.plan[0] = step
    joint = gradient(run, [1.0, 1.0])
    alone = gradient(run, [1.0, 0.0]) + gradient(run, [0.0, 1.0])
    assert float((joint - alone).norm() / alone.norm()) < 1e-5


def test_the_passes_of_a_step_are_one_gradient(
    prepared: Callable[..., Fitting], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = prepared()
    seen: set[bytes] = set()
    for task, part in enumerate(run.train):
        rows = [row for row, text in enumerate(part.ids) if text.tobytes() not in seen][10 * task : 10 * task + 10]
        run.plan[0][task] = (task, rows)
        seen |= {part.ids[row].tobytes() for row in rows}
    together = gradient(run, [1.0, 2.0, 3.0])
    monkeypatch.setattr("murmura.training.fit.rows.batches.PASS_TOKENS", -1)
    assert len(collate(run.train, run.tasks, run.plan[0], "cpu")) == 3
    assert float((gradient(run, [1.0, 2.0, 3.0]) - together).norm() / together.norm()) < 1e-5
