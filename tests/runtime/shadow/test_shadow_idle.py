"""A shadow beside a busy device: it runs nothing, and what it cannot compare is dropped and counted."""

import asyncio
import random
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from murmura.runtime.agent.routes import make_routes
from murmura.runtime.batching.backlog import Backlog
from murmura.runtime.batching.queues.entry import Entry
from murmura.runtime.batching.queues.policy import BatchLimits
from murmura.runtime.batching.queues.version_queue import VersionTerms
from murmura.runtime.observe.metrics import Metrics
from murmura.runtime.settings.shadow import ShadowSettings
from murmura.runtime.shadow.messages import ShadowMessages
from murmura.runtime.shadow.pass_length import PassLength
from murmura.runtime.shadow.rows import Row, WaitingRows
from murmura.runtime.shadow.shadow import Shadow
from murmura.runtime.shadow.shared import Shared
from murmura.runtime.testing.fakes import FakeEncoded, classified
from murmura.schemas.shadow import ShadowRecord

from .conftest import AGENT, make_model, until

TERMS = VersionTerms(1000, 256, 4000, overhead_s=0.001, token_s=0.0001)
ROOM = 16_000
"""Bytes of a few rows."""
MOST_S = 0.005


class Device:
    def __init__(self):
        self.is_idle, self.callbacks = False, []

    def watch_idle(self, callback):
        self.callbacks.append(callback)
        return lambda: self.callbacks.remove(callback)

    def become(self, is_idle):
        self.is_idle = is_idle
        for callback in self.callbacks if is_idle else ():
            callback()


def entries_of(model, routes, names):
    made = []
    for name in names:
        record = SimpleNamespace(topic="in", partition=0, offset=1, timestamp=1)
        request = SimpleNamespace(request_id=name, source="in", text=name, text_pair=None)
        context = SimpleNamespace(record=record, request=request, asked=routes["in"].asked)
        entry = Entry(name, ("intent",), FakeEncoded(name, 512), None, context, None, model)
        entry.outputs = {"intent": classified("refund")}
        made.append(entry)
    return made


@settings(max_examples=25, deadline=None)
@given(st.lists(st.one_of(st.integers(1, 6), st.booleans()), max_size=12))
def test_it_runs_only_while_the_device_is_idle_and_every_record_is_accounted_for(events):
    async def main():
        device, model, sent, busy = Device(), make_model(2), [], []
        shared = Shared(
            ShadowSettings(max_waiting_bytes=ROOM), ShadowMessages("s", "test", "here"), sent.append, Metrics()
        )
        routes = make_routes([AGENT], model.manifest, "test")
        run = model.run
        model.run = lambda batch: busy.append(not device.is_idle) or run(batch)
        shadow = Shadow(model, 1.0, routes, TERMS, device, shared, lambda fault: pytest.fail(str(fault)))
        current, offered = make_model(1), 0
        for event in events:
            if isinstance(event, bool):
                await until(lambda: shared.running is None)
                device.become(event)
            else:
                offered += event
                shadow.offer(entries_of(current, routes, [f"t{n}" for n in range(event)]), current.manifest, ())
                assert shadow.waiting_bytes <= ROOM
            await asyncio.sleep(0)
        await until(lambda: shared.running is None)
        await shared.stop()
        found = [ShadowRecord.model_validate_json(message.value).root for message in sent]
        assert sum(counts.compared + counts.dropped for counts in found) == offered
        assert not any(busy)
        if True not in events:
            assert (model.batches, sum(counts.dropped for counts in found)) == ([], offered)

    asyncio.run(main())


class Clock:
    """A device that takes one pass at a time, in simulated time, with a shadow that sees its answers or without one."""

    def __init__(self, gap_s, *, shadow):
        self.backlog = Backlog(BatchLimits(100, 256, max_in_flight=1), 2)
        self.backlog.load("current", VersionTerms(100, 256, 400, "m", 1.0, 0.002, 0.0001))
        self.waiting, self.shadow = WaitingRows(ROOM), shadow
        self.dropped = self.passes = self.compared = 0
        draw, at = random.Random(5), 0.0
        self.arrivals = [at := at + draw.expovariate(1 / gap_s) for _ in range(2000)]

    def run(self):
        """Return the latency of each record."""
        now, free, ends, latencies, running = 0.0, 0.0, None, [], []
        arrivals = [*self.arrivals]
        while arrivals or running or not self.backlog.is_empty:
            while arrivals and arrivals[0] <= now:
                self.backlog.policy.push(
                    [Entry(arrivals.pop(0), (), SimpleNamespace(tokens=10), None, model="current")], now
                )
            if running and ends <= now:
                latencies += [now - entry.text for entry in running]
                for _ in running if self.shadow else ():
                    self.dropped += len(self.waiting.add(make_row()))
                running = []
            if not running and (job := self.backlog.take(now, 0)) is not None:
                running, ends = job.entries, max(now, free) + job.terms.seconds(job.tokens)
            elif not running and self.backlog.is_empty and len(self.waiting) and free <= now:
                rows, _ = self.waiting.take(TERMS, MOST_S, MOST_S)
                free = now + TERMS.seconds(sum(row.tokens for row in rows))
                self.passes, self.compared = self.passes + 1, self.compared + len(rows)
                assert free - now <= MOST_S
            now = min(
                at
                for at in (
                    ends if running else None,
                    arrivals[0] if arrivals else None,
                    free if free > now else None,
                    now + 1,
                )
                if at is not None and at > now
            )
        return latencies


def make_row():
    return Row(None, None, "text", object(), 10, ("intent",), {}, None, None)


def p99(latencies):
    return sorted(latencies)[int(0.99 * len(latencies))]


def test_on_a_saturated_device_the_p99_is_the_same_to_the_bit_and_on_an_idle_one_later_by_at_most_a_pass():
    saturated = [Clock(0.0001, shadow=shadow) for shadow in (False, True)]
    off, on = (clock.run() for clock in saturated)
    assert off == on
    assert saturated[1].dropped > 1900
    light = [Clock(0.02, shadow=shadow) for shadow in (False, True)]
    off, on = (clock.run() for clock in light)
    assert light[1].compared + light[1].dropped + len(light[1].waiting) == 2000
    assert light[1].compared > 1500
    assert p99(off) <= p99(on) <= p99(off) + MOST_S


def test_passes_become_shorter_where_they_are_slow_and_come_back_little_by_little():
    length = PassLength(0.005)
    assert length.allows(0.005, 0.0)
    assert not length.note(None)
    assert length.note(100.0), "a line says so once"
    assert not length.note(100.0)
    assert (length.pass_s, length.allows(0.00004, 0.0)) == (0.00005, True)
    assert [length.allows(0.002, at) for at in (0.0, 0.5, 1.1, 1.2)] == [True, False, True, False]
    for _ in range(40):
        length.note(0.9)
    assert length.pass_s == 0.005
