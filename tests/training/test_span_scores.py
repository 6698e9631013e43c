"""One way to compare spans: what is learned, scored, judged by the gate and asked in the demos' exam."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from murmura.runtime.model.decoding import Rows
from murmura.runtime.model.kinds.registry import kind_of
from murmura.scenarios.stage.desk import Message
from murmura.scenarios.stage.exam import Paper
from murmura.schemas.manifest import TaskSpec
from murmura.training.data.example import Example, Span
from murmura.training.ingest.rules import LeftOut, Unfit, target_of
from murmura.training.kinds.answers import Answer
from murmura.training.kinds.figures.span_scores import locate, match
from murmura.training.kinds.registry import KINDS
from murmura.training.model.encoders import train_tokenizer

SPEC = TaskSpec(name="t", kind="tagging", labels=["O", "B-city", "I-city", "B-num", "I-num"])
INDEX = {label: number for number, label in enumerate(SPEC.labels)}
TEXT = "fly to New York tomorrow"
WORDS = ["fly", "to", "new", "york", "tomorrow", "rome", "send", "10kg", "u.s.a.", "live", "in", "now", "a"]
INVISIBLE = st.text(st.sampled_from([" ", "\u00a0", "\u200b", "\ufeff", "\t"]), max_size=3)
TAGGING = KINDS.get("tagging")


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(WORDS, 200, lowercase=True)


def served(tokenizer: Tokenizer, example: Example, *, logits: np.ndarray | None = None) -> Answer:
    """Return the answer of a model that has learned the example's tags perfectly, or of these logits."""
    encoding = tokenizer.encode(example.text)
    if logits is None:
        logits = np.eye(len(SPEC.labels))[np.maximum(TAGGING.target(example, encoding, INDEX), 0)] * 9.0
    rows = Rows(logits, np.array([0, len(logits)]), [encoding], [example.text])
    return Answer(example, encoding, kind_of(SPEC).make_decoder(SPEC)(rows, SPEC.thresholds)[0], logits)


def answered(example: Example, *spans: tuple[int, int, str]) -> Answer:
    items = [{"start": s, "end": e, "label": label, "text": example.text[s:e], "score": 0.9} for s, e, label in spans]
    return Answer(example, None, {"kind": "tagging", "spans": items}, np.zeros((1, 5)))  # type: ignore[arg-type]


def figures(*answers: Answer) -> dict[str, float | None]:
    return TAGGING.score(answers, SPEC, None).figures


@given(INVISIBLE, INVISIBLE, st.booleans(), st.booleans())
def test_a_span_with_invisible_characters_at_its_ends_is_learned_served_and_scored_as_without(
    before: str, after: str, with_before: bool, with_after: bool
) -> None:
    tokenizer = train_tokenizer(WORDS, 200, lowercase=True)
    text = f"fly to {before}New York{after} tomorrow"
    start, end = 7 + len(before), 15 + len(before)
    drawn = Span(start - with_before * len(before) - 1 * with_before, end + with_after * (len(after) + 1), "city")
    answer = served(tokenizer, Example(text, spans=(drawn,)))
    assert [item["text"] for item in answer.output["spans"]] == ["New York"]
    found = figures(answer)
    assert (found["f1"], found["f1_exact"], found["exact"]) == (1.0, 1.0, 1.0)
    assert TAGGING.outcome([answer], SPEC, None).metric == 1.0
    value = [{"start": drawn.start, "end": drawn.end, "label": "city"}]
    found_target = target_of("correction", value, {"kind": "tagging"}, text, None)
    assert found_target == ("tagging", f'[[{start},{end},"city"]]', with_before or with_after)
    right = frozenset({(drawn.start, drawn.end, "city")})
    message = Message(text, False, 0.0, outputs={"t": answer.output})
    assert Paper("t", "x", {text: right}).score({text: message}) == 1.0


def test_a_correction_to_a_span_of_blanks_is_no_example() -> None:
    with pytest.raises(Unfit) as raised:
        target_of("correction", [{"start": 3, "end": 4, "label": "city"}], {"kind": "tagging"}, TEXT, None)
    assert raised.value.reason == LeftOut.SPANS_OUTSIDE


@pytest.mark.parametrize("words", [None, ((0, 4), *((5 + 2 * n, 6 + 2 * n) for n in range(40)), (85, 89))])
def test_a_span_behind_the_limit_is_missed_in_both_formats(words: tuple[tuple[int, int], ...] | None) -> None:
    cut = train_tokenizer(WORDS, 200, lowercase=True)
    cut.enable_truncation(12)
    text = "rome " + "a " * 40 + "rome"
    answer = served(cut, Example(text, spans=(Span(0, 4, "city"), Span(85, 89, "city")), words=words))
    found = figures(answer)
    assert (found["spans"], found["precision"], found["recall"], found["f1"]) == (2, 1.0, 0.5, pytest.approx(2 / 3))
    assert TAGGING.outcome([answer], SPEC, None).metric == pytest.approx(2 / 3)


def test_validation_counts_spans_behind_the_limit_as_missed_and_training_ignores_them() -> None:
    cut = train_tokenizer(WORDS, 200, lowercase=True)
    cut.enable_truncation(12)
    text = "rome " + "a " * 40 + "rome"
    both, first = (Span(0, 4, "city"), Span(85, 89, "city")), (Span(0, 4, "city"),)
    encoding = cut.encode(text)
    whole, part = (TAGGING.target(Example(text, spans=spans), encoding, INDEX) for spans in (both, first))
    logits = np.eye(len(SPEC.labels))[np.maximum(part, 0)] * 9.0
    assert TAGGING.metrics([logits], [whole], SPEC)["f1"] == pytest.approx(2 / 3)
    assert TAGGING.metrics([logits], [part], SPEC)["f1"] == 1.0
    for width in (12, 20):
        assert torch.equal(TAGGING.collate([whole], width), TAGGING.collate([part], width))


def test_a_span_of_blanks_alone_is_nowhere_to_be_found(tokenizer: Tokenizer) -> None:
    example = Example(TEXT, spans=(Span(3, 4, "num"), Span(7, 15, "city")))
    answer = served(tokenizer, example)
    assert (figures(answer)["spans"], figures(answer)["f1_exact"]) == (1, 1.0)
    target = TAGGING.target(example, answer.encoding, INDEX)
    assert TAGGING.metrics([answer.logits], [target], SPEC)["f1"] == 1.0


def test_half_of_a_token_of_the_data_is_not_the_whole() -> None:
    example = Example("live in U.S.A. now", spans=(Span(8, 14, "city"),), words=((0, 4), (5, 7), (8, 14), (15, 18)))
    found = figures(answered(example, (8, 9, "city")))
    assert (found["f1"], found["f1_exact"]) == (0.0, 0.0)


def test_two_spans_in_one_word_are_two() -> None:
    example = Example("send 10kg", spans=(Span(5, 7, "num"), Span(7, 9, "city")))
    found = figures(answered(example, (5, 9, "num")))
    assert (found["spans"], found["recall"]) == (2, 0.5)
    assert found["f1_exact"] == 0.0


def test_texts_without_spans_give_a_report_without_an_f1(tokenizer: Tokenizer) -> None:
    plain = Example("send now")
    score = TAGGING.score([served(tokenizer, plain)], SPEC, None)
    assert (score.figures["f1"], score.figures["f1_exact"], score.figures["precision"]) == (None, None, None)
    assert (score.figures["spans"], score.figures["false_spans_per_100_texts"], score.figures["exact"]) == (0, 0, 1)
    found = figures(answered(plain, (0, 4, "city")), answered(plain))
    assert (found["f1"], found["false_spans_per_100_texts"], found["exact"]) == (0.0, 50.0, 0.5)


def test_where_no_text_has_a_span_the_gate_counts_texts_without_false_ones(tokenizer: Tokenizer) -> None:
    plain = Example("send now")
    right, wrong = served(tokenizer, plain), answered(plain, (0, 4, "city"))
    assert TAGGING.outcome([right, right], SPEC, None).metric == 1.0
    assert TAGGING.outcome([right, wrong], SPEC, None).metric == 0.5


def test_texts_without_spans_have_no_vote_on_the_checkpoint(tokenizer: Tokenizer) -> None:
    encoding = tokenizer.encode("send now")
    target = TAGGING.target(Example("send now"), encoding, INDEX)
    false_span = np.eye(5)[[INDEX["B-city"]] * len(encoding.ids)]
    assert TAGGING.metrics([false_span], [target], SPEC) == {}
    multi = KINDS.get("multi_label")
    spec = TaskSpec(name="m", kind="multi_label", labels=["a", "b"])
    assert multi.metrics([np.array([1.0, -1.0])], [np.zeros(2)], spec) == {}


def test_texts_without_words_cost_nothing() -> None:
    tokenizer = train_tokenizer(WORDS, 200, lowercase=True)
    example = Example("\u200b")
    target = TAGGING.collate([TAGGING.target(example, tokenizer.encode(example.text), INDEX)], 3)
    logits = torch.randn(1, 3, 5, requires_grad=True)
    loss = TAGGING.loss(logits, target, 0.0)
    loss.backward()
    assert loss.item() == 0.0
    assert not logits.grad.any()


@given(st.lists(st.tuples(st.integers(0, 23), st.integers(1, 24), st.sampled_from("ab")), max_size=5))
def test_spans_held_against_themselves_are_all_right(spans: list[tuple[int, int, str]]) -> None:
    there = locate(TEXT, [span for span in spans if span[0] < span[1]])
    found = match(there, there)
    assert (found.wrong, found.missed) == (0, 0)
    assert found.f1 in {None, 1.0}


def test_the_score_of_a_span_is_held_against_whether_it_is_right() -> None:
    example = Example("send rome", spans=(Span(5, 9, "city"),))
    answers = [answered(example, (5, 9, "city"))] * 9 + [answered(example, (0, 4, "city"))]
    assert figures(*answers)["ece"] == pytest.approx(0.0, abs=1e-9)
    assert figures(*answers[5:])["ece"] == pytest.approx(0.1)
    assert figures(answered(example))["ece"] is None
