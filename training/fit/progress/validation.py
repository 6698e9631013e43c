"""Scoring while training: which checkpoint is the best, and calibration of the one that was kept."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypedDict

from numpy.typing import NDArray
from torch import nn

from ....runtime.generation.reply_vocabulary import ReplyVocabulary
from ....schemas.manifest import TaskSpec
from ...compute.failures import memory_of
from ...data.example import Example
from ...kinds.heads import FormedHead
from ...kinds.kind import ScoredReply
from ...kinds.replies.threshold import forbid_as_served
from ...model.network import logits_of
from ...model.replies import decode_replies, score_replies
from ..checkpoint import checkpoint_weights
from ..finish.finish import finish
from ..rows.encoding import encode_ids
from ..setup import Fitting, sample
from ..state.processes import share_number
from .training_log import TrainingLog

Metrics = dict[str, dict[str, float]]
DECODED_ROWS: Final = 200
LEAST_ROWS: Final = 50
"""With fewer validation rows a task does not decide between checkpoints: one row more or less is two points."""


class Settings(TypedDict):
    """How rows are scored."""

    device: str
    bf16: bool


def votes_of(rows: Mapping[str, int]) -> dict[str, float]:
    """Return how much each task's main metric counts: the square root of its validation rows, 0 under LEAST_ROWS.

    Where all tasks have so few, all count by the square root of their rows.
    """
    voters = {name for name, count in rows.items() if count >= LEAST_ROWS} or set(rows)
    return {name: math.sqrt(count) if name in voters else 0.0 for name, count in rows.items()}


def compared_by(metrics: Metrics, rows: Mapping[str, int]) -> float:
    """Return the mean of the tasks' main metrics weighted by their votes; a task without one has no vote."""
    votes = votes_of(
        {name: rows[name] for name, score in metrics.items() if math.isfinite(score.get("main", math.nan))}
    )
    if not votes:
        return 0.0
    return sum(vote * metrics[name]["main"] for name, vote in votes.items()) / sum(votes.values())


def describe_votes(rows: Mapping[str, int]) -> str | None:
    """Return a line on tasks with few validation rows, None where there are none."""
    few = [f"{name} ({count})" for name, count in rows.items() if count < LEAST_ROWS]
    if not few or len(rows) == 1:
        return None
    if len(few) == len(rows):
        return f"every task has fewer than {LEAST_ROWS} validation rows, so all of them choose the checkpoint: {', '.join(few)}"
    return f"tasks with fewer than {LEAST_ROWS} validation rows do not choose the checkpoint: {', '.join(few)}"


def validate(run: Fitting, step: int, log: TrainingLog, write: Callable[[str], Any]) -> Metrics:
    """Score every task in the first process, the others wait. Empty in the others."""
    scores = _score(run, step, log, write) if run.accelerator.is_main_process else {}
    run.standing.stale = share_number(run.accelerator, run.standing.stale)
    return scores


@memory_of("validation", "lower max_tokens or budget.validation_rows")
def _score(run: Fitting, step: int, log: TrainingLog, write: Callable[[str], Any]) -> Metrics:
    """Score every task; write the checkpoint when their weighted mean is the best so far."""
    scores: Metrics = {}
    for at, (data, part) in enumerate(zip(run.tasks, run.validation, strict=True)):
        settings = Settings(device=run.device, bf16=run.bf16)
        if data.kind.generates:
            scored = score_replies(run.model, at, data.kind, part.ids, part.targets, **settings)
        else:
            scored = logits_of(run.model, at, part.ids, **settings)
        scores[data.name] = data.kind.metrics(scored, part.targets, data.spec)
        if data.kind.generates:
            scores[data.name] |= _score_decoded(run, at, settings)
    log.write_metrics(step, scores)
    mean = compared_by({name: scores[name] for name in run.voting_rows}, run.voting_rows)
    standing = run.standing
    better = mean > standing.best
    # Of equals the later one: on a small validation part all look alike, and training has gone on.
    kept = mean >= standing.best or not standing.best_step
    found = ", ".join(f"{name} {score['main']:.4f}" for name, score in scores.items() if "main" in score)
    write(f"step {step}: {found}{' (best)' if kept else ''}")
    standing.stale = 0 if better else standing.stale + 1
    if kept:
        standing.best, standing.best_step, standing.scores = mean, step, scores
        run.folder.save_weights(checkpoint_weights(run.model, low_rank=run.recipe.low_rank))
    return scores


def _score_decoded(run: Fitting, task: int, settings: Settings) -> dict[str, float]:
    """Score the greedy replies to some validation rows. It takes as long as some steps, so not to all of them."""
    found = _decode(run, task, settings, most=DECODED_ROWS)
    return run.tasks[task].kind.score_decoded(
        [reply.text for _, reply in found], [example.reply or "" for example, _ in found]
    )


def _decode(
    run: Fitting, task: int, settings: Settings, *, most: int | None = None, as_served: bool = False
) -> list[tuple[Example, ScoredReply]]:
    """Return the validation rows that are scored while training, at most so many of them, with the greedy replies to them.

    `as_served`: without the pieces that are forbidden in service.
    """
    data, vocabulary = run.tasks[task], ReplyVocabulary(run.tasks[task].labels)
    rows = sample(data.validation, run.recipe)[:most]
    forbidden = forbid_as_served(data.labels, rows) if as_served else None
    decoded = decode_replies(run.model, task, run.validation[task].ids[:most], **settings, forbidden=forbidden)
    return [
        (row, ScoredReply(vocabulary.decode(each.pieces), each.score, each.has_ended))
        for row, each in zip(rows, decoded, strict=True)
    ]


@memory_of("calibration")
def finished_specs(run: Fitting, out_of_fold: Mapping[int, Sequence[NDArray[Any]]]) -> list[TaskSpec]:
    """Calibrate the tasks and choose their thresholds; scored in fp32, as they are served.

    `out_of_fold`: by the task's number, the logits of its validation rows where the head in the network has learned them.
    """
    tokenizer = run.checkpoint.tokenizer
    tokenizer.enable_truncation(run.recipe.max_tokens)
    specs = []
    for at, data in enumerate(run.tasks):
        learned = dict(zip(map(id, data.validation), out_of_fold.get(at, ()), strict=False))

        def score(
            examples: Sequence[Example], at: int = at, learned: dict[int, NDArray[Any]] = learned
        ) -> list[NDArray[Any]]:
            others = [example.given for example in examples if id(example) not in learned]
            ids = encode_ids(others, tokenizer)
            scored = iter(logits_of(run.model, at, ids, device=run.device, bf16=False))
            return [learned[id(example)] if id(example) in learned else next(scored) for example in examples]

        served = Settings(device=run.device, bf16=False)
        replies = _decode(run, at, served, as_served=True) if data.kind.generates else ()
        specs.append(_with_shares(finish(data, score, tokenizer, replies), run.model.heads[at]))
    tokenizer.no_truncation()
    return specs


def _with_shares(spec: TaskSpec, head: nn.Module) -> TaskSpec:
    """Return the task with the shares of the layers that its head has learned to mix."""
    if spec.head is None or not isinstance(head, FormedHead) or head.mix is None:
        return spec
    shares = [round(share, 4) for share in head.mix.shares.tolist()]
    return spec.model_copy(update={"head": spec.head.model_copy(update={"shares": shares})})
