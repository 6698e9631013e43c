"""What the holder of experiments emits when it does not know at once whether a release state took hold."""

from datetime import UTC, datetime, timedelta

import pytest

from murmura.runtime.errors import OutcomeUnknown
from murmura.runtime.experiment_holder import acting
from murmura.runtime.experiment_holder.acting import Actor
from murmura.runtime.settings.settings import Settings
from murmura.schemas.experiment import Experiment
from murmura.schemas.experiment_state import Decided
from murmura.schemas.release import released, started, stopped

AT = datetime(2026, 1, 2, tzinfo=UTC)
FIRST = released(None, "desk", 1, "0" * 64, by="ann", why="", at=AT)
RUNNING = started(FIRST, 2, "1" * 64, Experiment(id="e", share=0.1, started=AT), by="ann", why="", at=AT)
STOPPED = stopped(RUNNING, by="murmura serve", why="worse", at=AT + timedelta(hours=1))
OTHER = stopped(RUNNING, by="bob", why="", at=AT + timedelta(hours=1))
LATER = released(STOPPED, "desk", 3, "2" * 64, by="bob", why="", at=AT + timedelta(hours=2))


class Events(list):
    def emit(self, kind, **facts):
        self.append((kind.value, facts["version"]))


@pytest.mark.parametrize(("read", "emitted"), [(STOPPED, True), (LATER, True), (OTHER, False)])
async def test_the_event_of_a_state_that_took_hold_follows_once_it_is_read(monkeypatch, read, emitted):
    async def lose(*_, **__):
        raise OutcomeUnknown("the broker was lost")

    monkeypatch.setattr(acting, "publish_state", lose)
    events = Events()
    actor = Actor(Settings(), events)
    with pytest.raises(OutcomeUnknown):
        await actor.act(Decided(action="stop", why="worse", at=AT), RUNNING, STOPPED)
    actor.note_states({"desk": RUNNING})
    assert events == []
    for _ in range(2):
        actor.note_states({"desk": read})
    assert events == [("experiment.stopped", 2)] * emitted
