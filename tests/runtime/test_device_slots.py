"""What starts next on the device: rules without a clock."""

import pytest

from murmura.runtime.batching.device.device_slots import DeviceSlots, Turn


def start(slots: DeviceSlots, *, texts: bool, replies: bool, in_flight: int = 0) -> Turn | None:
    """Start what comes first of what there is."""
    there = {Turn.PASS: texts, Turn.STEP: replies}
    for turn in slots.turns(in_flight):
        if there[turn]:
            slots.record(turn)
            return turn
    return None


def test_at_most_two_steps_come_between_two_passes_while_texts_wait():
    slots = DeviceSlots(1)
    turns = [start(slots, texts=True, replies=True) for _ in range(7)]
    assert turns == [Turn.STEP, Turn.STEP, Turn.PASS, Turn.STEP, Turn.STEP, Turn.PASS, Turn.STEP]


def test_steps_go_on_while_no_text_waits_and_a_text_that_comes_is_next():
    slots = DeviceSlots(2, steps_between_passes=3)
    assert [start(slots, texts=False, replies=True) for _ in range(5)] == [Turn.STEP] * 5
    assert start(slots, texts=True, replies=True) is Turn.PASS
    assert start(slots, texts=False, replies=False) is None


def test_nothing_starts_beside_as_many_runs_as_the_device_has_slots():
    assert start(DeviceSlots(2), texts=True, replies=True, in_flight=2) is None
    assert start(DeviceSlots(2), texts=True, replies=True, in_flight=1) is Turn.STEP


@pytest.mark.parametrize(("most", "steps"), [(0, 2), (4, 0)])
def test_a_device_without_slots_or_steps_is_refused(most, steps):
    with pytest.raises(ValueError, match="expected a slot and a step or more"):
        DeviceSlots(most, steps)
