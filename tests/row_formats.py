"""Writes the same rows in every format that a recipe reads. A row is (text, labels) or (text, spans); none knows the reader."""

import csv
import gzip
import io
import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

Row = tuple[Any, Any]
Spans = list[tuple[int, int, Any]]
Place = Callable[[int, list[Row]], str]
SEPARATOR = "|"


def table(rows: list[Row], delimiter: str) -> bytes:
    file = io.StringIO()
    writer = csv.writer(file, delimiter=delimiter, lineterminator="\n")
    writer.writerow(["text", "label"])
    writer.writerows([text, SEPARATOR.join(labels)] for text, labels in rows)
    return file.getvalue().encode()


def array(items: list[Any]) -> bytes:
    """One item a line, so that item `n` stands in line n + 1."""
    return ("[\n" + ",\n".join(json.dumps(item, ensure_ascii=False) for item in items) + "\n]\n").encode()


def lines(items: list[Any]) -> bytes:
    return "".join(json.dumps(item) + "\n" for item in items).encode()


def units(text: Any, offset: int) -> int:
    """Return an offset in UTF-16 units, as a browser counts."""
    if not isinstance(text, str) or offset < 0:
        return offset
    return len(text[:offset].encode("utf-16-le")) // 2 + max(0, offset - len(text))


def studio_task(number: int, text: Any, results: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "id": number,
        "data": {"text": text},
        "annotations": [{"id": number, "result": results, "was_cancelled": False}],
    }


def studio_choices(rows: list[Row]) -> bytes:
    made = []
    for number, (text, labels) in enumerate(rows):
        chosen = {"from_name": "mood", "to_name": "text", "type": "choices", "value": {"choices": labels}}
        made.append(studio_task(number, text, [chosen]))
    return array(made)


def studio_spans(rows: list[Row]) -> bytes:
    made = []
    for number, (text, spans) in enumerate(rows):
        results = [
            {
                "from_name": "label",
                "to_name": "text",
                "type": "labels",
                "value": {"start": units(text, a), "end": units(text, b), "text": str(text)[a:b], "labels": [label]},
            }
            for a, b, label in spans
        ]
        made.append(studio_task(number, text, results))
    return array(made)


def entities(spans: Spans) -> list[dict[str, Any]]:
    return [{"id": n, "start_offset": a, "end_offset": b, "label": label} for n, (a, b, label) in enumerate(spans)]


def objects(spans: Spans) -> list[dict[str, Any]]:
    return [{"start": a, "end": b, "label": label} for a, b, label in spans]


def tagged_words(text: str, spans: Spans) -> list[tuple[str, str]]:
    """Return the words with their tags in IOB2. Spans begin and end with words."""
    made, at = [], 0
    for word in text.split(" "):
        inside = next((("B" if at == a else "I") + f"-{label}" for a, b, label in spans if a <= at < b), "O")
        made.append((word, inside))
        at += len(word) + 1
    return made


def conll(rows: list[Row]) -> bytes:
    sentences = ("".join(f"{word}\t{tag}\n" for word, tag in tagged_words(*row)) for row in rows)
    return "".join(f"{sentence}\n" for sentence in sentences).encode()


def tokens(rows: list[Row]) -> bytes:
    return lines([dict(zip(("tokens", "tags"), zip(*tagged_words(*row), strict=True), strict=True)) for row in rows])


def categories(labels: list[Any]) -> dict[str, int]:
    return {"never": 0, **dict.fromkeys(labels, 1)}


def parquet_file(rows: list[Row]) -> bytes:
    import pyarrow as arrow
    from pyarrow import parquet

    file = io.BytesIO()
    made = {"text": [text for text, _ in rows], "label": [labels for _, labels in rows]}
    parquet.write_table(
        arrow.table(made, schema=arrow.schema([("text", arrow.string()), ("label", arrow.list_(arrow.string()))])), file
    )
    return file.getvalue()


def parquet_spans(rows: list[Row]) -> bytes:
    import pyarrow as arrow
    from pyarrow import parquet

    file = io.BytesIO()
    span = arrow.struct([("start", arrow.int64()), ("end", arrow.int64()), ("label", arrow.string())])
    schema = arrow.schema([("text", arrow.string()), ("spans", arrow.list_(span))])
    made = {"text": [text for text, _ in rows], "spans": [objects(spans) for _, spans in rows]}
    parquet.write_table(arrow.table(made, schema=schema), file)
    return file.getvalue()


class Format:
    """`write` gives the file's bytes; `place(n, rows)` how a complaint about row n, from 0, begins behind the path."""

    def __init__(
        self,
        name: str,
        write: Callable[[list[Row]], bytes],
        place: Place,
        typed: bool = True,
        **keys: Any,
    ) -> None:
        self.name, self.write, self.place, self.typed, self.keys = name, write, place, typed, keys

    def put(self, folder: Path, rows: list[Row]) -> bytes:
        content = self.write(rows)
        (folder / self.name).write_bytes(content)
        return content


def in_line(first: int) -> Place:
    return lambda row, rows: f":{first + row}"


def by_row(row: int, rows: list[Row]) -> str:
    return f": row {row + 1}"


def by_sentence(row: int, rows: list[Row]) -> str:
    """A word a line, and an empty line behind each sentence."""
    return f":{1 + sum(text.count(' ') + 2 for text, _ in rows[:row])}:"


CELLS: dict[str, Any] = {"label_separator": SEPARATOR, "quoting": "minimal"}
PARQUET = find_spec("pyarrow") is not None
SENTENCES = {
    "csv": Format("x.csv", lambda rows: table(rows, ","), in_line(2), typed=False, **CELLS),
    "csv with semicolons": Format("x.csv", lambda rows: table(rows, ";"), in_line(2), False, **CELLS, delimiter=";"),
    "tsv": Format("x.tsv", lambda rows: table(rows, "\t"), in_line(2), typed=False, **CELLS),
    "csv, compressed": Format("x.csv.gz", lambda rows: gzip.compress(table(rows, ",")), in_line(2), False, **CELLS),
    "json": Format("x.json", lambda rows: array([{"text": t, "label": ls} for t, ls in rows]), in_line(2)),
    "json lines": Format("x.jsonl", lambda rows: lines([{"text": t, "label": ls} for t, ls in rows]), in_line(1)),
    "label studio": Format("x.json", studio_choices, in_line(2), format="label_studio"),
    "doccano": Format(
        "x.jsonl", lambda rows: lines([{"text": t, "label": ls} for t, ls in rows]), in_line(1), format="doccano"
    ),
    "spacy": Format(
        "x.jsonl", lambda rows: lines([[t, {"cats": categories(ls)}] for t, ls in rows]), in_line(1), format="spacy"
    ),
} | ({"parquet": Format("x.parquet", parquet_file, by_row, typed=False)} if PARQUET else {})
TAGGING = {
    "json": Format("x.json", lambda rows: array([{"text": t, "spans": objects(s)} for t, s in rows]), in_line(2)),
    "label studio": Format("x.json", studio_spans, in_line(2), format="label_studio"),
    "doccano, objects": Format(
        "x.jsonl",
        lambda rows: lines([{"text": t, "entities": entities(s)} for t, s in rows]),
        in_line(1),
        format="doccano",
    ),
    "doccano, triples": Format(
        "x.jsonl", lambda rows: lines([{"text": t, "label": s} for t, s in rows]), in_line(1), format="doccano"
    ),
    "spacy, pairs": Format(
        "x.json", lambda rows: array([[t, {"entities": s}] for t, s in rows]), in_line(2), format="spacy"
    ),
    "spacy, documents": Format(
        "x.jsonl",
        lambda rows: lines([{"text": t, "ents": objects(s), "cats": {}} for t, s in rows]),
        in_line(1),
        format="spacy",
    ),
    "spacy, training": Format(
        "x.json",
        lambda rows: array([{"id": n, "paragraphs": [{"raw": t, "entities": s}]} for n, (t, s) in enumerate(rows)]),
        in_line(2),
        format="spacy",
    ),
} | ({"parquet": Format("x.parquet", parquet_spans, by_row, typed=False)} if PARQUET else {})
TOKENS = {
    "conll": Format("x.conll", conll, by_sentence, typed=False),
    "tokens and tags": Format("x.jsonl", tokens, in_line(1)),
}
"""Formats of words with tags instead of spans."""
