"""Scores of replies against sacrebleu's own, and the baselines beside them."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sacrebleu.metrics import BLEU

from murmura.schemas.acts import Act, ActName
from murmura.training.data.example import Example
from murmura.training.kinds.replies.baselines import consensus_replies, most_common_reply, template_replies
from murmura.training.kinds.replies.scores import (
    MEANINGS,
    compare_with_references,
    rouge_l,
    score_bleu_and_rouge,
    score_replies,
    split_reply,
)

REFERENCES = ["Is {city} right? It is {date}.", "Goodbye now, my friend", "Would you like {restaurant_name}?"]
REPLIES = ["is {city} right?  It is {time}.", "Goodbye", "Would you like {restaurant_name}?"]
SENTENCES = st.lists(st.sampled_from(["a", "B", "b", "{city}", "{date}", ".", "c-d"]), max_size=8).map(" ".join)


def test_a_slot_is_one_word():
    assert split_reply("In{city}? It's {restaurant_name}.") == [
        "In",
        "{city}",
        "?",
        "It",
        "'",
        "s",
        "{restaurant_name}",
        ".",
    ]


@given(st.lists(st.tuples(SENTENCES, SENTENCES), min_size=1, max_size=6))
def test_bleu_is_that_of_sacrebleu_on_these_words(pairs):
    replies, references = zip(*pairs, strict=True)
    found = score_replies(replies, references)
    for name, lowercase in (("bleu", True), ("bleu_cased", False)):
        words = [[" ".join(split_reply(text)) for text in texts] for texts in (replies, references)]
        whole = BLEU(lowercase=lowercase, tokenize="none", force=True).corpus_score(words[0], [words[1]])
        assert found.figures[name] == pytest.approx(whole.score)


def test_figures_say_what_is_missing_invented_and_repeated():
    found = score_replies(REPLIES, REFERENCES)
    figures = found.figures
    assert found.rows == 3
    assert set(figures) == set(MEANINGS)
    assert (figures["slots_missing"], figures["slots_invented"]) == (pytest.approx(1 / 3), pytest.approx(1 / 3))
    assert figures["length_ratio"] == pytest.approx(14 / 18)
    assert figures["distinct"] == 1
    assert figures["bleu"] > figures["bleu_cased"] > 0
    assert found.signature.startswith("nrefs:1|case:lc|eff:no|tok:none|smooth:exp|version:")
    assert score_replies(["x"] * 4, ["y"] * 4).figures["distinct"] == 0.25


def test_replies_that_are_the_references_have_the_best_figures():
    found = score_replies(REFERENCES, REFERENCES)
    best = {"bleu": 100, "bleu_cased": 100, "chrf": 100, "rouge_l": 100, "slots_missing": 0, "slots_invented": 0}
    assert found.figures == pytest.approx({**best, "distinct": 1, "length_ratio": 1})
    assert found.intervals["rouge_l"] == (100, 100)


def test_without_slots_no_slot_is_missing():
    found = score_replies(["a {city}", ""], ["a", "b"])
    assert found.figures["slots_missing"] is None
    assert "slots_missing" not in found.intervals


def test_the_longest_common_subsequence_may_have_gaps():
    assert rouge_l(["a", "x", "b", "y", "c"], ["a", "b", "z", "c"]) == pytest.approx(2 * 3 / 9)
    assert rouge_l([], ["a"]) == rouge_l(["b"], ["a"]) == 0


def test_intervals_hold_the_figure_repeat_and_are_wider_where_rows_belong_together():
    replies = [f"word {number} and {number % 3}" for number in range(60)]
    references = [f"word {number} and {number % 2}" if number < 30 else "nothing of it" for number in range(60)]
    alone = score_replies(replies, references)
    together = score_replies(replies, references, [number // 10 for number in range(60)])
    assert alone == score_replies(replies, references)
    assert alone.figures == together.figures
    for name, (low, high) in alone.intervals.items():
        assert low <= alone.figures[name] <= high
    widths = [found.intervals["rouge_l"][1] - found.intervals["rouge_l"][0] for found in (alone, together)]
    assert widths[1] > 1.5 * widths[0]


@pytest.mark.parametrize(("replies", "references"), [([], []), (["a"], ["a", "b"])])
def test_no_rows_have_no_score(replies, references):
    with pytest.raises(ValueError, match="as many replies as references"):
        score_replies(replies, references)


CITY, DATE = Act(act=ActName.REQUEST, slot="city"), Act(act=ActName.REQUEST, slot="date")
BYE = Act(act=ActName.GOODBYE)
TRAIN = [
    Example("", reply="Which city?", acts=(CITY,)),
    Example("", reply="Where?", acts=(CITY,)),
    Example("", reply="Where?", acts=(CITY,)),
    Example("", reply="Bye", acts=(BYE, CITY)),
    Example("", reply="Bye", acts=(CITY, BYE)),
    Example("", reply="Bye", acts=(BYE,)),
]


def test_the_template_is_the_most_common_reply_to_the_same_acts_in_any_order():
    rows = [Example("", acts=acts) for acts in ((CITY,), (BYE, CITY, CITY), (DATE,), (Act(act=ActName.GREET),))]
    assert template_replies(TRAIN, rows) == ["Where?", "Bye", "Where?", "Bye"]
    assert most_common_reply(TRAIN) == "Bye"


def test_the_consensus_is_the_reply_nearest_to_those_of_the_nearest_contexts():
    near = ["which city is it", "which city", "which city please", "no idea"]
    train = [Example("", reply=reply) for reply in (*near, *["far away"] * 20)]
    vectors = np.array([[1.0, 0.01 * number] for number in range(4)] + [[0.0, 1.0]] * 20)
    assert consensus_replies(train, vectors, np.array([[2.0, 0.0], [0.0, 0.1]])) == ["which city", "far away"]


def test_bleu_for_the_gate_is_that_of_sacrebleu() -> None:
    draw = random.Random(0)
    for length in (1, 3, 6, 12):
        replies, references = (
            [" ".join(draw.choices(["a", "b", "c", "d", "{e}"], k=draw.randint(1, length))) for _ in range(8)]
            for _ in range(2)
        )
        outcome = compare_with_references(replies, references)["BLEU"]
        assert 100 * outcome.metric == pytest.approx(score_bleu_and_rouge(replies, references)["bleu"])
    assert compare_with_references(["x"], ["y"])["BLEU"].metric == 0


def test_more_is_better_of_all_that_the_gate_compares() -> None:
    found = compare_with_references(["in {a}", "in {a}", "at {a} {b}"], ["in {a}", "on {a} {b}", "{a}"])
    assert found["slots named"].metric == pytest.approx(3 / 4)
    assert found["slots not invented"].metric == pytest.approx(3 / 4)
    assert found["distinct"].metric == pytest.approx(2 / 3)
    assert compare_with_references(["x"], ["y"]).keys() == {"BLEU", "distinct"}
