"""Replies to the dialogues of a Schema-Guided Dialogue subset: what a trained decoder reaches, beside the aims.

python benchmarks/generation.py --data FOLDER            # acts known, one seed: some ten minutes on one core (also --short)
nohup python benchmarks/generation.py --data FOLDER --full > full.log &     # hours: everything, with three seeds

--full also trains on the context alone, and intents, slots and replies jointly against each of them alone. Each training has a
folder below --out: the same command goes on where it was killed, each seed's trainings that have ended are not taken again.

Two tasks: one reads the last turn and the acts of the reply, the other three turns. A decoder is trained by
`recipes/generation.yaml` and answers as exported, freely ("raw") and naming the slots of the acts alone. Lines with "|" alone
are rows of the table, those that begin with two blanks say more. BLEU and ROUGE-L are those of `training/kinds/replies/scores.py`,
intervals draw whole dialogues. Exit code 1: an aim was missed.
"""

import argparse
import os
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
from reply_rows import SCORED, SUBSET, TASKS, answer_without_decoder, dialogue_of, read_parts
from reply_table import Figure, count_sent, describe_difference, describe_row
from reply_trainings import JOINT, OTHERS, Scored, Trained, score, train

from murmura.runtime.model.model import Model
from murmura.training.data.example import Example
from murmura.training.gate.seed_statistics import compare_seeds
from murmura.training.kinds.replies.scores import ReplyScores, score_replies
from murmura.training.model.encoders import Checkpoint, load
from murmura.training.recipe.recipe import DEFAULT_ENCODER

NAMES = {
    ("acts", "seen"): "seen services, acts known",
    ("acts", "test"): "test part, acts known",
    ("context", "seen"): "seen services, context only",
    ("context", "test"): "test part, context only",
}
LEAST = {("acts", "seen"): (21.5, 51.5), ("context", "seen"): (14.0, 41.0), ("acts", "test"): (15.0, 44.0)}
"""BLEU and ROUGE-L to reach."""
CPU_SECONDS = 400
LOSSES = {"intent": -1.0, "slots": -1.0, "replies, seen": -1.5, "replies, test": -1.5}
"""What joint training may cost against training alone, in points: accuracy in scope, F1, BLEU."""
ELSEWHERE = (
    "pieces per CPU-second, continuous against static | benchmarks/decoding.py",
    "texts beside replies on one core | benchmarks/reply_load.py",
    "conversations with generated replies under kills | benchmarks/desk_load.py, conversations.py --generate",
    "harmful text | benchmarks/harmful_texts.py",
)


class Run:
    """What all trainings of one call share."""

    def __init__(self, data: Path, out: Path, seeds: Sequence[int], most: int | None) -> None:
        self.data, self.out, self.seeds, self.most = data, out, seeds, most
        self.parts = {task: read_parts(data, spec, most) for task, spec in TASKS.items()}
        self.missed = 0

    def train(self, what: str, seed: int) -> Trained:
        replies = self.parts[what if what in TASKS else "acts"]["train"]
        return train(what, replies, self.data, self.out / f"{what}-{seed}", seed=seed, most=self.most)

    def print_row(self, what: str, figures: Sequence[Figure]) -> None:
        self.missed += sum(not figure.reached for figure in figures)
        print(describe_row(what, figures), flush=True)


def report_replies(run: Run, task: str, checkpoint: Checkpoint | None) -> None:
    """Train the task with each seed and print its rows; figures are means of the seeds."""
    parts, seconds = run.parts[task], []
    for part, found in answer_without_decoder(parts, TASKS[task], checkpoint).items():
        for name, replies in found.items():
            print(f"  {task} | {part} | {name} | {describe(score_rows(replies, parts[part]))}", flush=True)
    figures: dict[str, list[list[Figure]]] = {part: [] for part in SCORED}
    for seed in run.seeds:
        trained = run.train(task, seed)
        seconds.append(trained.cpu_seconds)
        model = Model.open(trained.folder, device="cpu")
        for part in SCORED:
            figures[part].append(measure(model, task, part, parts[part]))
    for part in SCORED:
        means = [
            one[0]._replace(value=mean_of([each.value for each in one])) for one in zip(*figures[part], strict=True)
        ]
        run.print_row(NAMES[task, part], means)
    if task == "acts":
        run.print_row(
            "training, three epochs, one thread", [Figure("CPU-s", statistics.mean(seconds), at_most=CPU_SECONDS)]
        )


def mean_of(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.mean(known) if known else None


def measure(model: Model, task: str, part: str, rows: Sequence[Example]) -> list[Figure]:
    """Return the figures of one model's replies; those beside the aims are of replies that may name every slot."""
    raw = score_rows([reply.text for reply in model.generate([row.given for row in rows])], rows)
    print(f"  {task} | {part} | decoder | {describe(raw)}", flush=True)
    bleu, rouge = LEAST.get((task, part), (None, None))
    figures = [Figure("BLEU", raw.figures["bleu"], bleu), Figure("ROUGE-L", raw.figures["rouge_l"], rouge)]
    if not TASKS[task].acts:
        return figures
    [known] = [set(spec.generation.slots) for spec in model.tasks.values() if spec.generation is not None]
    values = [known & {act.slot for act in row.acts if act.slot} for row in rows]
    held = model.generate([row.given for row in rows], values)
    texts, ended = [reply.text for reply in held], [reply.finish == "end" for reply in held]
    print(f"  {task} | {part} | decoder, slots of the acts | {describe(score_rows(texts, rows))}", flush=True)
    sent = count_sent(texts, ended, [row.reply or "" for row in rows], values)
    aims = part == "seen"
    return [
        *figures,
        Figure("slots missing, raw %", percent(raw.figures["slots_missing"]), at_most=15 if aims else None),
        Figure("invented, raw %", percent(raw.figures["slots_invented"]), at_most=5 if aims else None),
        Figure("missing as sent %", sent.missing, at_most=1 if aims else None),
        Figure("beyond the reference, with a value, as sent %", sent.further),
        Figure("sent as generated %", sent.generated, at_least=70 if aims else None),
    ]


def percent(share: float | None) -> float | None:
    return None if share is None else 100 * share


def score_rows(replies: Sequence[str], rows: Sequence[Example]) -> ReplyScores:
    return score_replies(replies, [row.reply or "" for row in rows], [dialogue_of(row) for row in rows])


def describe(scores: ReplyScores) -> str:
    """Return the figures with their intervals: BLEU, cased, chrF, ROUGE-L, slots missing, invented, distinct, length."""

    def cell(name: str, form: str, scale: float = 1.0) -> str:
        value = scores.figures[name]
        if value is None:
            return "-"
        between = scores.intervals.get(name)
        shown = f"{value * scale:{form}}"
        return shown if between is None else f"{shown} [{between[0] * scale:{form}}, {between[1] * scale:{form}}]"

    cells = [cell(name, ".1f") for name in ("bleu", "bleu_cased", "chrf", "rouge_l")]
    cells += [cell(name, ".1f", 100) for name in ("slots_missing", "slots_invented", "distinct")]
    return " | ".join([*cells, cell("length_ratio", ".2f")])


def report_joint(run: Run) -> None:
    """Train all tasks jointly and each alone with each seed; print a row for each set."""
    alone: dict[str, list[Scored]] = {}
    joint: dict[str, list[Scored]] = {}
    parts = run.parts["acts"]
    for seed in run.seeds:
        for what in ("acts", *OTHERS, JOINT):
            for name, found in score(run.train(what, seed), run.data, parts).items():
                (joint if what == JOINT else alone).setdefault(name, []).append(found)
    for name, aim in LOSSES.items():
        one, other = alone[name], joint[name]
        found = compare_seeds([each.outcome for each in one], [each.outcome for each in other], one[0].conversations)
        line, reached = describe_difference(f"joint against alone: {name}", found, aim)
        run.missed += not reached
        print(line, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of the public data sets")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--short", action="store_true", help="acts known, one seed; so without --full")
    size.add_argument("--full", action="store_true", help="everything, with several seeds: hours")
    parser.add_argument(
        "--out", type=Path, help="folder of the trainings; --full: models/generation where it is not set"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of --full")
    parser.add_argument("--rows", type=int, help=argparse.SUPPRESS)  # to try every path; the figures mean nothing
    args = parser.parse_args()
    needed = (SUBSET, "clinc150", "snips") if args.full else (SUBSET,)
    if absent := [name for name in needed if not (args.data / name).is_dir()]:
        raise SystemExit(f"no {', '.join(absent)} in {args.data}: --data names the folder of the public data sets")
    torch.set_num_threads(1)
    print(
        "  task | part | replies | BLEU | cased | chrF | ROUGE-L | slots missing % | invented % | distinct % | length"
    )
    with tempfile.TemporaryDirectory() as scratch:
        out = args.out or Path("models/generation" if args.full else scratch)
        run = Run(args.data, out, args.seeds if args.full else [0], args.rows)
        report_replies(run, "acts", load(DEFAULT_ENCODER) if args.full else None)
        if args.full:
            report_replies(run, "context", load(DEFAULT_ENCODER))
            report_joint(run)
    for line in ELSEWHERE if args.full else ():
        print(line)
    raise SystemExit(1 if run.missed else 0)


if __name__ == "__main__":
    main()
