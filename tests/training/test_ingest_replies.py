"""What people do with replies of the dialogue agent: their own words become rows of a task that generates."""

import random
from typing import Any

import pytest
from ingest_sets import make_in
from ingest_world import World

from murmura.runtime.errors import RecordError
from murmura.runtime.wire.feedback import check_form
from murmura.schemas.feedback import Feedback
from murmura.schemas.manifest import GenerationSpec, TaskSpec
from murmura.training.ingest.replies import take_off

INFORM = {"act": "inform", "slot": "date"}
REPLY = "It arrives on Monday, March 3."
VALUES = {"date": "Monday, March 3"}


@pytest.fixture
def make(tmp_path):
    return make_in(tmp_path)


def said(*texts: str) -> list[dict[str, str]]:
    return [{"role": ("user", "agent")[number % 2], "text": text} for number, text in enumerate(texts)]


def test_an_edit_becomes_a_row_of_turns_acts_and_the_reply_with_slots_for_its_values(make):
    world = World()
    world.reply("c", 1, "hello", "How can I help?", acts=[{"act": "greet"}])
    world.reply("other", 1, "good morning", "Hello!")
    this = world.reply("c", 2, "where is my card", REPLY, acts=[INFORM], slots=VALUES)
    world.reply("c", 3, "thanks", "You are welcome.")
    world.edit(this, " Your card comes on Monday, March 3. Take care! ")
    made = make(world)
    assert made.rows("reply") == [
        {
            "turns": said("hello", "How can I help?", "where is my card"),
            "acts": [INFORM],
            "slots": VALUES,
            "reply": "Your card comes on {date}. Take care!",
            "people": 1,
            "prediction_id": this,
            "conversation": made.rows("reply")[0]["conversation"],
        }
    ]
    assert made.manifest.counts == {"feedback": 1, "taking_back": 0, "used": 1}


@pytest.mark.parametrize(("expiry_ms", "seen"), [(None, 3), (3, 3), (2, 1)])
def test_turns_from_before_a_conversation_expired_are_no_part_of_a_row(make, expiry_ms, seen):
    world = World()
    world.reply("c", 1, "hello", "How can I help?")
    for number in (1, 2):
        world.reply("other", number, "good morning", "Hello!")  # each turn is a millisecond later
    world.edit(world.reply("c", 2, "where is my card", "On its way."), "It is on its way.")
    assert len(make(world, reply_expiry_ms=expiry_ms).rows("reply")[0]["turns"]) == seen


def test_turns_of_a_conversation_that_was_deleted_are_no_part_of_its_next_ones(make):
    world = World()
    for number, text in enumerate(("old", "older", "oldest"), 1):
        world.reply("c", number, text, "Hm?")
    world.reply("c", 1, "hello", "How can I help?")
    world.edit(world.reply("c", 2, "where is my card", "On its way."), "It is on its way.")
    assert make(world).rows("reply")[0]["turns"] == said("hello", "How can I help?", "where is my card")


def test_a_confirmed_reply_is_a_row_and_what_is_neither_right_nor_worded_is_a_preference(make):
    world = World()
    first = world.reply("c", 1, "where is my card", REPLY, acts=[INFORM], slots=VALUES)
    second = world.reply("d", 1, "hm", "Sorry?")
    world.edit(first)
    world.edit(second, verdict="down")
    world.edit(second, 0.3, verdict="reward", by="bob")
    made = make(world)
    assert [row["reply"] for row in made.rows("reply")] == ["It arrives on {date}."]
    assert [(row["text"], row["output"]["text"], row["verdict"]) for row in made.lines("preferences.jsonl")] == [
        ("hm", "Sorry?", "down"),
        ("hm", "Sorry?", "reward"),
    ]


def test_constants_are_slots_too_and_an_edit_that_still_holds_a_value_is_left_out(make):
    world = World()
    this, other = (world.reply(name, 1, "where is my card", REPLY, acts=[INFORM], slots=VALUES) for name in ("c", "d"))
    world.edit(this, "It takes five working days, so until Monday, March 3.")
    lost = world.edit(other, "It takes five working days, so until Tuesday.")
    made = make(world, constants={"days": "five working days"})
    assert [row["reply"] for row in made.rows("reply")] == ["It takes {days}, so until {date}."]
    assert made.left_out() == {lost: "holds_value"}


@pytest.mark.parametrize(
    ("value", "edit", "learned"),
    [
        ("dave", "Dave, we look for it.", False),
        ("Dave", "We told dave.", False),
        ("Dave Smith", "Dear Dave, we look for it.", False),
        ("dave smith", "We told Smith.", False),
        ("Dave", "Dave's money is there.", True),
        ("US", "Contact us.", True),
        ("The Corner Shop", "The money is there.", True),
    ],
)
def test_an_edit_with_a_part_of_a_value_is_left_out(make, value, edit, learned):
    world = World()
    lost = world.edit(world.reply("c", 1, "where is it", "Soon.", slots={"payee": value}), edit)
    assert make(world).left_out() == ({} if learned else {lost: "holds_value"})


HELLO, NEXT = "Hello, this is the desk (day/night).", "Is it {shop}* or another?"
ASK = {"act": "request", "slot": "shop"}


def reply_in_part(world: World, name: str, before: str, words: str, after: str, **change: Any) -> str:
    """Add a reply of which the policy says the words before and after those of the model itself."""
    text = " ".join(filter(None, (before, words, after)))
    start = len(before) + bool(before)
    part = {"start": start, "end": start + len(words), "acts": [ASK]}
    return world.reply(name, 1, "hi", text, acts=[{"act": "greet"}, ASK], slots=VALUES, part=part, **change)


@pytest.mark.parametrize(("before", "after"), [(HELLO, ""), ("", NEXT), (HELLO, NEXT)])
def test_of_a_reply_that_the_policy_words_in_part_itself_the_rest_is_learned_for_what_the_model_was_asked(
    make, before, after
):
    world, edits = World(), {}
    texts = ["Since Monday, March 3?", "Which one?", "Hello,  which?\nSay it.", before or "x", "(.*) \\s [a", "One"]
    for number, words in enumerate(texts):
        this = reply_in_part(world, f"c{number}", before, "When was it?", after)
        outside = [part.replace(" ", "  ") if number % 2 else part for part in (before, after)]
        world.edit(this, " ".join([outside[0], words, outside[1], ""]))
        edits[this] = words.replace("Monday, March 3", "{date}")
    confirmed = reply_in_part(world, "d", before, "It was on Monday, March 3.", after, wording="generated")
    world.edit(confirmed)
    made = make(world)
    assert made.left_out() == {}
    rows = {row["prediction_id"]: row for row in made.rows("reply")}
    assert {name: row["reply"] for name, row in rows.items()} == edits | {confirmed: "It was on {date}."}
    assert all(row["acts"] == [ASK] for row in rows.values())


def test_an_edit_of_the_policys_own_words_is_left_out_and_counted(make):
    world, left = World(), {}
    changed = ["When?", f"{HELLO} When?", f"When? {NEXT}", f"Oh. {HELLO} When? {NEXT}", f"{HELLO} When? {NEXT} Bye."]
    changed += [f"{HELLO.lower()} When? {NEXT}", f"{NEXT} When? {HELLO}", HELLO, f"{HELLO[:-1]} When? {NEXT}"]
    for number, text in enumerate(changed):
        lost = world.edit(reply_in_part(world, f"c{number}", HELLO, "When was it?", NEXT), text)
        left[lost] = "fixed_words"
    empty = world.edit(reply_in_part(world, "d", HELLO, "When was it?", NEXT), f"{HELLO} {NEXT}")
    made = make(world)
    assert made.left_out() == left | {empty: "wrong_form"}
    assert made.rows("reply") == []


def test_an_edit_of_a_reply_that_may_have_been_cut_is_left_out(make):
    world = World()
    lost = [world.edit(reply_in_part(world, "c", HELLO, "x" * (1999 - len(HELLO)), ""), f"{HELLO} When? {NEXT}")]
    lost.append(world.edit(world.reply("d", 1, "hi", "x" * 2000), "When?"))
    kept = world.reply("e", 1, "hi", "x" * 1999)
    world.edit(kept, "When?")
    made = make(world)
    assert made.left_out() == dict.fromkeys(lost, "cut_reply")
    assert [row["prediction_id"] for row in made.rows("reply")] == [kept]


def test_words_are_taken_off_in_time_that_grows_with_the_text_alone():
    text = " \n" * 100_000
    assert take_off(f"a {text} b c {text} d", f"a{text}", "d") == "b c"
    assert take_off("a b", "a b", "b") is None


def test_turns_before_a_judged_reply_have_all_of_what_was_said(make):
    world = World()
    reply_in_part(world, "c", HELLO, "When was it?", "")
    world.edit(world.reply("c", 2, "last week", "Good."), "Thank you.")
    assert make(world).rows("reply")[0]["turns"] == said("hi", f"{HELLO} When was it?", "last week")


def test_a_confirmed_reply_is_held_to_the_same(make):
    world = World()
    stated = world.edit(world.reply("c", 1, "how long", "It takes five working days."))
    answers = [world.reply(name, 1, "is it free", "It is.", wording="knowledge") for name in ("d", "e")]
    left = [world.edit(answers[0], "Yes."), world.edit(answers[1])]
    assert make(world).left_out() == {stated: "holds_value"} | dict.fromkeys(left, "reviewed_answer")


@pytest.mark.parametrize("value", ["Hello!", None])
def test_words_that_are_no_reply_of_a_conversation_are_left_out(make, value):
    world = World()
    words = {"reply": {"kind": "generation", "text": "Hi.", "score": 0.9, "finish": "end"}}
    lost = world.judge(world.ask("greet", words, second="user: hello"), value, task="reply")
    assert make(world).left_out() == {lost: "no_reply"}


def test_two_replies_to_one_text_are_worded_apart_and_two_wordings_of_one_contradict(make):
    world = World()
    one, two = (world.reply(name, 1, "hello", "How can I help?") for name in ("c", "d"))
    world.edit(one, "Hello! What can I do?")
    world.edit(two, "Good to see you. What is it?")
    third = world.reply("e", 1, "hello", "How can I help?")
    names = [world.edit(third, "Hi!", by="ann"), world.edit(third, "Hey!", by="bob")]
    made = make(world)
    assert sorted(row["reply"] for row in made.rows("reply")) == [
        "Good to see you. What is it?",
        "Hello! What can I do?",
    ]
    assert made.left_out() == dict.fromkeys(names, "contradiction")


def test_turns_go_back_to_the_first_that_is_not_known_and_not_further_than_four_exchanges(make):
    world = World()
    for number in range(1, 9):
        if number != 3:
            last = world.reply("c", number, f"turn {number}", f"reply {number}")
    world.edit(last, "My words.")
    fifth = world.reply("d", 5, "turn", "reply")
    world.edit(fifth, "Other words.")
    rows = {row["reply"]: row["turns"] for row in make(world).rows("reply")}
    texts = [f"{who} {number}" for number in range(4, 8) for who in ("turn", "reply")]
    assert rows == {"My words.": said(*texts, "turn 8"), "Other words.": said("turn")}


def test_a_reply_that_was_sent_again_counts_once_and_the_order_of_reading_changes_no_byte(make):
    world = World()
    for number in range(1, 7):
        this = world.reply(
            f"c{number % 3}", (number + 2) // 3, f"turn {number}", f"reply {number}", partition=number % 2
        )
        world.edit(this, f"words {'x' * number}", partition=number % 2)
    again = world.logs[world.topic("replies")][0]
    again.append(again[0]._replace(offset=len(again)))
    expected = make(world)
    assert len(expected.rows("reply")) == 6
    assert make(world, order=random.Random(3)).bytes() == expected.bytes()


def test_verdicts_on_another_task_of_a_reply_and_on_unreadable_replies_find_nothing(make):
    world = World()
    this = world.reply("c", 1, "hello", "How can I help?")
    wrong_task = world.edit(this, "refund", task="intent")
    broken = world.reply("d", 1, "hello", "Hi", metadata={}, source={"topic": 3})
    lost = world.edit(broken, "Hello!")
    assert make(world).left_out() == {wrong_task: "unknown_task", lost: "prediction_not_found"}


def feedback(value) -> Feedback:
    form = {"id": "f", "prediction_id": "0" * 32, "agent": "dialogue", "task": "reply", "verdict": "correction"}
    return Feedback.model_validate(form | {"value": value, "by": "ann", "at": "2025-01-31T12:00:00Z"})


def test_a_reply_may_be_worded_in_2000_characters_and_a_label_in_200():
    spec = GenerationSpec(context=3, acts=True, layers=1, slots=[])
    task = TaskSpec(name="reply", kind="generation", labels=["{end}", "a"], generation=spec)
    check_form(feedback("a" * 2000), task)
    for wrong in (["a"], " "):
        with pytest.raises(RecordError):
            check_form(feedback(wrong), task)
    with pytest.raises(ValueError, match="2001 characters: expected 1 to 2000"):
        feedback("a" * 2001)
    intent = TaskSpec(name="reply", kind="classification", labels=["a", "b"], open=True)
    with pytest.raises(RecordError, match="a label of more than 200 characters"):
        check_form(feedback("a" * 201), intent)
