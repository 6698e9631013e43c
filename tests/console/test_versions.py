"""Versions: what is kept of topics, and what is refused when somebody releases."""

import asyncio
import json
import re
from datetime import UTC, datetime
from threading import Event
from types import SimpleNamespace

import pytest
from aiokafka.errors import KafkaConnectionError
from screens_by_hand import ByHand
from structlog.testing import capture_logs
from test_live import browse
from tiny_model import TASKS, write_tiny_model

from murmura.console.review.live import make_reviews
from murmura.console.versions import changes as console_changes
from murmura.console.versions.changes import ReleaseChanges
from murmura.console.versions.index import KEPT_EVENTS, MOST_MODELS, VersionIndex
from murmura.console.versions.labels import ReleasedLabels
from murmura.runtime.errors import SetupError
from murmura.runtime.kafka.embedded_broker import EmbeddedBroker
from murmura.runtime.release import states as release_states
from murmura.runtime.release.changes import publish_next
from murmura.runtime.release.store import ModelStore
from murmura.runtime.settings.settings import Settings
from murmura.schemas.release import ReleaseState, released, shadowed
from murmura.schemas.training_event import TrainingEvent, TrainingEventKind

AT = datetime(2026, 1, 2, tzinfo=UTC)


def state(version: int, before: ReleaseState | None = None, name: str = "desk") -> ReleaseState:
    return released(before, name, version, "0" * 64, by="ann", why="better", at=AT)


def record(value: object, key: str = "desk"):
    raw = value.model_dump_json().encode() if hasattr(value, "model_dump_json") else value
    return SimpleNamespace(key=key.encode(), value=raw)


def test_the_index_keeps_the_highest_generation_and_is_bounded():
    index = VersionIndex()
    first, second = state(1), state(2, state(1))
    index.take_releases([record(first), record(second), record(first), record(b"{")])
    assert index.states == {"desk": second}
    index.take_releases([record(state(1, name=f"m{number}"), f"m{number}") for number in range(MOST_MODELS + 5)])
    assert len(index.states) == MOST_MODELS
    event = {"event": "paused", "app": "a", "at": "2026-01-01T00:00:00Z"}
    index.take_events([record(json.dumps(event).encode())] * (KEPT_EVENTS + 1) + [record(b"x")])
    assert len(index.events("desk")) == KEPT_EVENTS


def test_events_of_a_busy_model_do_not_displace_those_of_another():
    index = VersionIndex()

    def take(name, version):
        event = {"event": "model.swapped", "app": "a", "at": "2026-01-01T00:00:00Z", "version": version}
        index.take_events([record(json.dumps(event | {"name": name}).encode())])

    take("desk", 2)
    for version in range(KEPT_EVENTS + 5):
        take("busy", version)
    index.take_events([record(json.dumps({"event": "paused", "app": "a", "at": "2026-01-01T00:00:00Z"}).encode())])
    assert [each.event.value for each in index.events("desk")] == ["paused", "model.swapped"]
    assert [each.version for each in index.events("busy")][:3] == [None, KEPT_EVENTS + 4, KEPT_EVENTS + 3]
    for number in range(MOST_MODELS + 5):
        take(f"m{number}", 1)
    assert index.events(f"m{MOST_MODELS + 4}") == index.events("none")


def test_the_table_of_the_gate_stays_when_the_run_goes_on():
    index = VersionIndex()
    figure = {"current": 0.5, "candidate": 0.6, "difference": 0.1, "low": 0, "high": 0.2, "allowance": 0.01}
    row = {"task": "intent", "set": "test", "rows": 100, "verdict": "better", **figure}
    passed = TrainingEvent(event=TrainingEventKind.GATE_PASSED, run="r", name="desk", gate=[row], version=3, at=AT)
    done = TrainingEvent(event=TrainingEventKind.RELEASED, run="r", name="desk", version=3, generation=2, at=AT)
    index.take_training([record(passed), record(done), record(b"")])
    assert (index.run("desk"), index.gate("desk")) == (done, passed)


@pytest.fixture
def make_desk(tmp_path):
    """A console on a broker in process, with a store of two versions and none released."""
    for seed in (1, 2):
        write_tiny_model(tmp_path / f"m{seed}", TASKS[:1], seed=seed, name="desk")
        ModelStore(tmp_path / "store").push(tmp_path / f"m{seed}")
    with EmbeddedBroker({"murmura.models": 1, "murmura.events": 1}) as broker:
        yield lambda **console: ByHand(
            kafka={"bootstrap_servers": broker.bootstrap, "fetch_max_wait_ms": 100},
            model={"store": str(tmp_path / "store"), "name": "desk"},
            console=console,
        )


def test_without_javascript_a_version_is_released_and_taken_back_with_a_reason(make_desk):
    browser = browse(make_desk())
    assert "none is released" in browser.get("/versions").text
    assert browser.get("/versions/desk/rollback").status_code == 409
    assert browser.get("/versions/desk/release?version=9").status_code == 404
    assert browser.get("/versions/other").status_code == 404
    form = {"version": "1", "generation": "0", "why": "the <b>first</b>"}
    assert 'name="generation" value="0"' in browser.get("/versions/desk/release?version=1").text
    assert "say why" in browser.post("/versions/desk/release", data=form | {"why": " "}).text
    assert browser.post("/versions/desk/release", data=form).headers["location"] == "/versions/desk"
    refused = browser.post("/versions/desk/release", data=form | {"version": "2"})
    assert refused.status_code == 409
    assert "is at generation 1" in refused.text
    assert browser.post("/versions/desk/release", data=form | {"version": "2", "generation": "1"}).status_code == 303
    page = browser.get("/versions/desk").text
    assert "Go back to 1" in page
    assert "the &lt;b&gt;first" in page
    assert browser.post("/versions/desk/rollback", data={"generation": "2", "why": "worse"}).status_code == 303
    assert re.search("<strong>1</strong>, generation 3", browser.get("/versions/desk").text)


def test_what_runs_beside_the_current_version_is_shown_and_stopped(make_desk):
    made = make_desk()
    browser = browse(made)
    for version in ("1", "2"):
        form = {"version": version, "generation": str(int(version) - 1), "why": "new"}
        browser.post("/versions/desk/release", data=form)
    assert browser.get("/versions/desk/stop").status_code == 409

    def begin(state: ReleaseState | None) -> ReleaseState:
        return shadowed(state, 1, state.history[0].digest, 0.05, by="ann", why="", at=AT)

    _, state = asyncio.run(publish_next(made.settings, "desk", begin))
    made.versions.note_release(state)
    assert "is compared with 2 on 5 % of the requests" in browser.get("/versions/desk").text
    assert "version 1 ends" in browser.get("/versions/desk/stop").text
    assert browser.post("/versions/desk/stop", data={"generation": "3", "why": "slow"}).status_code == 303
    page = browser.get("/versions/desk").text
    assert "no other version" in page
    assert "candidate 1 stopped" in page


def test_a_version_that_is_current_is_not_released_again_in_silence(make_desk):
    browser = browse(make_desk())
    form = {"version": "1", "generation": "0", "why": "new"}
    assert browser.post("/versions/desk/release", data=form).status_code == 303
    assert "is the current one already" in browser.post("/versions/desk/release", data=form | {"generation": "1"}).text


def test_who_releases_is_not_told_that_nothing_changed_where_that_is_not_known(make_desk, monkeypatch):
    async def lose_the_broker(*_):
        raise KafkaConnectionError("gone")

    monkeypatch.setattr(release_states, "_restore_winner", lose_the_broker)
    made = make_desk()
    answer = browse(made).post("/versions/desk/release", data={"version": "1", "generation": "0", "why": "new"})
    assert (answer.status_code, "Nothing was changed" in answer.text) == (504, False)
    assert "Look at the history" in answer.text
    assert asyncio.run(release_states.read_states(made.settings.kafka, "murmura.models"))["desk"].current.version == 1


def test_who_may_only_read_changes_no_release(make_desk):
    reader = browse(make_desk(read_only=True))
    assert reader.get("/versions/desk/release?version=1").status_code == 403
    assert (
        reader.post("/versions/desk/release", data={"version": "1", "generation": "0", "why": "x"}).status_code == 403
    )
    assert "Release…" not in reader.get("/versions").text


def test_a_store_that_hangs_is_not_waited_for(make_desk, monkeypatch):
    from time import sleep

    monkeypatch.setattr(console_changes, "_STORE_S", 0.05)
    monkeypatch.setattr(console_changes, "open_store", lambda *_: sleep(0.3))
    assert "did not answer within 0.05 s" in browse(make_desk()).get("/versions").text


def test_what_is_renewed_every_few_seconds_does_not_look_into_the_store(make_desk, monkeypatch):
    opened, open_store = [], console_changes.open_store
    monkeypatch.setattr(console_changes, "open_store", lambda *of: opened.append(of) or open_store(*of))
    browser = browse(make_desk())
    assert browser.get("/versions", headers={"hx-request": "true"}).status_code == 200
    assert opened == []
    assert "<option>2</option>" in browser.get("/versions").text


async def test_looks_into_a_store_that_hangs_are_bounded_and_take_up_no_worker(monkeypatch):
    store = Event()
    monkeypatch.setattr(console_changes, "_STORE_S", 0.01)
    monkeypatch.setattr(console_changes, "open_store", lambda *_: store.wait(5))
    changes = ReleaseChanges(Settings())
    for _ in range(console_changes._MOST_LOOKS):
        with pytest.raises(SetupError, match="did not answer"):
            await changes.versions("desk")
    with pytest.raises(SetupError, match="has not answered 4 looks"):
        await changes.versions("desk")
    store.set()
    async with asyncio.timeout(5):
        while changes._looks:
            await asyncio.sleep(0.01)


async def test_reviews_take_the_labels_of_the_released_version_and_wait_for_them(tmp_path):
    write_tiny_model(tmp_path / "m", TASKS[:1], name="desk")
    ModelStore(tmp_path / "store").push(tmp_path / "m")
    settings = Settings(model={"store": str(tmp_path / "store"), "name": "desk"})
    reviews, index = make_reviews(settings), VersionIndex()
    assert reviews is not None
    labels = ReleasedLabels(reviews, index, ReleaseChanges(settings))
    index.note_release(state(7))  # the store has it not: it is asked again
    with capture_logs() as logs:
        await labels.look()
        await labels.look()
    assert (reviews.labelled.is_set(), len(logs)) == (False, 1)
    index.note_release(state(1, state(7)))
    await labels.look()
    assert reviews.labelled.is_set()
    assert list(reviews.tasks[TASKS[0].name].labels) == TASKS[0].labels
    assert make_reviews(Settings()) is None
