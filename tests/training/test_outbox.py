"""What a run has to tell survives its process."""

from pathlib import Path

from murmura.training.retrain.outbox import LOG, Entry, Outbox


def entry(name: str) -> Entry:
    return Entry(name, "murmura.training", "run", "murmura.run.started.v1", "2026-01-01T00:00:00+00:00", "{}")


def test_what_was_not_acknowledged_is_there_again_in_its_order(tmp_path: Path):
    box = Outbox(tmp_path)
    for name in ("a", "b", "c"):
        assert box.add(entry(name))
    box.acknowledge()
    again = Outbox(tmp_path)
    assert again.unsent == 2
    assert again.first_unsent() == entry("b")


def test_the_same_thing_is_kept_once(tmp_path: Path):
    assert Outbox(tmp_path).add(entry("a"))
    assert not Outbox(tmp_path).add(entry("a"))
    assert Outbox(tmp_path).unsent == 1


def test_what_is_added_in_place_of_a_lost_entry_is_sent(tmp_path: Path):
    box = Outbox(tmp_path)
    for name in ("a", "b"):
        box.add(entry(name))
        box.acknowledge()
    (tmp_path / LOG).write_bytes((tmp_path / LOG).read_bytes()[:-3])
    again = Outbox(tmp_path)
    assert (again.unsent, again.first_unsent()) == (0, None)
    again.add(entry("b"))
    for box in (again, Outbox(tmp_path)):
        assert box.first_unsent() == entry("b")


def test_a_line_that_a_kill_cut_off_is_forgotten_and_those_before_it_are_not(tmp_path: Path):
    Outbox(tmp_path).add(entry("a"))
    with (tmp_path / LOG).open("a") as file:
        file.write('{"id": "b", "topi')
    box = Outbox(tmp_path)
    assert box.unsent == 1
    box.add(entry("b"))
    assert Outbox(tmp_path).unsent == 2
