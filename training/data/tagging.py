"""Reads tagging rows: a text with spans, or tokens with tags."""

from dataclasses import replace

from ...runtime.errors import SetupError
from ..recipe import Columns, Reading
from .counts import ReadCounts, SpanLeftOut
from .example import Example, Span
from .fields import read_text, rename_labels
from .row import Row


def read_tagging(row: Row, columns: Columns, reading: Reading, counts: ReadCounts) -> Example:
    """Return the example of a row. Of overlapping spans the longest stays: one tag a word can say no more."""
    if columns.tokens in row.fields:
        return _from_tokens(row, columns, reading, counts)
    text = read_text(row, row.need(columns.text))
    spans = []
    for item in row.need(columns.spans):
        try:
            start, end, label = int(item[columns.start]), int(item[columns.end]), str(item[columns.span_label])
        except (KeyError, TypeError, ValueError):
            keys = f"{columns.start}, {columns.end}, {columns.span_label}"
            raise SetupError(f"{row.place}: a span needs {keys}; found {str(item)[:60]}") from None
        if not 0 <= start < end <= len(text):
            raise SetupError(f"{row.place}: span {start}..{end} does not lie in a text of {len(text)} characters")
        spans.append(Span(start, end, label))
    meta = row.without(columns.text, columns.spans)
    kept = _disjoint(_renamed(row, spans, reading, counts), counts)
    return Example(text, spans=kept, place=row.place, meta=meta)


def _renamed(row: Row, spans: list[Span], reading: Reading, counts: ReadCounts) -> list[Span]:
    kept = [replace(span, label=new) for span in spans for new in rename_labels(row, [span.label], reading)]
    counts.spans += len(spans)
    counts.spans_left_out[SpanLeftOut.REST] += len(spans) - len(kept)
    return kept


def _disjoint(spans: list[Span], counts: ReadCounts) -> tuple[Span, ...]:
    kept: list[Span] = []
    for span in sorted(spans, key=lambda s: (s.start - s.end, s.start)):
        if all(span.end <= other.start or other.end <= span.start for other in kept):
            kept.append(span)
    counts.spans_left_out[SpanLeftOut.OVERLAPPING] += len(spans) - len(kept)
    return tuple(sorted(kept, key=lambda s: s.start))


def _from_tokens(row: Row, columns: Columns, reading: Reading, counts: ReadCounts) -> Example:
    tokens, tags = row.need(columns.tokens), row.need(columns.tags)
    if isinstance(tokens, str) and isinstance(tags, str):
        tokens, tags = tokens.split(), tags.split()
    if not tokens or len(tokens) != len(tags):
        raise SetupError(
            f"{row.place}: {len(tokens)} tokens and {len(tags)} tags; expected as many of both, at least one"
        )
    words, at = [], 0
    for token in tokens:
        words.append((at, at + len(token)))
        at += len(token) + 1
    spans: list[Span] = []
    before = "O"
    for (start, end), tag in zip(words, tags, strict=True):
        if tag != "O" and tag[:2] not in {"B-", "I-"}:
            raise SetupError(f"{row.place}: tag {tag!r} is not BIO (O, B-x or I-x)")
        if tag[:2] == "I-" and before[2:] == tag[2:]:
            spans[-1] = Span(spans[-1].start, end, spans[-1].label)
        elif tag != "O":
            spans.append(Span(start, end, tag[2:]))
        before = tag
    text, meta = read_text(row, " ".join(tokens)), row.without(columns.text, columns.tokens, columns.tags)
    kept = tuple(_renamed(row, spans, reading, counts))
    return Example(text, spans=kept, words=tuple(words), place=row.place, meta=meta)
