"""Rows of replies: pairs, whole dialogues and Schema-Guided Dialogue, with slots for values and acts from the list."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from murmura.runtime.errors import SetupError
from murmura.runtime.generation.reply_vocabulary import list_slots
from murmura.runtime.generation.slot_values import put_slots
from murmura.schemas.acts import Act, ActName
from murmura.schemas.manifest import GenerationSpec
from murmura.training.data.counts import RowLeftOut
from murmura.training.data.example import Example, Span
from murmura.training.data.files import read_rows
from murmura.training.data.formats.sgd import ACT_NAMES, COUNT, as_act
from murmura.training.data.replies import read_reply
from murmura.training.data.rules import Rules
from murmura.training.recipe.keys.reading import Columns, Reading

USER = {"role": "user", "text": "Is there a table?"}
PAIR = {
    "turns": [USER],
    "acts": [{"act": "offer", "slot": "restaurant"}, {"act": "offer", "intent": "Reserve"}, "goodbye"],
    "reply": " How about Luigi in Ulm? ",
    "slots": {"restaurant": "Luigi", "city": ["Ulm", "Bonn"]},
    "id": 7,
}
DIALOGUE = {
    "dialogue": "d1",
    "turns": [
        {"role": "agent", "text": "Hello!"},
        USER,
        {
            "role": "agent",
            "text": "At 5 in Ulm.",
            "acts": [{"act": "inform", "slot": "city"}],
            "slots": {"city": "Ulm", "time": 5},
        },
        {"role": "user", "text": "Thanks"},
        {"role": "agent", "text": "Bye", "acts": ["goodbye"]},
        {"role": "agent", "text": " ", "acts": ["goodbye"]},
    ],
    "channel": "chat",
}
LINE = {
    "dialogue_id": "train/1",
    "services": ["Flights_1"],
    "turns": [
        {"role": "user", "text": "A flight to Ulm", "acts": [["INFORM", "city", ["Ulm"]]], "slots": [["city", 12, 15]]},
        {
            "role": "system",
            "text": "I found 1 flight with 1 stop to Ulm. Shall I book it?",
            "acts": [
                ["OFFER", "stops", ["1"]],
                ["OFFER", "wifi", ["True"]],
                ["INFORM_COUNT", "count", ["1"]],
                ["OFFER_INTENT", "intent", ["BookFlight"]],
                ["REQ_MORE", "", []],
            ],
            "slots": [["city", 32, 35]],
        },
    ],
}
PUBLISHED = [
    {
        "dialogue_id": "train/1",
        "services": ["Flights_1"],
        "turns": [
            {"speaker": "USER", "utterance": "A flight to Ulm", "frames": []},
            {
                "speaker": "SYSTEM",
                "utterance": LINE["turns"][1]["text"],
                "frames": [
                    {
                        "service": "Flights_1",
                        "slots": [{"slot": "city", "start": 32, "exclusive_end": 35}],
                        "actions": [
                            {"act": act, "slot": slot, "values": values, "canonical_values": values}
                            for act, slot, values in LINE["turns"][1]["acts"]
                        ],
                    }
                ],
            },
        ],
    }
]


def with_reply(**changes: Any) -> dict[str, Any]:
    """Return LINE with another turn of the system."""
    return {**LINE, "turns": [LINE["turns"][0], {**LINE["turns"][1], **changes}]}


def read(folder: Path, *items: Any, acts: bool = True, form: str | None = None, name: str = "x.jsonl") -> list[Example]:
    (folder / name).write_text("".join(json.dumps(item) + "\n" for item in items))
    sizes = GenerationSpec(context=2, acts=acts, layers=1, slots=[])
    reading = Reading(format=form)
    rules = Rules(reading, Columns(), None, None, generation=sizes)
    return [read_reply(row, rules) for row in read_rows(folder / name, reading) if row.left_out is None]


def refusal(folder: Path, *items: Any, **keys: Any) -> str:
    with pytest.raises(SetupError) as caught:
        read(folder, *items, **keys)
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix(f"{folder}/")


def test_a_row_is_turns_acts_and_a_reply_with_slots_for_values(tmp_path):
    [example] = read(tmp_path, PAIR)
    assert example.given == ("offer to reserve, restaurant; goodbye", "user: Is there a table?", False)
    assert example.reply == "How about {restaurant} in {city}?"
    assert example.acts == (
        Act(act=ActName.OFFER, slot="restaurant"),
        Act(act=ActName.OFFER, intent="Reserve"),
        Act(act=ActName.GOODBYE),
    )
    assert example.meta == {"id": 7}


def test_acts_may_be_missing_where_the_task_reads_none(tmp_path):
    row = {"turns": [USER], "reply": "Yes, in {city}."}
    assert [(e.text, e.reply, e.acts) for e in read(tmp_path, row, acts=False)] == [("", "Yes, in {city}.", ())]
    assert "column 'acts' is missing" in refusal(tmp_path, row)


def test_a_dialogue_is_a_row_for_each_reply_that_has_turns_before_it(tmp_path):
    first, second = read(tmp_path, DIALOGUE, form="dialogues")
    assert (first.second, first.reply) == ("agent: Hello!\nuser: Is there a table?", "At {time} in {city}.")
    assert (second.second, second.reply) == ("agent: At 5 in Ulm.\nuser: Thanks", "Bye")
    assert first.place != second.place
    assert first.meta == second.meta == {"dialogue": "d1", "channel": "chat"}


def test_empty_replies_and_dialogues_without_one_are_left_out_as_such(tmp_path):
    (tmp_path / "x.jsonl").write_text(json.dumps(DIALOGUE) + "\n" + json.dumps({"turns": [USER]}))
    rows = [*read_rows(tmp_path / "x.jsonl", Reading(format="dialogues"))]
    assert [row.left_out for row in rows] == [None, None, RowLeftOut.NO_REPLY, RowLeftOut.NO_REPLY]


@pytest.mark.parametrize("blank", ["", " ", "\n\t"])
def test_blank_turns_are_left_out_and_a_reply_with_no_others_before_it_is_counted(tmp_path, blank):
    turns = [{"role": "user", "text": blank}, {"role": "agent", "text": "Hello!", "acts": []}, *DIALOGUE["turns"][1:3]]
    (tmp_path / "x.jsonl").write_text(json.dumps({"turns": turns}))
    rows = [*read_rows(tmp_path / "x.jsonl", Reading(format="dialogues"))]
    assert [row.left_out for row in rows] == [RowLeftOut.NO_CONTEXT, None]
    [example] = read(tmp_path, {"turns": turns}, form="dialogues")
    assert example.second == "agent: Hello!\nuser: Is there a table?"


@pytest.mark.parametrize(("items", "name"), [([LINE], "x.jsonl"), ([PUBLISHED], "x.json")])
def test_schema_guided_dialogues_are_read_as_published_and_as_lines(tmp_path, items, name):
    [example] = read(tmp_path, *items, form="sgd", name=name)
    assert example.reply == "I found {count} flight with {stops} stop to {city}. Shall I book it?"
    assert example.text == "inform count; offer to book flight, stops, wifi; request more"
    assert example.second == "user: A flight to Ulm"
    assert example.meta == {"dialogue": "train/1", "services": ["Flights_1"]}


def as_sgd_act(act: Act) -> tuple[str, str]:
    """Return name and slot of the act of the data set that was read."""
    if act.act is ActName.OFFER and act.intent is not None:
        return "OFFER_INTENT", "intent"
    if act.act is ActName.INFORM and act.slot == COUNT:
        return "INFORM_COUNT", COUNT
    return next(name for name, each in ACT_NAMES.items() if each is act.act), act.slot or ""


@pytest.mark.parametrize("name", ACT_NAMES)
def test_acts_of_schema_guided_dialogue_are_mapped_without_loss(name):
    slot = {"INFORM_COUNT": "count", "OFFER_INTENT": "intent"}.get(name, "city")
    bare = [""] if name.startswith(("NOTIFY", "REQ_MORE", "GOODBYE")) else []
    for each in [slot, *bare]:
        assert as_sgd_act(as_act(name, each, ["Reserve"])) == (name, each)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reply": ""}, "x.jsonl:1: the reply is empty"),
        ({"reply": None}, "column 'reply' is missing"),
        ({"reply": 5}, "the reply is int"),
        ({"reply": "a \ud800"}, "the reply has a lone surrogate"),
        (
            {"reply": f"In {{{'a' * 101}}}."},
            "is no name of a slot: expected letters, digits and `_`, no digit first, at most 100",
        ),
        ({"turns": []}, "'turns' should be a list of turns before the reply, found []"),
        ({"turns": ["hello"]}, "a turn should be"),
        ({"turns": [{"role": "bot", "text": "x"}]}, "a turn should be"),
        ({"turns": [{"role": "user"}]}, "the text of a turn is NoneType"),
        ({"acts": "goodbye"}, "'acts' should be a list"),
        ({"acts": [5]}, "an act should be"),
        ({"acts": ["sing"]}, "no act 'sing'; expected one of greet, request, inform"),
        ({"acts": [{"act": ["greet"]}]}, "no act ['greet']"),
        ({"acts": [{"act": "inform", "slot": "two words"}]}, "'two words' is no name of a slot"),
        ({"acts": [{"act": "inform", "intent": ""}]}, "an act's 'intent'"),
        ({"acts": [{"act": "inform", "value": "x"}]}, "an act's 'value'"),
        ({"slots": ["Ulm"]}, "'slots' should be an object"),
        ({"slots": {"2nd": "Ulm"}}, "'2nd' is no name of a slot"),
        ({"slots": {"city": {"name": "Ulm"}}}, "a value of slot 'city' should be a text"),
    ],
)
def test_a_row_that_is_no_reply_is_one_line(tmp_path, change, message):
    assert message in refusal(tmp_path, {**PAIR, **change})


@pytest.mark.parametrize(
    ("item", "form", "message"),
    [
        ({"turns": "hello"}, "dialogues", "'turns' should be a list"),
        (
            {"turns": [USER, {"role": "agent", "text": None, "acts": []}]},
            "dialogues",
            "(turn 2): column 'reply' is missing",
        ),
        ({"turns": [USER, {"role": "agent", "text": "a"}]}, "dialogues", "(turn 2): column 'acts' is missing"),
        (PAIR, "sgd", "x.jsonl:1: no dialogue of Schema-Guided Dialogue"),
        ({**LINE, "turns": [{"role": "bot", "text": "a"}]}, "sgd", "KeyError: 'bot'"),
        ({**LINE, "turns": [{**LINE["turns"][1], "acts": [["SING", "", []]]}]}, "sgd", "KeyError: 'SING'"),
        ({**LINE, "turns": [{**LINE["turns"][1], "acts": ["SING"]}]}, "sgd", "no dialogue of Schema-Guided Dialogue"),
        (
            with_reply(acts=[["OFFER_INTENT", "intent", []]]),
            "sgd",
            "values of act 'OFFER_INTENT', for an intent at least one",
        ),
        (with_reply(acts=[["INFORM", "a-b", ["x"]]]), "sgd", "x.jsonl:1: 'a-b' is no name of a slot"),
        (with_reply(acts=[["INFORM", None, ["x"]]]), "sgd", "x.jsonl:1: None is no name of a slot"),
        (with_reply(acts=[["INFORM", "city", "Ulm"]]), "sgd", "expected a list of values of act 'INFORM'"),
        (with_reply(slots=[["a-b", 0, 1]]), "sgd", "x.jsonl:1: 'a-b' is no name of a slot"),
        (with_reply(slots=[["city", 0, 1000]]), "sgd", "expected a span within the 53 characters"),
        (with_reply(slots=[["city", -3, 1]]), "sgd", "expected a span within the 53 characters"),
        (with_reply(slots=[["city", None, 1]]), "sgd", "no dialogue of Schema-Guided Dialogue: TypeError"),
        ([1], "sgd", "no dialogue of Schema-Guided Dialogue"),
    ],
)
def test_a_line_that_is_no_dialogue_is_one_line(tmp_path, item, form, message):
    assert message in refusal(tmp_path, item, form=form)


def test_longer_values_come_first_and_words_are_whole():
    values = {"city": ["York"], "place": ["New York City"], "day": ["2"]}
    assert put_slots("New York City or York on the 2nd, 2", (), values) == "{place} or {city} on the 2nd, {day}"


@given(st.text("ab .{}5", max_size=20), st.lists(st.text("ab 5", max_size=3), max_size=3))
def test_no_value_is_left_as_a_word_outside_slots(text, values):
    found = put_slots(text, (), {"t": values})
    for value in filter(None, values):
        if value == value.strip() and "{" not in text and "}" not in text:
            words = found.replace("{t}", " ").split()
            assert value not in words or " " in value


@given(st.lists(st.sampled_from([" ", "in", "city", "5", "{city}", "{t}", "{", "}"]), max_size=12).map("".join))
def test_slots_that_a_text_has_already_stay_as_they_are(text):
    found = put_slots(text, [], {"t": ["city", "5", "t"]})
    assert put_slots(found, [], {"t": ["city", "5", "t"]}) == found
    assert [name for name in list_slots(text) if name == "city"] == [n for n in list_slots(found) if n == "city"]
    assert found.count("{") == text.count("{") + len(list_slots(found)) - len(list_slots(text))


def test_many_places_of_a_value_take_time_in_proportion():
    began = time.process_time()
    assert put_slots("a " * 20_000, (), {"x": ["a"]}) == "{x} " * 20_000
    assert time.process_time() - began < 2


def test_spans_come_before_values():
    assert put_slots("Ulm or Ulm", [Span(7, 10, "to")], {"city": ["Ulm", "or Ulm"]}) == "{city} or {to}"
