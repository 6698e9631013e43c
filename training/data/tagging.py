"""Reads tagging rows: a text with spans, or tokens with tags."""

from ...runtime.errors import SetupError
from ..recipe import Columns, Reading
from .example import Example, Span
from .fields import read_text, rename_labels
from .row import Row


def read_tagging(row: Row, columns: Columns, reading: Reading) -> Example:
    if columns.tokens in row.fields:
        return _from_tokens(row, columns, reading)
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
        spans += [Span(start, end, name) for name in rename_labels(row, [label], reading)]
    return Example(text, spans=_disjoint(spans), place=row.place)


def _disjoint(spans: list[Span]) -> tuple[Span, ...]:
    """Of overlapping spans keep the longest: one tag a word can say no more."""
    kept: list[Span] = []
    for span in sorted(spans, key=lambda s: (s.start - s.end, s.start)):
        if all(span.end <= other.start or other.end <= span.start for other in kept):
            kept.append(span)
    return tuple(sorted(kept, key=lambda s: s.start))


def _from_tokens(row: Row, columns: Columns, reading: Reading) -> Example:
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
    named = tuple(Span(s.start, s.end, new) for s in spans for new in rename_labels(row, [s.label], reading))
    return Example(read_text(row, " ".join(tokens)), spans=named, words=tuple(words), place=row.place)
