"""The rows of the filter of harmful texts: enough of each label, and an evaluation that no training row is like."""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml

from murmura.scenarios.support.place import HERE
from murmura.training.recipe.keys.reading import Source
from murmura.training.recipe.recipe import load_recipe

LABELS = ["insult", "threat", "sexual", "self_harm", "asks_for_credentials"]
ALIKE = 0.7
TASK = load_recipe(HERE / "filter.yaml").tasks["filter"]
Rows = list[tuple[str, list[str]]]


def rows_of(sources: Iterable[Source] | None) -> Rows:
    found: Rows = []
    for source in sources or ():
        left_out = (source.unless or {}).get("text", [])
        rows: list[dict[str, Any]] = [json.loads(line) for line in Path(source.path).read_text().splitlines()]
        found += [(row["text"], row.get("label", [])) for row in rows if row["text"] not in left_out]
    return found


TRAINING, VALIDATION, EVALUATION = rows_of(TASK.train), rows_of(TASK.validation), rows_of(TASK.test)


def words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"[\w']+", text.lower()))


def mask(text: str) -> str:
    """The text without names and numbers: words with a capital that do not begin a sentence, and digits."""
    masked = re.sub(r"(?<=[\w,;] )[A-Z][\w']*", "NAME", text)
    return " ".join(re.findall(r"[\w']+", re.sub(r"\d[\d.,]*", "0", masked).lower()))


def find_alike(texts: Iterable[str], others: Iterable[str]) -> set[tuple[str, str]]:
    """Pairs that share at least ALIKE of their words: such a pair shares one of the rarest words of each."""
    known = [(text, words(text)) for text in others]
    rarity = Counter(word for _, each in known for word in each)
    with_word = defaultdict(list)
    for text, each in known:
        for word in each:
            with_word[word].append((text, each))
    found = set()
    for text in texts:
        own = words(text)
        rarest = sorted(own, key=lambda word: (rarity[word], word))[: len(own) - int(ALIKE * len(own) + 0.999) + 1]
        for word in rarest:
            found |= {(text, o) for o, each in with_word[word] if len(own & each) >= ALIKE * len(own | each)}
    return found


def test_there_are_enough_rows_of_every_label_and_without_any() -> None:
    for rows, harmful, each, harmless in (
        (TRAINING, 1700, 300, 2900),
        (VALIDATION, 200, 40, 480),
        (EVALUATION, 200, 40, 1000),
    ):
        counts = Counter(label for _, labels in rows for label in labels)
        assert set(counts) == set(LABELS) == set(TASK.labels or ())
        assert min(counts.values()) >= each
        assert sum(bool(labels) for _, labels in rows) >= harmful
        assert sum(not labels for _, labels in rows) >= harmless


@pytest.mark.parametrize("rows", [TRAINING, VALIDATION, EVALUATION], ids=["training", "validation", "evaluation"])
def test_no_text_stands_twice(rows: Rows) -> None:
    counts = Counter(re.sub(r"\W", "", text.lower()) for text, labels in rows)
    assert [text for text, count in counts.items() if text and count > 1] == []


@pytest.mark.parametrize(
    ("rows", "others"),
    [(EVALUATION, TRAINING + VALIDATION), (VALIDATION, TRAINING)],
    ids=["evaluation", "validation"],
)
def test_no_row_held_out_is_like_one_that_is_learned_or_chosen_on(rows: Rows, others: Rows) -> None:
    masked = {mask(text) for text, _ in others}
    assert [text for text, _ in rows if mask(text) in masked] == []
    assert find_alike((text for text, _ in rows), (text for text, _ in others)) == set()


def test_texts_that_share_most_words_are_alike() -> None:
    assert find_alike(["I want a refund from you now"], ["you, I want a refund now", "a refund"]) == {
        ("I want a refund from you now", "you, I want a refund now")
    }
    assert mask("Sent 20.50 to Kelly Marsh") == mask("sent 7 to Ben Ray")


def test_the_word_list_hits_no_harmless_row_and_some_of_every_label() -> None:
    phrases = yaml.safe_load((HERE / "harmful-words.yaml").read_text())
    assert list(phrases) == LABELS
    for label, some in phrases.items():
        patterns = "|".join(re.escape(each).replace(r"\*", r"\w*").replace(r"\ ", r"\s+") for each in some)
        net = re.compile(rf"\b(?:{patterns})\b", re.IGNORECASE)
        hits = [labels for text, labels in TRAINING + VALIDATION + EVALUATION if net.search(text)]
        assert [] not in hits
        assert sum(label in labels for labels in hits) >= 3
