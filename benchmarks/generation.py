"""Replies to the dialogues of a Schema-Guided Dialogue subset: the data, baselines that need no trained decoder, and a trained one.

python benchmarks/generation.py --data ../shared/data            # some twenty minutes on one core
python benchmarks/generation.py --tasks acts --out /tmp/replies  # one of the two tasks; keeps the model, and the replies as JSON lines
python benchmarks/generation.py --short                          # nothing is embedded or trained

Every eighth training dialogue is held out: `seen`, the services of training. `test` is the subset's test part, most of whose
services training lacks. Two tasks: one reads three turns, the other the last turn and the acts of the reply. Replies have slots for
values; a decoder is trained by `recipes/generation.yaml` and answers as exported, once freely and once naming the slots of the acts
alone. BLEU and ROUGE-L are those of `training/kinds/reply_scores.py`, intervals draw whole dialogues.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np
import torch
import yaml

from murmura.runtime.generation.reply_vocabulary import ReplyVocabulary, build_labels, list_slots
from murmura.runtime.model.model import Model
from murmura.schemas.manifest import GenerationSpec
from murmura.training.data.example import Example
from murmura.training.data.files import find_source, read_rows
from murmura.training.data.replies import DIALOGUE, read_reply
from murmura.training.data.rules import Rules
from murmura.training.export.export import export
from murmura.training.fit.encoding import encode_ids
from murmura.training.fit.loop import fit
from murmura.training.kinds.reply_baselines import Contexts, answer_baselines
from murmura.training.kinds.reply_scores import ReplyScores, score_replies
from murmura.training.model.encoders import Checkpoint, build_encoder, load
from murmura.training.model.padding import in_order, pad
from murmura.training.recipe.reading import Columns, Reading
from murmura.training.recipe.recipe import DEFAULT_ENCODER

ROOT = Path(__file__).resolve().parents[1]
SETS = {"train": "train.jsonl", "test": "test.jsonl"}
HELD_OUT = 8
TASKS = {
    "context": GenerationSpec(context=3, acts=False, layers=3, slots=[]),
    "acts": GenerationSpec(context=1, acts=True, layers=3, slots=[]),
}
MAX_TOKENS = 128


def read(data: Path, name: str, spec: GenerationSpec) -> list[Example]:
    """Return the replies of one file of the subset."""
    reading = Reading(format="sgd")
    rules = Rules(reading, Columns(), None, None, generation=spec)
    path = find_source(data / "sgd_subset", name)
    return [read_reply(row, rules) for row in read_rows(path, reading) if row.left_out is None]


def read_parts(data: Path, spec: GenerationSpec) -> dict[str, list[Example]]:
    """Return the parts: `train`, `seen` and `test`."""
    every = read(data, SETS["train"], spec)
    numbers = {name: number for number, name in enumerate(dict.fromkeys(dialogue_of(row) for row in every))}
    held = [numbers[dialogue_of(row)] % HELD_OUT == HELD_OUT - 1 for row in every]
    return {
        "train": [row for row, out in zip(every, held, strict=True) if not out],
        "seen": [row for row, out in zip(every, held, strict=True) if out],
        "test": read(data, SETS["test"], spec),
    }


def dialogue_of(row: Example) -> str:
    return str(row.meta[DIALOGUE])


def embed(rows: Sequence[Example], checkpoint: Checkpoint) -> np.ndarray:
    """Return the mean of the tokens' states of what a task reads: [N, H]."""
    encoder = build_encoder(checkpoint.spec, checkpoint.weights, dropout=0.0).eval()
    checkpoint.tokenizer.enable_truncation(MAX_TOKENS)
    ids = encode_ids([row.given for row in rows], checkpoint.tokenizer)
    checkpoint.tokenizer.no_truncation()
    vectors = np.empty((len(rows), checkpoint.spec.hidden_size), np.float32)
    for chosen in in_order(ids, 64):
        tokens, mask = pad([ids[row] for row in chosen])
        with torch.no_grad():
            states = encoder(input_ids=tokens, attention_mask=mask).last_hidden_state
        counted = mask.unsqueeze(-1).float()
        vectors[chosen] = ((states * counted).sum(1) / counted.sum(1)).numpy()
    return vectors


def describe_data(parts: dict[str, list[Example]], checkpoint: Checkpoint) -> None:
    """Print what the replies are made of."""
    replies = [row.reply or "" for row in parts["train"]]
    slots = {slot for reply in replies for slot in list_slots(reply)}
    vocabulary = ReplyVocabulary(build_labels(replies, checkpoint.tokenizer, slots), checkpoint.tokenizer)
    print(f"{vocabulary.size} pieces of {len(replies)} training replies, {len(slots)} slots")
    for name, rows in parts.items():
        texts = [row.reply or "" for row in rows]
        pieces = [vocabulary.encode(text) for text in texts]
        back = sum(vocabulary.decode(each) == text for each, text in zip(pieces, texts, strict=True))
        lengths = [len(each) for each in pieces]
        print(
            f"  {name}: {len(rows)} replies of {len({dialogue_of(row) for row in rows})} dialogues, "
            f"{statistics.mean(lengths):.1f} pieces (most {max(lengths)}), {back} come back character for character"
        )


def describe(scores: ReplyScores) -> str:
    """Return the cells of a row of the table."""

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


def write_rows(rows: Sequence[Example], path: Path) -> None:
    """Write dialogues as they were read, a reply a line."""
    path.write_text("".join(json.dumps(row_of(row)) + "\n" for row in rows))


def row_of(row: Example) -> dict[str, object]:
    """Return a reply as a row of JSON lines, with the turns that its task reads."""
    turns = [line.split(": ", 1) for line in (row.second or "").split("\n")]
    return {
        "dialogue": dialogue_of(row),
        "turns": [{"role": role, "text": text} for role, text in turns if text],
        "acts": [act.model_dump(mode="json", exclude_none=True) for act in row.acts],
        "reply": row.reply,
    }


def train(parts: dict[str, list[Example]], data: Path, task: str, out: Path) -> tuple[Path, float]:
    """Train on the part `train`; return the model folder and the CPU-seconds."""
    spec = TASKS[task]
    recipe = yaml.safe_load((ROOT / "recipes/generation.yaml").read_text())
    [keys] = recipe["tasks"].values()
    keys |= {"context": spec.context, "acts": spec.acts, "layers": spec.layers}
    keys |= {"train": {"path": "./train.jsonl", "format": "jsonl"}}
    keys.pop("test", None)
    write_rows(parts["train"], out / "train.jsonl")
    (out / "recipe.yaml").write_text(yaml.safe_dump({**recipe, "threads": 1, "trackers": []}))
    began = time.process_time()
    fit(out / "recipe.yaml", data, out / "run", quiet=True, print_line=lambda line: print(f"  {line}", flush=True))
    seconds = time.process_time() - began
    export(out / "run", out / "model")
    return out / "model", seconds


def generate(model: Model, rows: Sequence[Example], *, of_acts: bool) -> list[str]:
    """Return the replies of a model; with `of_acts` they may name the slots of the acts alone."""
    [known] = [set(task.generation.slots) for task in model.tasks.values() if task.generation is not None]
    slots = [known & {act.slot for act in row.acts if act.slot} for row in rows] if of_acts else None
    return [reply.text for reply in model.generate([row.given for row in rows], slots)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of the public data sets")
    parser.add_argument("--tasks", nargs="*", choices=[*TASKS], default=[*TASKS], help="some of them")
    parser.add_argument("--out", type=Path, help="keep models and replies in this folder")
    parser.add_argument("--short", action="store_true", help="without embedding and training")
    args = parser.parse_args()
    if not (args.data / "sgd_subset").is_dir():
        print(f"no sgd_subset in {args.data}: name the folder of the public data sets with --data")
        return
    torch.set_num_threads(1)
    checkpoint = load(DEFAULT_ENCODER)
    print("task | part | replies | BLEU | cased | chrF | ROUGE-L | slots missing % | invented % | distinct % | length")
    with tempfile.TemporaryDirectory() as scratch:
        for number, task in enumerate(args.tasks):
            parts = read_parts(args.data, TASKS[task])
            if not number:
                describe_data(parts, checkpoint)
            folder = (args.out or Path(scratch)) / task
            folder.mkdir(parents=True, exist_ok=True)
            compare(task, parts, args.data, folder, None if args.short else checkpoint)


def compare(
    task: str, parts: dict[str, list[Example]], data: Path, folder: Path, checkpoint: Checkpoint | None
) -> None:
    """Print the rows of one task; without a checkpoint those that need no encoder."""
    spec, vectors, model = TASKS[task], None, None
    if checkpoint is not None:
        began = time.process_time()
        vectors = {part: embed(rows, checkpoint) for part, rows in parts.items()}
        print(f"  embedding: {time.process_time() - began:.0f} CPU-s")
        where, seconds = train(parts, data, task, folder)
        print(f"  training: {seconds:.0f} CPU-s")
        model = Model.open(where, device="cpu")
    signature = ""
    for part in ("seen", "test"):
        rows = parts[part]
        contexts = None if vectors is None else Contexts(parts["train"], vectors["train"], vectors[part])
        found = answer_baselines(parts["train"], rows, acts=spec.acts, contexts=contexts)
        if model is not None:
            found["decoder"] = generate(model, rows, of_acts=False)
            if spec.acts:
                found["decoder, slots of the acts"] = generate(model, rows, of_acts=True)
        for name, replies in found.items():
            scores = score_replies(replies, [row.reply or "" for row in rows], [dialogue_of(row) for row in rows])
            signature = scores.signature
            print(f"{task} | {part} | {name} | {describe(scores)}", flush=True)
        lines = [{**row_of(row), **{name: each[at] for name, each in found.items()}} for at, row in enumerate(rows)]
        (folder / f"{part}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    print(f"  sacrebleu {signature}")


if __name__ == "__main__":
    main()
