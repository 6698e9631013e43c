from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pydantic import TypeAdapter
from tiny_model import tiny_tokenizer

from murmura.runtime.model.decoding import Rows, sigmoid, softmax
from murmura.runtime.model.kinds.classification import ClassificationDecoder
from murmura.runtime.model.kinds.multi_label import MultiLabelDecoder
from murmura.runtime.model.kinds.tagging import TaggingDecoder
from murmura.runtime.model.tag_sequences import legal_transitions, tag_runs, viterbi
from murmura.runtime.model.texts.tokenizing import word_spans
from murmura.schemas.manifest import Calibration, TaskSpec, Thresholds
from murmura.schemas.result import Output

OUTPUT: TypeAdapter[Any] = TypeAdapter(Output)
LABELS = ["card", "transfer", "refund", "other"]
TAGS = ["O", "B-place", "I-place", "B-time", "I-time"]
TOKENIZER = tiny_tokenizer()


def classification(**more: Any) -> ClassificationDecoder:
    return ClassificationDecoder(TaskSpec(name="t", kind="classification", labels=LABELS, **more))


def sentence_rows(*probabilities: list[float]) -> Rows:
    """Logits whose softmax is the given rows."""
    values = np.log(np.array(probabilities, np.float32))
    return Rows(values, np.arange(len(values) + 1), [], [""] * len(values))


def decode_one(
    decoder: ClassificationDecoder, row: list[float], thresholds: Thresholds | None = None
) -> dict[str, Any]:
    return decoder(sentence_rows(row), thresholds or Thresholds())[0]


def test_the_most_likely_label_wins_and_stands_first_among_three() -> None:
    answer = decode_one(classification(), [0.2, 0.5, 0.05, 0.25])
    assert (answer["label"], answer["abstained"], answer["reason"]) == ("transfer", False, None)
    assert answer["score"] == pytest.approx(0.5, abs=1e-6)
    assert [a["label"] for a in answer["alternatives"]] == ["transfer", "other", "card"]


def test_below_the_threshold_it_abstains_and_keeps_the_winners_score() -> None:
    answer = decode_one(classification(), [0.2, 0.5, 0.05, 0.25], Thresholds(accept=0.6))
    assert (answer["label"], answer["abstained"], answer["reason"]) == (None, True, "below_threshold")
    assert answer["score"] == pytest.approx(0.5, abs=1e-6)
    assert answer["alternatives"][0]["label"] == "transfer"


def test_a_score_that_reaches_the_threshold_is_accepted() -> None:
    assert not decode_one(classification(), [0.25, 0.25, 0.25, 0.25], Thresholds(accept=0.25))["abstained"]


def test_without_a_threshold_out_of_scope_abstains_when_it_is_most_likely() -> None:
    answer = decode_one(classification(out_of_scope="other"), [0.2, 0.25, 0.15, 0.4])
    assert (answer["label"], answer["abstained"], answer["reason"]) == (None, True, "out_of_scope")
    assert answer["score"] == pytest.approx(0.4, abs=1e-6)
    assert [a["label"] for a in answer["alternatives"]] == ["other", "transfer", "card"]


def test_a_low_out_of_scope_threshold_abstains_before_it_is_most_likely() -> None:
    answer = decode_one(classification(out_of_scope="other"), [0.1, 0.5, 0.1, 0.3], Thresholds(out_of_scope=0.3))
    assert (answer["reason"], answer["score"]) == ("out_of_scope", pytest.approx(0.3, abs=1e-6))
    assert [a["label"] for a in answer["alternatives"]][:2] == ["other", "transfer"]


def test_a_high_out_of_scope_threshold_lets_the_best_label_in_scope_win() -> None:
    answer = decode_one(classification(out_of_scope="other"), [0.1, 0.25, 0.05, 0.6], Thresholds(out_of_scope=0.7))
    assert (answer["label"], answer["abstained"]) == ("transfer", False)
    assert answer["score"] == pytest.approx(0.25, abs=1e-6)
    assert [a["label"] for a in answer["alternatives"]] == ["transfer", "other", "card"]


def test_in_scope_but_below_the_threshold_is_below_threshold_not_out_of_scope() -> None:
    limits = Thresholds(out_of_scope=0.7, accept=0.5)
    answer = decode_one(classification(out_of_scope="other"), [0.1, 0.25, 0.05, 0.6], limits)
    assert (answer["label"], answer["reason"]) == (None, "below_threshold")
    assert answer["alternatives"][0]["label"] == "transfer"


def test_temperature_softens_the_scores() -> None:
    sharp = decode_one(classification(), [0.9, 0.05, 0.03, 0.02])
    soft = decode_one(classification(calibration=Calibration(temperature=2.0)), [0.9, 0.05, 0.03, 0.02])
    want = softmax(np.log([0.9, 0.05, 0.03, 0.02]) / 2.0)[0]
    assert soft["score"] == pytest.approx(want, abs=1e-6)
    assert soft["score"] < sharp["score"]


def test_a_task_of_two_labels_has_two_alternatives() -> None:
    decoder = ClassificationDecoder(TaskSpec(name="t", kind="classification", labels=["no", "yes"]))
    assert [a["label"] for a in decode_one(decoder, [0.3, 0.7])["alternatives"]] == ["yes", "no"]


def test_multi_label_names_what_reaches_its_threshold_highest_first() -> None:
    decoder = MultiLabelDecoder(TaskSpec(name="t", kind="multi_label", labels=["a", "b", "c", "d"]))
    p = np.array([[0.6, 0.9, 0.4, 0.5], [0.1, 0.1, 0.1, 0.1]], np.float64)
    rows = Rows(np.log(p / (1 - p)), np.arange(3), [], ["", ""])
    first, second = decoder(rows, Thresholds(label=0.5, labels={"c": 0.3}))
    assert [(x["label"], round(x["score"], 3)) for x in first["labels"]] == [
        ("b", 0.9),
        ("a", 0.6),
        ("d", 0.5),
        ("c", 0.4),
    ]
    assert second["labels"] == []


@given(
    arrays(np.float32, (5, 4), elements=st.floats(-1e4, 1e4, width=32)), st.floats(0, 1), st.none() | st.floats(0, 1)
)
def test_every_output_is_of_the_contract(logits: Any, accept: float, out_of_scope: float | None) -> None:
    rows = Rows(logits, np.arange(6), [], [""] * 5)
    limits = Thresholds(accept=accept, out_of_scope=out_of_scope, label=accept)
    multi = MultiLabelDecoder(TaskSpec(name="t", kind="multi_label", labels=LABELS))
    for answer in [*classification(out_of_scope="other")(rows, limits), *multi(rows, limits)]:
        assert OUTPUT.validate_python(answer, strict=True).model_dump() == answer


@given(arrays(np.float64, (3,), elements=st.floats(-1e300, 1e300)))
def test_sigmoid_and_softmax_stay_within_zero_and_one(logits: Any) -> None:
    for values in (sigmoid(logits), softmax(logits)):
        assert ((values >= 0) & (values <= 1)).all()


# Tagging


def tagged(text: str, tags_by_word: list[str], *, doubt: float = 0.0) -> dict[str, Any]:
    """Decode logits that say these tags for the text's words; other sub-tokens say nonsense that must not count."""
    encoding = TOKENIZER.encode(text)
    logits = np.zeros((len(encoding.ids), len(TAGS)), np.float32)
    logits[:, TAGS.index("I-time")] = 50.0
    for (token, _, _), tag in zip(word_spans(encoding), tags_by_word, strict=True):
        logits[token] = 0.0
        logits[token, TAGS.index(tag)] = 20.0 - doubt
    decoder = TaggingDecoder(TaskSpec(name="t", kind="tagging", labels=TAGS))
    rows = Rows(logits, np.array([0, len(logits)]), [encoding], [text])
    answer = decoder(rows, Thresholds())[0]
    assert OUTPUT.validate_python(answer, strict=True).model_dump() == answer
    return answer


def spans(answer: dict[str, Any]) -> list[tuple[str, str, int, int]]:
    return [(s["label"], s["text"], s["start"], s["end"]) for s in answer["spans"]]


def test_a_span_runs_from_its_first_word_to_the_end_of_its_last() -> None:
    answer = tagged("transfer to north london on monday", ["O", "O", "B-place", "I-place", "O", "B-time"])
    assert spans(answer) == [("place", "north london", 12, 24), ("time", "monday", 28, 34)]


def test_neighbouring_spans_of_one_label_stay_apart() -> None:
    assert spans(tagged("london paris", ["B-place", "B-place"])) == [
        ("place", "london", 0, 6),
        ("place", "paris", 7, 12),
    ]


def test_a_span_may_end_with_the_text() -> None:
    assert spans(tagged("in london", ["O", "B-place"])) == [("place", "london", 3, 9)]


@pytest.mark.parametrize(
    ("text", "tags", "want"),
    [
        ("\U0001f600\U0001f600 in london", ["O", "O", "B-place"], ("place", "london", 6, 12)),
        ("in\r\n\tlondon", ["O", "B-place"], ("place", "london", 5, 11)),
        ("a\u00a0london\u3000now", ["O", "B-place", "O"], ("place", "london", 2, 8)),
        ("in cafe\u0301 now", ["O", "B-place", "O"], ("place", "cafe\u0301", 3, 8)),
        ("in caf\u00e9 now", ["O", "B-place", "O"], ("place", "caf\u00e9", 3, 7)),
        ("in \u4f26\u6566 now", ["O", "B-place", "I-place", "O"], ("place", "\u4f26\u6566", 3, 5)),
        ("in\x00\ufffd \u200blondon", ["O", "B-place"], ("place", "london", 6, 12)),
        ("\U0001f469\u200d\U0001f469\u200d\U0001f467 in london", None, ("place", "london", 9, 15)),
    ],
)
def test_offsets_are_code_points_of_the_original_text(text: str, tags: list[str] | None, want: tuple[Any, ...]) -> None:
    words = [text[start:end] for _, start, end in word_spans(TOKENIZER.encode(text))]
    chosen = tags or ["B-place" if word == "london" else "O" for word in words]
    found = spans(tagged(text, chosen))
    assert found == [want]
    assert text[found[0][2] : found[0][3]] == found[0][1]


def test_the_score_is_the_mean_of_the_words_probabilities() -> None:
    answer = tagged("north london", ["B-place", "I-place"], doubt=18.0)
    one = float(softmax(np.array([2.0, 0, 0, 0, 0]))[0])
    assert answer["spans"][0]["score"] == pytest.approx(one, abs=1e-6)


def test_an_inside_tag_without_its_beginning_is_repaired_to_the_most_likely_legal_sequence() -> None:
    decoder = TaggingDecoder(TaskSpec(name="t", kind="tagging", labels=TAGS))
    scores = np.array([[0.5, 0.4, 0.1, 0.0, 0.0], [0.1, 0.0, 0.9, 0.0, 0.0]])
    assert decoder.best_sequence(scores) == [1, 2]


def test_texts_without_entities_and_texts_without_words_have_no_spans() -> None:
    assert tagged("hello", ["O"])["spans"] == []
    assert tagged("  ", [])["spans"] == []


def test_rows_of_a_batch_do_not_mix() -> None:
    texts = ["hello", "in london", "", "paris"]
    encodings = [TOKENIZER.encode(t) for t in texts]
    lengths = [len(e.ids) for e in encodings]
    bounds = np.concatenate([[0], np.cumsum(lengths)])
    logits = np.zeros((bounds[-1], len(TAGS)), np.float32)
    logits[:, 0] = 5.0
    logits[bounds[1] + 2, 1] = 9.0
    logits[bounds[3] + 1, 1] = 9.0
    answers = TaggingDecoder(TaskSpec(name="t", kind="tagging", labels=TAGS))(
        Rows(logits, bounds, encodings, texts), Thresholds()
    )
    assert [[s["text"] for s in a["spans"]] for a in answers] == [[], ["london"], [], ["paris"]]


def legal(tags: list[str]) -> bool:
    before = "O"
    for tag in tags:
        if tag.startswith("I-") and before not in {"B-" + tag[2:], "I-" + tag[2:]}:
            return False
        before = tag
    return True


@given(st.integers(1, 12).flatmap(lambda n: arrays(np.float64, (n, 5), elements=st.floats(1e-9, 1.0))))
def test_no_sequence_is_ever_illegal(scores: Any) -> None:
    best = TaggingDecoder(TaskSpec(name="t", kind="tagging", labels=TAGS)).best_sequence(scores)
    assert legal([TAGS[t] for t in best])


@given(arrays(np.float64, (4, 5), elements=st.floats(-20.0, 0.0)))
def test_viterbi_finds_the_best_of_all_legal_sequences(emissions: Any) -> None:
    from itertools import product

    start = np.array([not t.startswith("I-") for t in TAGS])
    path = viterbi(emissions, start, legal_transitions(TAGS))
    every = (p for p in product(range(5), repeat=4) if legal([TAGS[t] for t in p]))
    best = max(sum(emissions[i, t] for i, t in enumerate(p)) for p in every)
    assert sum(emissions[i, t] for i, t in enumerate(path)) == pytest.approx(best)


@given(st.lists(st.sampled_from(TAGS), max_size=8))
def test_runs_of_a_legal_sequence_cover_every_tag_but_o(tags: list[str]) -> None:
    if not legal(tags):
        return
    covered = [i for _, first, last in tag_runs(tags) for i in range(first, last + 1)]
    assert covered == [i for i, tag in enumerate(tags) if tag != "O"]


def test_words_are_cut_at_blanks_and_punctuation_and_know_their_sub_tokens() -> None:
    encoding = TOKENIZER.encode("don't, xyz")
    assert [(encoding.tokens[t], s, e) for t, s, e in word_spans(encoding)] == [
        ("d", 0, 3), ("'", 3, 4), ("t", 4, 5), (",", 5, 6), ("x", 7, 10)
    ]  # fmt: skip
