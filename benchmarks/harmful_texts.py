"""What a filter of harmful texts stops: of harmful ones by label, of harmless ones, and what a word list adds.

    python benchmarks/harmful_texts.py --model FOLDER [--task filter] [--shown 20]

On the test rows of scenarios/support/filter.yaml. No row that is learned, or that the threshold is chosen on, is like one of them:
tests/scenarios/test_support_filter.py holds that. A text is stopped when the model names any label
at its threshold, or a phrase of harmful-words.yaml stands in it.
"""

import argparse
import re
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import yaml

from murmura.runtime.model.deltas.assembled import resolve
from murmura.runtime.model.model import Model
from murmura.scenarios.support.place import HERE
from murmura.training.data.example import Example
from murmura.training.prepare.reading import read_part
from murmura.training.recipe.recipe import load_recipe

HARMLESS = "harmless"


def read_texts() -> list[Example]:
    task = load_recipe(HERE / "filter.yaml").tasks["filter"]
    return read_part(task.test or (), task, HERE, seed=0)


def find_phrases() -> re.Pattern[str]:
    phrases = yaml.safe_load((HERE / "harmful-words.yaml").read_text(encoding="utf-8"))
    patterns = (
        re.escape(each).replace(r"\*", r"\w*").replace(r"\ ", r"\s+") for some in phrases.values() for each in some
    )
    return re.compile(rf"\b(?:{'|'.join(patterns)})\b", re.IGNORECASE)


def print_shares(name: str, examples: Sequence[Example], stopped: Sequence[bool]) -> None:
    kinds = [(example.labels or (HARMLESS,))[0] for example in examples]
    counts, hits = Counter(kinds), Counter(kind for kind, hit in zip(kinds, stopped, strict=True) if hit)
    harmful = len(examples) - counts[HARMLESS]
    recall, false_alarms = (sum(hits.values()) - hits[HARMLESS]) / harmful, hits[HARMLESS] / counts[HARMLESS]
    print(
        f"{name:18} {100 * recall:5.1f} % of {harmful} harmful, {100 * false_alarms:5.2f} % of {counts[HARMLESS]} harmless stopped"
    )
    print(f"{'':18} " + ", ".join(f"{kind} {hits[kind]} of {counts[kind]}" for kind in sorted(counts)))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a model folder with the task")
    parser.add_argument("--task", default="filter")
    parser.add_argument("--shown", type=int, default=20, help="texts that are judged wrongly")
    parser.add_argument("--data", help="not used")
    parser.add_argument("--short", action="store_true", help="not used")
    args = parser.parse_args()
    if args.model is None or not args.model.is_dir():
        print("no model with a filter of harmful texts: name its folder with --model")
        return 0
    examples, phrases = read_texts(), find_phrases()
    outputs = Model.load(resolve(args.model)).predict([example.text for example in examples], [args.task])
    named = [bool(output[args.task]["labels"]) for output in outputs]
    listed = [phrases.search(example.text) is not None for example in examples]
    both = [one or other for one, other in zip(named, listed, strict=True)]
    for name, stopped in (("word list", listed), ("model", named), ("model and word list", both)):
        print_shares(name, examples, stopped)
    wrong = [(example, hit) for example, hit in zip(examples, both, strict=True) if hit != bool(example.labels)]
    for example, hit in wrong[: args.shown]:
        print(f"{'stopped' if hit else 'let through'}: {', '.join(example.labels) or HARMLESS}: {example.text}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
