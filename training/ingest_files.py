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

from .ingest_join import Join
from .ingest_manifest import DATASET_NAME, DataFile, DataSet, Plan, digest_of
from .ingest_places import of_place
from .ingest_rules import MEANING, LeftOut, row_of

PARTS: Final = ("train", "heldout")
CONTRADICTIONS: Final = "contradictions.jsonl"
LEFT_OUT: Final = "left_out.jsonl"
REPORT: Final = "report.md"


def write_files(join: Join, plan: Plan, folder: Path) -> DataSet:
    """Write everything that a settled join holds into an empty folder, and return its manifest."""
    files = [
        _write_lines(folder, f"{task}.{part}.jsonl", _rows(join, task, part)) for task in join.tasks() for part in PARTS
    ]
    files.append(_write_lines(folder, CONTRADICTIONS, _contradictions(join)))
    files.append(_write_lines(folder, LEFT_OUT, _left_out(join)))
    counts = join.counts()
    files.append(_write_lines(folder, REPORT, _report(counts, files)))
    made = DataSet(options=plan.options, ranges=plan.ranges, counts=counts, files=files, digest=digest_of(files))
    text = json.dumps(made.model_dump(by_alias=True, mode="json"), indent=2, ensure_ascii=False) + "\n"
    (folder / DATASET_NAME).write_text(text, encoding="utf-8", newline="\n")
    return made


def _write_lines(folder: Path, name: str, lines: Iterable[str | Mapping[str, Any]]) -> DataFile:
    digest, size, rows = sha256(), 0, 0
    with (folder / name).open("wb") as file:
        for line in lines:
            text = line if isinstance(line, str) else json.dumps(line, ensure_ascii=False)
            raw = text.encode() + b"\n"
            file.write(raw)
            digest.update(raw)
            size += len(raw)
            rows += 1
    return DataFile(path=name, rows=rows, bytes=size, sha256=digest.hexdigest())


def _rows(join: Join, task: str, part: str) -> Iterator[dict[str, Any]]:
    for text, kind, target, prediction, people in join.examples(task, part):
        yield {"text": text, **row_of(kind, target), "people": people, "prediction_id": prediction}


def _contradictions(join: Join) -> Iterator[dict[str, Any]]:
    for (task, text), votes in groupby(join.contradictions(), itemgetter(0, 1)):
        said = [
            {**row_of(kind, target), "said_by": [{"by": person, "feedback": name} for *_, person, name in same]}
            for (kind, target), same in groupby(votes, itemgetter(2, 3))
        ]
        yield {"task": task, "text": text, "values": said}


def _left_out(join: Join) -> Iterator[dict[str, Any]]:
    for place, name, prediction, reason in join.left_out():
        topic, partition, offset = of_place(place, join.feedback_ranges)
        yield {
            "reason": reason,
            "feedback": name,
            "prediction_id": prediction or None,
            "topic": topic,
            "partition": partition,
            "offset": offset,
        }


def _report(counts: Mapping[str, int], files: Iterable[DataFile]) -> Iterator[str]:
    yield "# Data set from feedback"
    yield ""
    yield f"{counts['used']} of {counts['feedback']} feedback records are used."
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
