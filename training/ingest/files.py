"""Writes a data set's files, each byte a function of the records: rows in the order of their requests, no times, no names
of machines.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from hashlib import sha256
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, Final

from ...runtime.model.kinds.registry import KINDS
from ..run_folders.os_errors import as_os_error, write_text
from .manifest import DATASET_NAME, DataFile, DataSet, Options, Plan, digest_of
from .rules import MEANING, TRIMMED_SPANS, LeftOut, fields_of_input, row_of
from .settled import DRAWN, DRAWN_JUDGED, Settled

SAMPLING_RATE: Final = "sampling_rate"
"""Column of the held-out rows that were drawn at random: with which probability."""
PARTS: Final = ("train", "heldout")
PREFERENCES: Final = "preferences.jsonl"
PAIRS: Final = "pairs.jsonl"
CONTRADICTIONS: Final = "contradictions.jsonl"
LEFT_OUT: Final = "left_out.jsonl"
REPORT: Final = "report.md"


def write_files(settled: Settled, plan: Plan, folder: Path) -> DataSet:
    """Write all that came of a join into an empty folder, and return its manifest."""
    files = [
        _write(folder, f"{task}.{part}.jsonl", _lines(_rows(settled, task, part, plan.options)))
        for task in settled.tasks()
        for part in PARTS
    ]
    files.append(_write(folder, PREFERENCES, _lines(_with_conversation(settled.preferences(), plan.options))))
    files.append(_write(folder, PAIRS, _lines(_with_conversation(settled.pairs(), plan.options))))
    files.append(_write(folder, CONTRADICTIONS, _contradictions(settled)))
    files.append(_write(folder, LEFT_OUT, _lines(_left_out(settled))))
    counts = settled.counts()
    files.append(_write(folder, REPORT, (f"{line}\n" for line in _report(counts, files))))
    made = DataSet(options=plan.options, ranges=plan.ranges, counts=counts, files=files, digest=digest_of(files))
    text = json.dumps(made.model_dump(by_alias=True, mode="json"), indent=2, ensure_ascii=False) + "\n"
    write_text(folder / DATASET_NAME, text)
    return made


def _write(folder: Path, name: str, pieces: Iterable[str]) -> DataFile:
    digest, size, rows = sha256(), 0, 0
    with as_os_error(folder / name), (folder / name).open("wb") as file:
        for piece in pieces:
            raw = piece.encode()
            file.write(raw)
            digest.update(raw)
            size += len(raw)
            rows += raw.count(b"\n")
    return DataFile(path=name, rows=rows, bytes=size, sha256=digest.hexdigest())


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _lines(rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    return (f"{_json(row)}\n" for row in rows)


def _rows(settled: Settled, task: str, part: str, options: Options) -> Iterator[dict[str, Any]]:
    for text, second, kind, target, prediction, people, conversation, rate in settled.examples(task, part):
        read = settled.replies.row_of(prediction) if KINDS.get(kind).generates else fields_of_input(text, second)
        row = {**read, **row_of(kind, target), "people": people, "prediction_id": prediction}
        yield row | _conversation(conversation, options) | ({} if rate is None else {SAMPLING_RATE: rate})


def _with_conversation(rows: Iterable[tuple[dict[str, Any], str]], options: Options) -> Iterator[dict[str, Any]]:
    for row, conversation in rows:
        yield row | _conversation(conversation, options)


def _conversation(name: str, options: Options) -> dict[str, str]:
    """Return the field of a row. Where texts are split, keys are no conversations."""
    return {"conversation": name} if name and options.split == "conversation" else {}


def _contradictions(settled: Settled) -> Iterator[str]:
    """Yield a line for each text in pieces: everybody may have judged one text."""
    for (task, text, second), votes in groupby(settled.contradictions(), itemgetter(0, 1, 2)):
        yield _json({"task": task, **fields_of_input(text, second)}).removesuffix("}") + ', "values": ['
        for number, ((kind, target), same) in enumerate(groupby(votes, itemgetter(3, 4))):
            yield ", " * (number > 0) + _json(row_of(kind, target)).removesuffix("}")
            for denies, people in groupby(same, itemgetter(5)):
                yield f', "{"denied_by" if denies else "said_by"}": ['
                for index, (*_, person, name) in enumerate(people):
                    yield ", " * (index > 0) + _json({"by": person, "feedback": name})
                yield "]"
            yield "}"
        yield "]}\n"


def _left_out(settled: Settled) -> Iterator[dict[str, Any]]:
    for reason, of, offset, name, prediction in settled.left_out():
        yield {
            "reason": reason,
            "feedback": name,
            "prediction_id": prediction or None,
            "topic": of.topic,
            "partition": of.partition,
            "offset": offset,
        }


def _report(counts: Mapping[str, int], files: Iterable[DataFile]) -> Iterator[str]:
    yield "# Data set from feedback"
    yield ""
    yield f"{counts['used']} of {counts['feedback']} feedback records are used."
    yield ""
    if trimmed := counts.get(TRIMMED_SPANS):
        yield f"{trimmed} spans had blanks or invisible characters at their ends, which are cut off."
        yield ""
    if drawn := counts.get(DRAWN):
        yield (
            f"{drawn} predictions were drawn at random for review; {counts[DRAWN_JUDGED]} held-out texts of these have an agreed "
            "answer. What is not judged falsifies the sample."
        )
        yield ""
    yield "| file | rows |"
    yield "| --- | --- |"
    yield from (f"| `{file.path}` | {file.rows} |" for file in files)
    yield ""
    yield "| left out | records | |"
    yield "| --- | --- | --- |"
    yield from (f"| `{why.value}` | {counts[why]} | {MEANING[why]} |" for why in LeftOut if counts.get(why))
    yield ""
    yield f"`{LEFT_OUT}` names each of them."
