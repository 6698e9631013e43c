"""The second stage of a task that generates: its decoder is trained on what its replies are scored by, and kept if that helps.

Self-critical sequence training (Rennie et al. 2017) with the mean of a text's other samples as the baseline (Luo 2020), beside
cross entropy. It begins from the best checkpoint. The encoder is not trained, so that no other task changes.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn import functional as F

from ....runtime.generation.reply_vocabulary import ReplyVocabulary
from ...compute import dealing
from ...compute.failures import memory_of
from ...compute.optimiser import seed_step
from ...compute.timer import Timer
from ...kinds.replies.decoder import NO_PIECE, ReplyDecoder
from ...kinds.replies.rewards import advantages, compute_reward
from ...kinds.replies.scores import score_bleu_and_rouge
from ...model.padding import pad
from ...model.replies import decode_replies
from ...recipe.keys.objective import Objective
from ..setup import Fitting, sample
from ..steps.failed_step import refuse_non_finite
from .second_stage_state import StageState, read_stage, save_stage

WARM_UP: Final = 20
STAGE: Final = "second stage"
REPORTED: Final = 50
"""Steps between two lines on the reward."""
_PROCESS: Final = -1
"""Seeds the stage's steps; those of the run have the numbers of processes."""
Scores = dict[str, float]


@dataclass
class _Stage:
    """A task that is in its second stage."""

    run: Fitting
    task: int
    objective: Objective
    decoder: ReplyDecoder
    vocabulary: ReplyVocabulary
    replies: Sequence[str]
    """Of the training rows."""
    optimiser: torch.optim.Optimizer
    rewards: list[float] = field(default_factory=list)
    """Mean reward of each step since the last line."""


def run_second_stages(run: Fitting, write: Callable[[str], Any]) -> bool:
    """Train each task that has an objective, from the best checkpoint, which the network holds; return whether one was kept.

    Figures of before and after are written and stand among the notes on the task's data.
    """
    kept = False
    for at, data in enumerate(run.tasks):
        if data.task.objective is not None:
            began = time.process_time()
            kept |= _run_stage(run, at, data.task.objective, write)
            run.standing.cpu_seconds += time.process_time() - began
    return kept


def allows(objective: Objective, before: Scores, after: Scores) -> bool:
    """Return whether validation allows what a stage made: neither BLEU nor ROUGE-L lower, and replies different enough."""
    scores = ("bleu", "rouge_l")
    better = all(after[name] >= before[name] for name in scores) and any(after[name] > before[name] for name in scores)
    return better and after["distinct"] >= objective.least_distinct * before["distinct"]


def _run_stage(run: Fitting, task: int, objective: Objective, write: Callable[[str], Any]) -> bool:
    data, decoder = run.tasks[task], run.model.heads[task]
    assert isinstance(decoder, ReplyDecoder)
    trained = [(name, parameter) for name, parameter in decoder.named_parameters() if parameter.requires_grad]
    began_as = {name: parameter.detach().clone() for name, parameter in trained}
    before = _score(run, task)
    optimiser = torch.optim.AdamW([parameter for _, parameter in trained], lr=objective.lr, weight_decay=0.0)
    replies = [example.reply or "" for example in data.train]
    stage = _Stage(run, task, objective, decoder, ReplyVocabulary(data.labels), replies, optimiser)
    _take_steps(stage, write)
    after = _score(run, task)
    kept = allows(objective, before, after)
    if not kept:
        with torch.no_grad():
            for name, parameter in trained:
                parameter.copy_(began_as[name])
    line = f"{STAGE}: {_describe(before, after)}: {'kept' if kept else 'not kept'}"
    write(f"{data.name}: {line}")
    if kept:
        run.standing.scores.get(data.name, {}).update({name: after[name] for name in ("bleu", "rouge_l")})
    report = run.data[data.name]
    run.data[data.name] = report.model_copy(update={"notes": [*report.notes, line]})
    return kept


def _describe(before: Scores, after: Scores) -> str:
    names = {"bleu": "BLEU", "rouge_l": "ROUGE-L", "distinct": "different replies"}
    return ", ".join(f"{said} {before[name]:.1f} to {after[name]:.1f}" for name, said in names.items())


@memory_of("validation of the second stage", "lower max_tokens or budget.validation_rows")
def _score(run: Fitting, task: int) -> Scores:
    """Score the greedy replies to the validation rows; `distinct` is a share of a hundred."""
    data, vocabulary = run.tasks[task], ReplyVocabulary(run.tasks[task].labels)
    rows = sample(data.validation, run.recipe)
    decoded = decode_replies(run.model, task, run.validation[task].ids, device=run.device, bf16=run.bf16)
    replies = [vocabulary.decode(each.pieces) for each in decoded]
    scores = score_bleu_and_rouge(replies, [example.reply or "" for example in rows])
    return {**scores, "distinct": 100 * len(set(replies)) / len(replies)}


def _take_steps(stage: _Stage, write: Callable[[str], Any]) -> None:
    run, steps, data = stage.run, stage.objective.steps, stage.run.tasks[stage.task]
    state = StageState(run, data.name, stage.decoder, stage.optimiser)
    saves, first = Timer(60 * run.recipe.save_minutes), read_stage(state)
    size = run.recipe.batch_size
    plan = dealing.plan([run.train[stage.task].lengths], [steps * size], size, run.recipe.seed)
    for step, rows in enumerate(plan[first:], first + 1):
        stage.optimiser.param_groups[0]["lr"] = stage.objective.lr * min(1, step / WARM_UP)
        seed_step(run.recipe.seed, step, _PROCESS)
        _take_step(stage, step, rows[0][1])
        if step % REPORTED == 0 or step == steps:
            write(f"{data.name}: {STAGE}: step {step} of {steps}, reward {sum(stage.rewards) / len(stage.rewards):.4f}")
            stage.rewards.clear()
        if saves.is_due():
            save_stage(state, step)


@memory_of("second stage", "lower objective.samples, batch_size or max_tokens")
def _take_step(stage: _Stage, step: int, rows: list[int]) -> None:
    run, samples = stage.run, stage.objective.samples
    part, kind = run.train[stage.task], run.tasks[stage.task].kind
    ids, mask = (each.to(run.device) for each in pad([part.ids[row] for row in rows]))
    target = kind.collate([part.targets[row] for row in rows], ids.shape[1]).to(run.device)
    run.model.eval()
    with run.accelerator.autocast() if run.precision != "fp16" else nullcontext():  # its losses would have to be scaled
        with torch.no_grad():
            states = run.model.encode(ids, mask).states
            drawn = stage.decoder.sample(states.repeat_interleave(samples, 0), mask.repeat_interleave(samples, 0))
        rewards = [
            compute_reward(stage.vocabulary.decode(pieces), stage.replies[rows[at // samples]], stage.objective.reward)
            for at, pieces in enumerate(drawn)
        ]
        own = stage.decoder(states, mask, target)
        width = max(map(len, drawn))
        said = torch.tensor([pieces + [NO_PIECE] * (width - len(pieces)) for pieces in drawn], device=run.device)
        logits = stage.decoder(states.repeat_interleave(samples, 0), mask.repeat_interleave(samples, 0), said)
    gain = torch.tensor(advantages(rewards, samples), device=run.device)
    loss = _loss(logits.float(), said, gain) + stage.objective.cross_entropy * kind.loss(own.float(), target, 0.0)
    stage.optimiser.zero_grad(set_to_none=True)
    loss.backward()
    norm = float(torch.nn.utils.clip_grad_norm_(stage.decoder.parameters(), run.recipe.optimiser.clip))
    lower, found = f"tasks.{run.tasks[stage.task].name}.objective.lr", {stage.task: float(loss.detach())}
    refuse_non_finite(run, step, [(stage.task, rows)], found, norm, stage=STAGE, lower=lower)
    stage.optimiser.step()
    stage.rewards.append(sum(rewards) / len(rewards))


def _loss(logits: Tensor, said: Tensor, gain: Tensor) -> Tensor:
    """Return the mean over all pieces [] of what is lost by pieces `said` [B, T] with the advantages `gain` [B]."""
    losses = F.cross_entropy(logits.flatten(0, 1), said.flatten(), ignore_index=NO_PIECE, reduction="none")
    return (gain[:, None] * losses.view(said.shape)).sum() / (said != NO_PIECE).sum()
