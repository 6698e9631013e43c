"""The phase in which a classification learns what it guessed of texts without labels, and whether that is kept.

Pseudo-labels (Lee 2013) as soft targets under dropout (Xie et al. 2020, noisy student, arXiv 1911.04252), of each label as many
(Mukherjee and Awadallah 2020, arXiv 2006.15315). The guesses are those of the network as the phase begins, so that an
interrupted run makes them again.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from ....runtime.model.decoding import softmax
from ...compute.failures import memory_of
from ...data.example import Example
from ...kinds.calibration import temperature_of
from ...kinds.figures.intervals import Sampled, find_interval
from ...model.network import logits_of
from ...recipe.keys.self_training import SelfTraining
from ...recipe.last_phase import find_task
from ...run_folders.run_folder import WEIGHTS
from ..checkpoint import restore
from ..rows.encoding import Part, encode_ids
from ..rows.soft_targets import Held
from ..setup import Fitting
from .guesses import choose_balanced, choose_threshold

Array = NDArray[Any]
Write = Callable[[str], Any]


@dataclass(frozen=True)
class Guessed:
    """What is learned, in words, and the training rows of the task with these texts behind them; None: there are none."""

    said: str
    part: Part | None = None

    @property
    def sha256(self) -> str:
        """Of what is learned beside the rows."""
        sums = sha256()
        for row, guess in self.part.guessed.items() if self.part else ():
            sums.update(self.part.ids[row].tobytes() + guess.logits.tobytes() if self.part else b"")
        return sums.hexdigest()


def taught_task(run: Fitting) -> int:
    """Return the number of the task that learns its guesses."""
    return [data.name for data in run.tasks].index(find_task(run.recipe))


@memory_of("guesses of self-training", "lower max_tokens, or name fewer texts")
def guess_texts(run: Fitting, settings: SelfTraining) -> Guessed:
    """Let the network, which knows all words now, guess the texts."""
    at = taught_task(run)
    data, validation = run.tasks[at], run.validation[at]
    before = np.stack(logits_of(run.model, at, validation.ids, device=run.device, bf16=False))
    truth = np.array([int(target) for target in validation.targets])
    temperature = temperature_of(before, truth).temperature
    scores = softmax(before.astype(np.float64) / temperature)
    threshold = choose_threshold(scores.max(1), scores.argmax(1) == truth, settings.precision)
    if threshold is None:
        return Guessed(
            f"there is no score from which on {settings.precision:.0%} of the {len(truth)} validation rows are right"
        )
    tokenizer = run.checkpoint.tokenizer
    tokenizer.enable_truncation(run.recipe.max_tokens)
    ids = encode_ids(run.unlabelled, tokenizer)
    tokenizer.no_truncation()
    logits = np.stack(logits_of(run.model, at, ids, device=run.device, bf16=False)).astype(np.float64) / temperature
    guesses, sure = logits.argmax(1), softmax(logits).max(1)
    if data.spec.out_of_scope is not None:
        sure[guesses == data.labels.index(data.spec.out_of_scope)] = -1.0
    chosen = choose_balanced(sure, guesses.tolist(), threshold, settings.per_label)
    if not chosen:
        return Guessed(f"none of {len(ids):,} texts reaches the score {threshold:.3f}")
    labels = len({int(guesses[row]) for row in chosen})
    run.guesses = {
        at: [
            Example(
                run.unlabelled[row],
                (data.labels[guesses[row]],),
                place=f"text {row + 1} of {len(ids)} of self-training",
            )
            for row in chosen
        ]
    }
    said = f"{len(chosen):,} of {len(ids):,} texts with guesses of {labels} of {len(data.labels)} labels, from the score {threshold:.3f} on"
    return Guessed(said, _add(run.train[at], [ids[row] for row in chosen], logits[chosen]))


def _add(part: Part, ids: Sequence[NDArray[np.int32]], logits: Array) -> Part:
    every, first = np.ones(logits.shape[1], dtype=np.bool_), len(part.ids)
    guessed = {first + row: Held(each.astype(np.float32), every) for row, each in enumerate(logits)}
    targets = [np.array(int(each.argmax())) for each in logits]
    texts, answers = [*part.ids, *ids], [*part.targets, *targets]
    return replace(part, ids=texts, targets=answers, guessed=guessed, taught=None)  # teachers teach the phases before


@memory_of("validation of self-training")
def keep_or_undo(run: Fitting, number: int, said: str, write: Write) -> None:
    """Compare the best checkpoint of the phase with the one that it began from, and go back to that where it was better.

    What was learned stays beside it until the run has ended: one that is interrupted meanwhile decides the same again.
    """
    at, folder = taught_task(run), run.folder
    began, learned = folder.phase_start(number), folder.phase_end(number)
    folder.put(folder.path / WEIGHTS, learned)
    truth = np.array([int(target) for target in run.validation[at].targets])
    right = []
    for weights in (dict(load_file(began)), dict(load_file(learned))):
        restore(run.model, weights, low_rank=run.recipe.low_rank)
        logits = logits_of(run.model, at, run.validation[at].ids, device=run.device, bf16=False)
        right.append(np.stack(logits).argmax(1) == truth)
    kept = right[1].sum() >= right[0].sum()
    if not kept:
        folder.put(began, folder.path / WEIGHTS)
        run.standing.scores = run.standing.phases[-1].validation
    note_outcome(run, at, f"{said}; {describe_change(*right)}: {'kept' if kept else 'not kept'}", write)


def note_outcome(run: Fitting, task: int, line: str, write: Write) -> None:
    """Write what came of it, and put it among the notes on the data of the task."""
    name = run.tasks[task].name
    write(f"{name}: self-training: {line}")
    report = run.data[name]
    run.data[name] = report.model_copy(update={"notes": [*report.notes, f"self-training: {line}"]})


def describe_change(before: Array, after: Array) -> str:
    """Return in words how many rows [N] are right, and the difference with its interval: rows are drawn, not trainings."""
    change = after.astype(float) - before.astype(float)
    rows = np.stack([change, np.ones(len(change))], 1)
    interval = find_interval(Sampled(rows, np.ones(len(rows), np.int64)))
    assert interval is not None, "a task has validation rows"
    shares = f"{before.mean():.1%} to {after.mean():.1%} of {len(rows)} validation rows right"
    return f"{shares}, {100 * change.mean():+.1f} points [{100 * interval.low:+.1f}, {100 * interval.high:+.1f}]"
