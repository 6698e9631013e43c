"""Long texts in windows: every token is read, and the windows' answers become one answer of the whole text."""

import itertools
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_model import WORDS, tiny_tokenizer

from murmura.runtime.model.decoding import sigmoid, softmax
from murmura.runtime.model.kinds.multi_label import MultiLabelDecoder
from murmura.runtime.model.model import Model
from murmura.runtime.model.texts.windows import WindowEncoder, Windows, merge_labels, merge_spans

LIMIT = 32


@pytest.fixture(scope="module")
def model(tiny_model):
    return Model.load(tiny_model, device="cpu")


@pytest.fixture(scope="module")
def cut():
    return WindowEncoder(tiny_tokenizer(), LIMIT)


def words(count, seed=0):
    return " ".join(np.random.default_rng(seed).choice(WORDS, count))


@settings(deadline=None, max_examples=60)
@given(count=st.integers(1, 400), overlap=st.integers(0, 14), seed=st.integers(0, 5))
def test_every_token_lies_in_a_window_and_neighbours_share_the_overlap(count, overlap, seed):
    text = words(count, seed)
    tokenizer = tiny_tokenizer()
    whole = tokenizer.encode(text, add_special_tokens=False)
    windows = WindowEncoder(tokenizer, LIMIT)(text, Windows(most=10_000, overlap=overlap))
    step, at, seen = LIMIT - 2 - overlap, 0, []
    for window in windows.windows:
        ids = window.ids[1:-1]
        assert ids == whole.ids[at : at + LIMIT - 2]
        assert window.encoding.offsets[1:-1] == whole.offsets[at : at + LIMIT - 2]
        seen += ids if not seen else ids[overlap:]
        at += step
    assert seen == whole.ids
    assert not windows.truncated
    assert windows.tokens == sum(window.tokens for window in windows.windows)


def test_windows_may_be_shorter_than_the_limit(cut):
    windows = cut(words(100), Windows(tokens=12, overlap=4)).windows
    assert {window.tokens for window in windows[:-1]} == {12}
    assert cut(words(100), Windows(tokens=1_000, overlap=4)).windows[0].tokens == LIMIT


def test_beyond_the_most_windows_the_rest_is_not_read_and_the_answer_says_so(cut):
    text = words(2_000)
    few = cut(text, Windows(most=3))
    assert (len(few.windows), few.truncated) == (3, True)
    assert [window.ids for window in cut(text, Windows(most=10_000)).windows[:3]] == [w.ids for w in few.windows]


def test_a_megabyte_is_cut_before_it_is_read(cut):
    windows = cut("lost " * 200_000, Windows(most=4))
    assert (len(windows.windows), windows.truncated) == (4, True)


def test_a_text_that_fits_is_answered_as_without_windows(model):
    texts = ["my card was lost", "please transfer 20 money to london"]
    plain = model.encode(texts)
    same = model.encode_windows(texts, [Windows(), None])
    assert [e.ids for e in same] == [e.ids for e in plain]


def answers(model, texts, windows):
    tasks = [tuple(model.tasks)] * len(texts)
    batch = model.encode_windows(texts, windows)
    return model.decode(model.run(batch), batch, texts, tasks)


def test_a_long_text_is_answered_the_same_alone_and_beside_others(model):
    long, short = words(300), "hello"
    alone = answers(model, [long], [Windows()])
    beside = answers(model, [short, long, words(40, 1), short], [Windows(), Windows(), Windows(), None])
    assert beside[1] == alone[0]
    assert beside[0] == beside[3] == answers(model, [short], [None])[0]


def test_many_windows_are_run_in_several_passes(model, monkeypatch):
    texts, windows = [words(300), "hello", words(200, 1)], [Windows(), None, Windows()]
    at_once = answers(model, texts, windows)
    sizes = []
    run = model.runner.run
    monkeypatch.setattr(model.runner, "run", lambda feeds: (sizes.append(len(feeds["input_ids"])), run(feeds))[1])
    monkeypatch.setattr("murmura.runtime.model.batch_rows._PASS_TOKENS", 3 * LIMIT)
    assert answers(model, texts, windows) == at_once
    assert len(sizes) > 4
    assert max(sizes) <= 3 * LIMIT


def test_rows_that_want_other_tasks_share_a_batch_with_windows(model):
    texts = [words(100), "hello", words(90, 2)]
    batch = model.encode_windows(texts, [Windows(), None, Windows()])
    wanted = [("intent",), ("intent", "entities"), ("entities", "topics")]
    found = model.decode(model.run(batch), batch, texts, wanted)
    every = answers(model, texts, [Windows(), None, Windows()])
    assert found == [{task: output[task] for task in tasks} for output, tasks in zip(every, wanted, strict=True)]


@pytest.mark.parametrize("merge", ["max", "mean"])
def test_the_scores_of_the_windows_become_the_score_of_the_text(model, merge):
    text = words(120, 3)
    batch = model.encode_windows([text], [Windows(merge=merge)])
    logits = model.run(batch)
    (found,) = model.decode(logits, batch, [text], [("sentiment", "topics")])
    scores = softmax(logits.values["sentiment"].astype(np.float64))
    expected = scores.mean(axis=0) if merge == "mean" else scores.max(axis=0) / scores.max(axis=0).sum()
    assert found["sentiment"]["score"] == pytest.approx(expected.max(), abs=1e-6)
    topics = sigmoid(logits.values["topics"].astype(np.float64))
    wanted = topics.mean(axis=0) if merge == "mean" else topics.max(axis=0)
    labels = {each["label"]: each["score"] for each in found["topics"]["labels"]}
    for label, score in zip(model.tasks["topics"].labels, wanted, strict=True):
        assert label not in labels or labels[label] == pytest.approx(score, abs=1e-6)


def test_one_window_that_is_sure_outweighs_many_that_are_out_of_scope():
    filler, relevant = [0.02, 0.03, 0.95], [0.9, 0.05, 0.05]
    merged = merge_labels(np.array([filler] * 20 + [relevant]), "max", out_of_scope=2)
    assert merged.argmax() == 0
    assert merge_labels(np.array([filler] * 20), "max", out_of_scope=2).argmax() == 2


class Extent:
    """A window that reads the characters from `start` to `end`."""

    def __init__(self, start, end):
        self.offsets, self.special_tokens_mask = [(0, 0), (start, end), (0, 0)], [1, 0, 1]


def span(start, end, label="place"):
    return {"label": label, "text": "x" * (end - start), "start": start, "end": end, "score": 0.9}


WINDOWS = [Extent(0, 100), Extent(60, 160), Extent(120, 220)]


def test_a_span_that_two_windows_see_is_taken_once():
    assert merge_spans([[span(70, 75)], [span(70, 75)], []], WINDOWS) == [span(70, 75)]


def test_a_span_is_taken_from_the_window_where_it_lies_farther_from_an_edge():
    near_edge, central = span(90, 100), span(90, 104, "time")
    assert merge_spans([[near_edge], [central], []], WINDOWS) == [central]


def test_a_window_is_not_believed_about_its_edge():
    """A word that is cut by the edge of a window is no entity because that window takes it for one."""
    assert merge_spans([[span(96, 100)], [], []], WINDOWS) == []


def test_the_ends_of_the_text_are_no_edges():
    first, last = span(0, 4), span(216, 220)
    assert merge_spans([[first], [], [last]], WINDOWS) == [first, last]


def bounded_spans(number):
    start, end = WINDOWS[number].offsets[1]
    one = st.integers(start, end - 1).flatmap(
        lambda at: st.integers(at + 1, min(at + 12, end)).map(lambda to: span(at, to))
    )
    return st.lists(one, max_size=6)


@given(st.tuples(*(bounded_spans(number) for number in range(3))))
def test_merged_spans_never_overlap_and_stand_in_order(found):
    merged = merge_spans(found, WINDOWS)
    assert all(one["end"] <= other["start"] for one, other in itertools.pairwise(merged))
    assert all(any(one in spans for spans in found) for one in merged)


def test_a_label_in_one_window_is_a_label_of_the_text(model):
    spec = model.tasks["topics"]
    assert isinstance(model._decoders["topics"], MultiLabelDecoder)
    text = words(200, 5)
    batch = model.encode_windows([text], [Windows()])
    logits = model.run(batch)
    scores = sigmoid(logits.values["topics"].astype(np.float64)).max(axis=0)
    (found,) = model.decode(logits, batch, [text], [("topics",)])
    assert {each["label"] for each in found["topics"]["labels"]} == {
        label for label, score in zip(spec.labels, scores, strict=True) if score >= spec.thresholds.label
    }


def test_a_text_that_is_full_of_spans_is_merged_in_no_time():
    windows = [Extent(start, start + 2000) for start in range(0, 64 * 1500, 1500)]
    found = [[span(at, at + 4) for at in range(*window.offsets[1], 5)] for window in windows]
    began = time.thread_time()
    merged = merge_spans(found, windows)
    assert [one["start"] for one in merged] == [*range(0, 63 * 1500 + 2000, 5)]
    assert time.thread_time() - began < 2
