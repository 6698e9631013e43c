"""spaCy's data as JSON or JSON lines: its training format, `Doc.to_json()`, and pairs of a text and its annotations."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from ....runtime.errors import SetupError
from ...recipe.keys.reading import Columns, Reading
from ..opening import open_text
from ..row import Row, list_names
from ..tag_schemes import Scheme, TagError, to_iob2
from .annotations import as_list, as_object, make_span, read_object, read_triple
from .json_rows import read_items, read_line_items

OWN_KEYS: Final = frozenset(
    {
        *("text", "raw", "entities", "ents", "cats", "spans", "links", "paragraphs", "sentences", "brackets", "sents"),
        *("tokens", "words", "spaces", "tags", "pos", "morphs", "lemmas", "heads", "deps", "sent_starts"),
    }
)
"""What spaCy itself writes. Other keys are columns of the row."""
YES, NO = 1, 0
"""Values of a category. A value between is no label."""


def read_spacy(path: Path, reading: Reading) -> Iterator[Row]:
    """Yield a row for each paragraph or text, with its labels and spans under the recipe's `columns`."""
    columns = reading.columns or Columns()
    for place, item in read_line_items(path) if _has_pairs_on_lines(path) else read_items(path):
        if isinstance(item, list):
            yield _read_pair(place, item, columns)
        elif isinstance(item, dict) and "paragraphs" in item:
            for number, paragraph in enumerate(as_list(place, "paragraphs", item["paragraphs"]), 1):
                yield _read_paragraph(f"{place}, paragraph {number}", paragraph, _other_columns(item, columns), columns)
        elif isinstance(item, dict) and "text" in item:
            yield _read_doc(place, item, columns)
        else:
            raise SetupError(
                f"{place}: expected an object with 'paragraphs' (spaCy's training format) or 'text' (Doc.to_json), or "
                f"[text, annotations]; found {_describe(item)}"
            )


def _other_columns(item: dict[str, Any], columns: Columns) -> dict[str, Any]:
    taken = {columns.text, columns.label, columns.spans, columns.tokens, columns.tags}
    return {key: value for key, value in item.items() if key not in OWN_KEYS | taken}


def _has_pairs_on_lines(path: Path) -> bool:
    """Return whether the file begins with a pair, and not with an array of pairs or objects."""
    with open_text(path) as file:
        line = next((line for line in file if line.strip()), "").strip()
    return line[:1] == "[" and line[1:].lstrip()[:1] not in {"", "[", "{", "]"}


def _describe(item: Any) -> str:
    return list_names(item) if isinstance(item, dict) else type(item).__name__


def _read_pair(place: str, item: list[Any], columns: Columns) -> Row:
    if len(item) != 2:
        raise SetupError(f"{place}: expected [text, annotations], found a list of {len(item)}")
    text, annotations = item[0], as_object(place, "annotations", item[1])
    fields: dict[str, Any] = {**_other_columns(annotations, columns), columns.text: text}
    if "entities" in annotations:
        fields[columns.spans] = _read_triples(place, annotations["entities"], columns)
    return Row(place, fields | _read_categories(place, annotations.get("cats"), columns))


def _read_doc(place: str, item: dict[str, Any], columns: Columns) -> Row:
    fields: dict[str, Any] = {**_other_columns(item, columns), columns.text: item["text"]}
    if "ents" in item:
        fields[columns.spans] = [
            read_object(place, "an item of ents", ent, columns) for ent in as_list(place, "ents", item["ents"])
        ]
    elif "entities" in item:
        fields[columns.spans] = _read_triples(place, item["entities"], columns)
    return Row(place, fields | _read_categories(place, item.get("cats"), columns))


def _read_triples(place: str, value: Any, columns: Columns) -> list[dict[str, Any]]:
    return [read_triple(place, item, columns) for item in as_list(place, "entities", value)]


def _read_categories(place: str, value: Any, columns: Columns) -> dict[str, Any]:
    """Return the labels of `cats`: an object of values, or a list of {label, value}; nothing where there are none."""
    if value is None or value in ([], {}):
        return {}
    if isinstance(value, list):
        items = [as_object(place, "an item of cats", item) for item in value]
        pairs = [(item.get("label"), item.get("value")) for item in items]
    else:
        pairs = list(as_object(place, "cats", value).items())
    for label, worth in pairs:
        if not isinstance(label, str) or not isinstance(worth, int | float) or worth not in {YES, NO}:
            found = f"{str(worth)[:40]!r} for {str(label)[:40]!r}"
            raise SetupError(f"{place}: expected 1 or 0 for each label of cats, found {found}")
    return {columns.label: [label for label, worth in pairs if worth == YES]}


def _read_paragraph(place: str, item: Any, document: dict[str, Any], columns: Columns) -> Row:
    paragraph = as_object(place, "a paragraph", item)
    tokens = _read_tokens(place, paragraph.get("sentences") or [])
    words, tags = [orth for orth, _ in tokens], _convert_tags(place, [tag for _, tag in tokens])
    text = paragraph.get("raw")
    if not isinstance(text, str | None) or (text is None and not words):
        raise SetupError(f"{place}: expected a text in 'raw' or tokens in 'sentences'")
    fields: dict[str, Any] = {**document, **_other_columns(paragraph, columns)}
    fields[columns.text] = " ".join(words) if text is None else text
    if text is not None and paragraph.get("entities"):
        # Offsets first: they also know a span that does not end with a token.
        fields[columns.spans] = _read_triples(place, paragraph["entities"], columns)
    elif text is None and tags is not None:
        fields |= {columns.tokens: words, columns.tags: tags}
    elif text is not None and tags is not None:
        fields[columns.spans] = _locate_spans(place, text, words, tags, columns)
    elif "entities" in paragraph:
        fields[columns.spans] = []
    return Row(place, fields | _read_categories(place, paragraph.get("cats"), columns))


def _read_tokens(place: str, sentences: Any) -> list[tuple[str, str | None]]:
    """Return the text and the tag, or None, of each token of a paragraph."""
    found: list[tuple[str, str | None]] = []
    for sentence in as_list(place, "sentences", sentences):
        for item in as_list(place, "tokens", as_object(place, "a sentence", sentence).get("tokens")):
            token = as_object(place, "a token", item)
            orth, tag = token.get("orth"), token.get("ner")
            if not isinstance(orth, str) or not orth.strip() or not isinstance(tag, str | None):
                raise SetupError(f"{place}: a token needs a text as orth and a tag as ner, found {str(token)[:60]}")
            found.append((orth, tag))
    return found


def _convert_tags(place: str, tags: list[str | None]) -> list[str] | None:
    """Return the tags in IOB2; None where no token has any."""
    named = [tag for tag in tags if tag not in {None, "", "-"}]
    if not named:
        return None
    for position, tag in enumerate(tags, 1):
        if tag in {None, "", "-"}:
            raise SetupError(
                f"{place}: token {position} has no tag (ner: {tag!r}), but others have; expected O or a label"
            )
    given = [tag for tag in tags if tag is not None]
    try:
        return to_iob2(given, Scheme.BILOU)
    except TagError as error:
        raise SetupError(f"{place}: token {error.position + 1}: {error}") from None


def _locate_spans(place: str, text: str, words: list[str], tags: list[str], columns: Columns) -> list[dict[str, Any]]:
    """Find the tokens in the text, one behind the other, and return the spans of their tags."""
    spans: list[dict[str, Any]] = []
    at = 0
    for word, tag in zip(words, tags, strict=True):
        start = text.find(word, at)
        if start < 0 or text[at:start].strip():
            raise SetupError(f"{place}: token {word[:40]!r} does not follow at character {at} of the text")
        at = start + len(word)
        if tag.startswith("I-"):
            spans[-1][columns.end] = at
        elif tag != "O":
            spans.append(make_span(columns, start, at, tag[2:]))
    return spans
