"""Which part a text lies in, and that the order of reading changes no byte."""

import json
import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ingest_sets import OUTPUTS, TEXT, feed, make_in
from ingest_world import World

from murmura.runtime.errors import SetupError
from murmura.training.ingest.earlier import earlier_sets
from murmura.training.ingest.join import Join
from murmura.training.ingest.manifest import Options
from murmura.training.ingest.rules import held_out_below, unit_of
from murmura.training.mix.corrections import check_whole


@pytest.fixture
def make(tmp_path):
    return make_in(tmp_path)


def test_a_conversation_lies_in_one_part(make):
    world = World()
    for n in range(400):
        world.judge(world.ask(f"text {n}", key=b"talk-%d" % (n // 10)), "refund")
    made = make(world, heldout=0.25)
    talk = {row["text"]: n // 10 for n in range(400) for row in [{"text": f"text {n}"}]}
    train = {talk[row["text"]] for row in made.rows()}
    heldout = {talk[row["text"]] for row in made.rows(part="heldout")}
    assert not train & heldout
    assert len(train | heldout) == 40
    assert 3 <= len(heldout) <= 18


def test_without_a_key_or_when_asked_texts_are_split_and_near_equal_ones_stay_together(make):
    world = World()
    for n in range(200):
        world.judge(world.ask(f"Text  number {n}", key=b"the only one"), "refund")
        world.judge(world.ask(f"text number {n}", OUTPUTS, key=b"the only one"), ["travel"], task="topics")
    made = make(world, heldout=0.25, split="text")
    both = ("intent", "topics")
    numbers = [
        {int(row["text"].split()[-1]) for task in both for row in made.rows(task, part)}
        for part in ("train", "heldout")
    ]
    assert not numbers[0] & numbers[1]
    assert 20 <= len(numbers[1]) <= 90
    assert len(make(world, heldout=0.25).rows()) in {0, 200}
    assert all("conversation" not in row for row in made.rows())  # keys are no conversations here


def test_a_text_once_trained_on_is_never_held_out_later(make):
    world = World()
    for n in range(60):
        world.judge(world.ask(f"text {n}", key=b"a%d" % n), "refund")
    before = {row["text"] for row in make(world, heldout=0.5).rows()}
    for n in range(60):
        world.judge(world.ask(f"text {n}", key=b"b%d" % n), "refund")
    after = {row["text"] for row in make(world, heldout=0.5).rows()}
    assert 10 < len(before) < len(after)
    assert before <= after


HALF = Options(heldout=0.5)
HELD_OUT, TRAINED = (
    next(key for n in range(99) if (unit_of(key := b"k%d" % n, b"", HALF) < held_out_below(HALF)) is wanted)
    for wanted in (True, False)
)


def test_spellings_of_one_text_never_lie_on_both_sides(make):
    world = World()
    world.judge(world.ask("Where is my card?", key=TRAINED), "refund")
    for text in ("where is  my card?", "where is my card?", "ＷＨＥＲＥ is my card?\n"):
        world.judge(world.ask(text, key=HELD_OUT), "refund")
    world.judge(world.ask("where is my other card?", key=HELD_OUT), "refund")
    made = make(world, heldout=0.5)
    assert [row["text"] for row in made.rows()] == ["ＷＨＥＲＥ is my card?\n"]
    assert len(made.rows(part="heldout")) == 1


def test_a_text_that_is_trained_on_for_one_task_is_held_out_for_none(make):
    world = World()
    world.judge(world.ask(TEXT, OUTPUTS, key=TRAINED), "refund")
    world.judge(world.ask(TEXT.upper(), OUTPUTS, key=HELD_OUT), ["travel"], task="topics")
    made = make(world, heldout=0.5)
    assert (len(made.rows()), len(made.rows("topics")), made.rows("topics", "heldout")) == (1, 1, [])


def test_what_was_withdrawn_still_keeps_its_text_from_being_held_out(make):
    world = World()
    taken_back = world.judge(world.ask("hello", key=TRAINED), "refund")
    world.judge(world.ask("hello", key=HELD_OUT), "refund", by="bob")
    assert len(make(world, heldout=0.5).rows()) == 1
    world.judge("0" * 32, taken_back, verdict="withdrawn")
    made = make(world, heldout=0.5)
    assert (len(made.rows()), made.rows(part="heldout")) == (1, [])


@pytest.mark.parametrize(
    ("keys", "texts", "options", "refused"),
    [
        (
            1,
            20,
            {},
            "all 20 judged texts have the same key, and texts with one key stay in one part: choose split by text",
        ),
        (3, 60, {}, "all 60 judged texts have one of 3 keys"),
        (1, 19, {}, None),
        (6, 300, {}, None),
        (1, 40, {"split": "text"}, None),
        (1, 40, {"heldout": 0.0}, None),
    ],
)
def test_a_few_keys_of_very_many_texts_are_no_conversations(keys, texts, options, refused, tmp_path):
    world = World()
    for n in range(texts):
        world.judge(world.ask(f"text {n}", key=b"key-%d" % (n % keys)), "refund")
    join = Join(tmp_path / "join.sqlite", world.plan(**{"heldout": 0.2} | options))
    feed(join, world, None)
    list(join.settle())
    found = join.settled.problem()
    join.close()
    assert found is None if refused is None else found.startswith(refused)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_the_order_in_which_partitions_are_read_changes_no_byte(make, data):
    world = World(partitions=3)
    predictions = [
        world.ask(f"text {n % 4}", OUTPUTS, key=None if n % 3 else b"k%d" % n, partition=n % 3) for n in range(12)
    ]
    for number in range(data.draw(st.integers(1, 25))):
        world.judge(
            data.draw(st.sampled_from([*predictions, "0" * 32])),
            value := data.draw(st.sampled_from(["refund", "praise", None, None, ["a"], " "])),
            verdict="down" if value is None and data.draw(st.booleans()) else None,
            by=data.draw(st.sampled_from(["ann", "bob"])),
            minute=data.draw(st.integers(0, 3)),
            consent=data.draw(st.integers(0, 4)) > 0,
            name=data.draw(st.sampled_from([None, None, f"g-{number // 2}"])),
            partition=data.draw(st.integers(0, 2)),
        )
    seeds = data.draw(st.lists(st.integers(0, 10_000), min_size=1, max_size=3))
    first = make(world, heldout=0.3).bytes()
    counts = json.loads(first["dataset.json"])["counts"]
    left = sum(amount for reason, amount in counts.items() if reason not in {"feedback", "used", "taking_back"})
    assert counts["feedback"] == counts["used"] + left
    for seed in seeds:
        assert make(world, heldout=0.3, order=random.Random(seed)).bytes() == first


def talks(count: int) -> World:
    """Conversations of two texts each."""
    world = World()
    for number in range(count):
        for turn in range(2):
            world.judge(world.ask(f"text {number} {turn}", key=b"talk %d" % number), "refund")
    return world


def sides(made) -> dict[str, str]:
    return {row["text"]: part for part in ("train", "heldout") for row in made.rows(part=part)}


@pytest.mark.parametrize("change", [{"heldout": 0.9}, {"heldout": 0.0}, {"split": "text", "heldout": 0.5}])
def test_texts_of_an_earlier_data_set_stay_in_their_part_whatever_changes(make, change):
    world = talks(40)
    before = make(world, heldout=0.3)
    earlier = earlier_sets([before.folder])
    assert sides(make(world, **change)) != sides(before)
    assert sides(make(world, earlier=earlier, **change)) == sides(before)
    world.judge(world.ask("  TEXT 0 0 "), "refund")
    spelled = sides(make(world, earlier=earlier, **change))
    assert spelled["  TEXT 0 0 "] == sides(before)["text 0 0"]
    assert "text 0 0" not in spelled


def test_a_conversation_of_an_earlier_data_set_stays_in_its_part_with_its_new_texts(make):
    world = talks(20)
    before = make(world, heldout=0.3)
    for number in range(20):
        world.judge(world.ask(f"more {number}", key=b"talk %d" % number), "refund")
    now = sides(make(world, heldout=0.9, earlier=earlier_sets([before.folder])))
    assert all(now[f"more {number}"] == sides(before)[f"text {number} 0"] for number in range(20))


def test_what_was_trained_on_in_one_of_several_earlier_data_sets_is_not_held_out(make):
    world = talks(10)
    one, two = make(world, heldout=0.0), make(world, heldout=0.99)
    for folders in ([one.folder, two.folder], [two.folder, one.folder]):
        assert set(sides(make(world, heldout=0.5, earlier=earlier_sets(folders))).values()) == {"train"}


def test_an_earlier_data_set_that_changed_or_is_none_is_refused(make, tmp_path):
    world = talks(4)
    before = make(world)
    earlier = earlier_sets([before.folder])
    (before.folder / "intent.train.jsonl").write_text("")
    with pytest.raises(SetupError, match="not the earlier data set that the plan names"):
        make(world, earlier=earlier)
    with pytest.raises(SetupError, match=r"no TASK\.train\.jsonl"):
        earlier_sets([tmp_path / "nothing"])


@pytest.mark.parametrize("line", [b"{", b'"text"', b"{}", b'{"text": 1}', b'{"text": "a", "conversation": 5}', b"\xff"])
def test_a_row_of_an_earlier_data_set_that_is_none_is_named_with_its_line(make, line):
    world = talks(4)
    before = make(world)
    file = before.folder / "intent.train.jsonl"
    file.write_bytes(file.read_bytes() + line + b"\n")
    last = len(file.read_bytes().splitlines())
    with pytest.raises(SetupError, match=rf"intent\.train\.jsonl:{last}: not a row that `murmura ingest` wrote"):
        make(world, earlier=earlier_sets([before.folder]))


@pytest.mark.parametrize(
    ("damage", "message"), [("remove", "is missing; dataset.json names it"), ("change", "is not what")]
)
def test_a_file_that_a_data_set_names_and_that_is_gone_or_changed_is_one_line(make, damage, message):
    folder = make(talks(4)).folder
    check_whole(folder)
    file = folder / "intent.train.jsonl"
    if damage == "remove":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes() + b"\n")
    with pytest.raises(SetupError, match=rf"intent\.train\.jsonl: .*{message}.*; ingest again"):
        check_whole(folder)


def test_a_new_text_of_a_kept_conversation_is_held_out_only_when_all_its_conversations_are(make):
    world = talks(20)
    before = make(world, heldout=0.5)
    held_out = [n for n in range(20) if sides(before)[f"text {n} 0"] == "heldout"]
    trained = [n for n in range(20) if n not in held_out]
    for number, (one, other) in enumerate(zip(held_out, trained, strict=False)):
        for key in (one, other):
            world.judge(world.ask(f"shared {number}", key=b"talk %d" % key), "refund", by=f"person {key}")
    now = sides(make(world, heldout=0.9, earlier=earlier_sets([before.folder])))
    assert {part for text, part in now.items() if text.startswith("shared")} == {"train"}
