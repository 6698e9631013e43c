"""Where a text lies between train and held-out, and in which form a target stands."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from murmura.runtime.model.texts.words import trim_blanks
from murmura.runtime.testing.fakes import classified, labelled
from murmura.schemas.manifest import ModelManifest
from murmura.training.data.near_texts import near_form, near_id
from murmura.training.ingest.manifest import Options, TaskLabels, labels_of_model
from murmura.training.ingest.rules import UNITS, LeftOut, Unfit, held_out_below, row_of, target_of, unit_of

labels = st.text(st.characters(codec="utf-8"), min_size=1, max_size=40).filter(lambda text: text == trim_blanks(text))
texts = st.text(st.characters(codec="utf-8"), min_size=1, max_size=40)
TEXT_SPLIT, BY_TALK = Options(split="text"), Options()


def test_a_unit_is_the_same_for_ever():
    """Golden values: a data set of next year must hold out what this year's did."""
    assert unit_of(b"talk-1", b"any text", BY_TALK) == 918_426_870_167_605_642
    for text in ("Where is my card?", "where  is my card?\n", "ｗｈｅｒｅ is my card?"):
        assert unit_of(None, near_form(text), TEXT_SPLIT) == 3_451_380_423_698_008_419


@given(texts, texts)
def test_near_texts_have_one_id_and_others_have_not(one, other):
    assert near_id(near_form(one)) == near_id(near_form(f"  {one}\n"))
    assert (near_id(near_form(one)) == near_id(near_form(other))) == (near_form(one) == near_form(other))


@given(texts, texts, st.binary(min_size=1, max_size=20))
def test_a_conversation_decides_alone_where_there_is_one(one, other, key):
    one, other = near_form(one), near_form(other)
    assert unit_of(key, one, BY_TALK) == unit_of(key, other, BY_TALK)
    assert unit_of(None, one, BY_TALK) == unit_of(b"", one, BY_TALK) == unit_of(key, one, TEXT_SPLIT)


@given(st.floats(0, 0.9), st.floats(0, 0.9))
def test_what_a_small_share_holds_out_a_greater_one_does_too(share, more):
    small, great = sorted([share, more])
    assert 0 <= held_out_below(Options(heldout=small)) <= held_out_below(Options(heldout=great)) < UNITS


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5])
def test_about_the_share_is_held_out(share):
    options = Options(heldout=share, split="text")
    held = sum(unit_of(None, b"text %d" % n, options) < held_out_below(options) for n in range(4000))
    assert abs(held / 4000 - share) < 0.03


@given(st.lists(labels, unique=True, max_size=6), st.randoms())
def test_the_order_in_which_labels_were_given_does_not_matter(given_labels, order):
    shuffled = order.sample(given_labels, len(given_labels))
    one = target_of("correction", given_labels, labelled(), "text", None)
    assert one == target_of("correction", shuffled, labelled(), "text", None)
    assert row_of(one.kind, one.value) == {"label": sorted(given_labels)}


@pytest.mark.parametrize(
    ("output", "value", "padded"),
    [
        (classified("x"), "refund", " refund\t"),
        (labelled(), ["cards", "travel"], ["travel ", " cards", "cards"]),
        (
            {"kind": "tagging", "spans": []},
            [{"start": 0, "end": 2, "label": "city"}],
            [{"start": 0, "end": 2, "label": "city\u3000"}],
        ),
    ],
)
def test_white_space_around_a_label_is_no_part_of_it(output, value, padded):
    closed = TaskLabels(labels=["refund", "cards", "travel", "city"])
    assert target_of("correction", padded, output, "text", closed) == target_of(
        "correction", value, output, "text", closed
    )


@pytest.mark.parametrize(
    ("output", "value"),
    [
        (classified("x"), " "),
        (labelled(), ["cards", "\n"]),
        ({"kind": "tagging", "spans": []}, [{"start": 0, "end": 2, "label": " "}]),
    ],
)
def test_a_label_of_white_space_alone_is_none(output, value):
    with pytest.raises(Unfit) as raised:
        target_of("correction", value, output, "text", TaskLabels(labels=[], open=True))
    assert raised.value.reason == LeftOut.BLANK_LABEL


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 9), labels), max_size=5), st.integers(1, 40))
def test_spans_come_out_as_they_went_in_or_not_at_all(parts, length):
    spans = [{"start": start, "end": start + size, "label": label} for start, size, label in parts]
    output = {"kind": "tagging", "spans": []}
    inside = all(span["end"] <= length for span in spans)
    if inside:
        kind, target, _ = target_of("correction", spans, output, "x" * length, None)
        key = lambda span: (span["start"], span["end"], span["label"])  # noqa: E731
        assert sorted(row_of(kind, target)["spans"], key=key) == sorted(spans, key=key)
    else:
        with pytest.raises(Unfit) as raised:
            target_of("correction", spans, output, "x" * length, None)
        assert raised.value.reason == LeftOut.SPANS_OUTSIDE


def test_offsets_count_code_points():
    spans = [{"start": 2, "end": 6, "label": "city"}]
    assert target_of("correction", spans, {"kind": "tagging", "spans": []}, "🙂 rome", None)


@pytest.mark.parametrize("kind", ["ranking", None])
def test_a_kind_that_nobody_trains_has_no_target(kind):
    with pytest.raises(Unfit):
        target_of("correction", "refund", {"kind": kind}, "text", None)


def test_an_open_task_takes_new_labels_and_a_closed_one_does_not():
    output = classified("refund")
    assert target_of("correction", "new", output, "text", TaskLabels(labels=["refund"], open=True))
    with pytest.raises(Unfit):
        target_of("correction", "new", output, "text", TaskLabels(labels=["refund"]))
    with pytest.raises(Unfit):
        target_of("confirmed", None, classified("old"), "text", TaskLabels(labels=["refund"]))


def test_the_labels_of_a_model_are_those_that_corrections_name(tiny_model):
    manifest = ModelManifest.model_validate(json.loads((tiny_model / "manifest.json").read_text()))
    labels = labels_of_model(manifest)
    assert labels["entities"].labels == ["place", "time"]
    assert not labels["intent"].open
