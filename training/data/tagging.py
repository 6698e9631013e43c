"""Reads tagging rows: a text with spans, or tokens with tags."""

from dataclasses import replace
from typing import Any

from ...runtime.errors import SetupError
from ...runtime.model.texts.words import trim_blanks, trim_span
from .counts import ReadCounts, SpanLeftOut
from .example import Example, Span
from .fields import check_label, check_text, read_tokens, rename_labels
from .row import Row
from .rules import Rules
from .tag_schemes import Scheme, TagError, find_scheme, to_iob2


def read_tagging(row: Row, rules: Rules, counts: ReadCounts) -> Example:
    """Return the example of a row. Of overlapping spans the longest stays: one tag a word can say no more."""
    columns = rules.columns
    if row.has(columns.tokens) and (row.has(columns.tags) or not row.has(columns.text)):
        return _from_tokens(row, rules, counts)
    text = check_text(row, row.need(columns.text))
    spans = _rename(row, _trim(_read_spans(row, rules, text), text, counts), rules, counts)
    meta = row.without(columns.text, columns.spans)
    return Example(text, spans=_drop_overlapping(spans, counts), place=row.place, meta=meta)


def _read_spans(row: Row, rules: Rules, text: str) -> list[Span]:
    items = row.need(rules.columns.spans)
    if not isinstance(items, list):
        raise SetupError(f"{row.place}: {rules.columns.spans!r} should be a list of spans, found {repr(items)[:60]}")
    return [_read_span(row, rules, item, text) for item in items]


def _read_span(row: Row, rules: Rules, item: Any, text: str) -> Span:
    keys = (rules.columns.start, rules.columns.end, rules.columns.span_label)
    if not isinstance(item, dict) or any(item.get(key) is None for key in keys):
        raise SetupError(f"{row.place}: a span needs {', '.join(keys)}; found {repr(item)[:60]}")
    start, end, label = (item[key] for key in keys)
    for key, offset in zip(keys, (start, end), strict=False):
        if type(offset) is not int:
            raise SetupError(f"{row.place}: {key!r} of a span should be a whole number, found {repr(offset)[:60]}")
    if not 0 <= start < end <= len(text):
        raise SetupError(f"{row.place}: span {start}..{end} does not lie in a text of {len(text)} characters")
    if isinstance(label, list) and len(label) == 1:
        label = label[0]  # some tools write a list of one
    return Span(start, end, check_label(row, label, rules, f"{keys[2]!r} of a span"))


def _trim(spans: list[Span], text: str, counts: ReadCounts) -> list[Span]:
    """Return spans without the blanks at their ends: what a mouse selects beside a word."""
    counts.spans += len(spans)
    kept = []
    for span in spans:
        place = trim_span(text, span.start, span.end)
        if place is None:
            counts.spans_left_out[SpanLeftOut.BLANK] += 1
        else:
            counts.trimmed += place != (span.start, span.end)
            kept.append(Span(*place, span.label))
    return kept


def _rename(row: Row, spans: list[Span], rules: Rules, counts: ReadCounts) -> list[Span]:
    kept = [replace(span, label=new) for span in spans for new in rename_labels(row, [span.label], rules.reading)]
    counts.spans_left_out[SpanLeftOut.REST] += len(spans) - len(kept)
    return kept


def _drop_overlapping(spans: list[Span], counts: ReadCounts) -> tuple[Span, ...]:
    kept: list[Span] = []
    for span in sorted(spans, key=lambda s: (s.start - s.end, s.start)):
        if all(span.end <= other.start or other.end <= span.start for other in kept):
            kept.append(span)
    counts.spans_left_out[SpanLeftOut.OVERLAPPING] += len(spans) - len(kept)
    return tuple(sorted(kept, key=lambda s: s.start))


def _from_tokens(row: Row, rules: Rules, counts: ReadCounts) -> Example:
    columns = rules.columns
    tokens = read_tokens(row, rules)
    tags = _read_tags(row, rules)
    if len(tokens) != len(tags):
        raise SetupError(f"{row.place}: {len(tokens)} tokens and {len(tags)} tags; expected as many of both")
    words, at = [], 0
    for token in tokens:
        words.append((at, at + len(token)))
        at += len(token) + 1
    text = check_text(row, " ".join(tokens))
    kept = tuple(_rename(row, _trim(_join_tags(words, tags), text, counts), rules, counts))
    meta = row.without(columns.text, columns.tokens, columns.tags)
    return Example(text, spans=kept, words=tuple(words), place=row.place, meta=meta)


def _read_tags(row: Row, rules: Rules) -> list[tuple[str, str]]:
    """Return position (`O`, `B` or `I`) and label of each tag."""
    column = rules.columns.tags
    tags = row.need(column)
    if isinstance(tags, str):
        tags = tags.split()
    if not isinstance(tags, list):
        raise SetupError(f"{row.place}: {column!r} should be a list of tags, found {repr(tags)[:60]}")
    names = [_name_tag(row, tag) for tag in tags]
    scheme = find_scheme(names)
    _note_scheme(row, rules, names, scheme)
    try:
        return [_read_tag(row, rules, tag) for tag in to_iob2(names, scheme)]
    except TagError as error:
        raise SetupError(f"{row.place}: {error}") from None


def _note_scheme(row: Row, rules: Rules, names: list[str], scheme: Scheme) -> None:
    """Note a row that is read as BIO but is a mistake where other rows of the file mark the ends of spans."""
    found = rules.findings
    found.marks_ends |= scheme is Scheme.BILOU
    if scheme is Scheme.BILOU or found.unmarked is not None:
        return
    try:
        to_iob2(names, Scheme.BILOU)
    except TagError as error:
        found.unmarked = SetupError(f"{row.place}: {error}; other rows of this source mark the ends of spans")


def refuse_mixed_schemes(rules: Rules) -> None:
    """Raise SetupError, after the last row of a source, where some rows mark the ends of spans and one does not."""
    if rules.findings.marks_ends and rules.findings.unmarked is not None:
        raise rules.findings.unmarked


def _name_tag(row: Row, tag: Any) -> str:
    """Return a tag without white space around it and its label."""
    if isinstance(tag, int) and not isinstance(tag, bool):
        raise SetupError(f"{row.place}: tag {tag} is a number; expected a name: O, B-x or I-x")
    if not isinstance(tag, str):
        raise SetupError(f"{row.place}: tag {repr(tag)[:60]} is not BIO (O, B-x or I-x)")
    position, dash, label = trim_blanks(tag).partition("-")
    label = trim_blanks(label)
    return position + dash + label if label or not dash else tag


def _read_tag(row: Row, rules: Rules, tag: str) -> tuple[str, str]:
    position, _, label = tag.partition("-")
    return position, check_label(row, label, rules, f"the label of tag {tag[:60]!r}") if label else ""


def _join_tags(words: list[tuple[int, int]], tags: list[tuple[str, str]]) -> list[Span]:
    spans: list[Span] = []
    before = ""
    for (start, end), (position, label) in zip(words, tags, strict=True):
        if position == "I" and before == label:
            spans[-1] = Span(spans[-1].start, end, label)
        elif position != "O":
            spans.append(Span(start, end, label))
        before = label
    return spans
