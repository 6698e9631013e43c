# ruff: noqa: F811 - fixtures are imported, and then named by the tests that take them
"""A candidate beside the current version: whatever becomes of it, its texts are answered and the device is not blamed."""

import asyncio
from dataclasses import replace

import pytest
from gated_model import GatedModel, Inbox, entries_of, model, start  # noqa: F401
from replying_model import ReplyingModel, use_replies

from murmura.runtime.batching.backlog import FAILED_IN_A_ROW
from murmura.runtime.batching.device.breaker import BreakerLimits
from murmura.runtime.batching.engine import Engine
from murmura.runtime.batching.queues.reply_lanes import ReplyLanes, StepResult
from murmura.runtime.batching.queues.version_queue import VersionTerms
from murmura.runtime.errors import Closed, DeviceFailed, ModelFailed

TERMS = VersionTerms(1000, 256, 4000)


class Taking(Inbox):
    """A sink that submits what it takes back for the current version, like the dispatcher."""

    def __init__(self, batcher, current):
        super().__init__()
        self.batcher, self.current, self.taken = batcher, current, []

    def take_back(self, entries):
        self.taken += entries
        for entry in entries:
            entry.model = self.current
        self.batcher.submit(entries)


@pytest.fixture
async def world(model, start):
    return put_beside(start(model, breaker=BreakerLimits(first_pause_s=0.01)), model, GatedModel(version=2))


def put_beside(batcher, model, candidate):
    faults, sink = [], Taking(batcher, model)
    batcher.load(candidate, TERMS, faults.append)

    def ask(*texts, of=candidate):
        entries = entries_of(of, sink, *texts)
        for entry in entries:
            entry.model = of
        batcher.submit(entries)

    return batcher, model, candidate, sink, faults, ask


async def until(condition):
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.001)


async def test_a_candidate_whose_device_check_fails_is_unloaded_and_the_current_version_answers_its_texts(world):
    batcher, model, candidate, sink, faults, ask = world
    candidate.gate.clear()
    ask("one", "two")
    await candidate.has_begun()
    ask("three")
    ask("four", of=model)
    candidate.device_works = False
    candidate.gate.set()
    await sink.holds(4)
    assert [str(fault) for fault in faults] == ["the device does not work"]
    assert sorted(entry.text for entry in sink.taken) == ["one", "three", "two"]
    assert all(entry.error is None and entry.model is model for entry in sink.entries)
    assert batcher.guard.trouble is None
    assert not batcher.backlog.policy.is_loaded(candidate)


async def test_a_text_that_only_a_candidate_fails_on_is_answered_by_the_current_version(world):
    batcher, model, candidate, sink, faults, ask = world
    candidate.broken = frozenset({"bad"})
    ask("good", "bad")
    await sink.holds(2)
    assert [entry.text for entry in sink.taken] == ["bad"]
    assert {entry.text: entry.model for entry in sink.entries} == {"good": candidate, "bad": model}
    assert (faults, batcher.guard.trouble) == ([], None)
    assert batcher.backlog.policy.is_loaded(candidate)


async def test_a_candidate_that_fails_on_every_record_is_unloaded_though_its_reference_sample_passes(world):
    batcher, model, candidate, sink, faults, ask = world
    texts = [f"text {number}" for number in range(FAILED_IN_A_ROW)]
    candidate.broken = frozenset(texts)
    for text in texts[:-1]:
        ask(text)
    await sink.holds(len(texts) - 1)
    assert faults == []
    ask(texts[-1])
    await until(lambda: len(sink.entries) == len(texts))
    assert (len(faults), batcher.guard.trouble, batcher.backlog.policy.is_loaded(candidate)) == (1, None, False)
    assert all(entry.error is None and entry.model is model for entry in sink.entries)


async def test_a_candidate_that_fails_on_every_record_is_unloaded_while_the_candidate_of_another_model_answers(world):
    batcher, _, candidate, sink, faults, ask = world
    other, others_faults = GatedModel(version=3), []
    batcher.load(other, TERMS, others_faults.append)
    texts = [f"text {number}" for number in range(FAILED_IN_A_ROW)]
    candidate.broken = frozenset(texts)
    for number, text in enumerate(texts):
        ask(text)
        ask("good", of=other)
        await until(lambda at_least=2 * number + 2: len(sink.entries) >= at_least)
    assert (len(faults), others_faults, batcher.backlog.policy.is_loaded(other)) == (1, [], True)


async def test_no_text_is_lost_where_the_owner_of_a_failing_candidate_raises(model, start):
    batcher, candidate, reported = start(model), GatedModel(version=2), []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context["exception"]))
    sink = Taking(batcher, model)
    batcher.load(candidate, TERMS, lambda fault: 1 / 0)
    candidate.device_works = False
    (entry,) = entries_of(candidate, sink, "one")
    entry.model = candidate
    batcher.submit([entry])
    await sink.holds(1)
    assert (sink.entries[0].error, sink.entries[0].model is model) == (None, True)
    assert [type(error) for error in reported] == [ZeroDivisionError]


async def test_a_candidate_whose_run_does_not_end_is_left_alone_and_the_current_version_answers_on(model, start):
    batcher, candidate, faults, lost = start(model, deadline_s=0.1), GatedModel(version=2), [], []
    batcher.on_lost, sink = lost.append, Taking(batcher, model)
    batcher.load(candidate, replace(TERMS, deadline_s=0.1), faults.append)
    candidate.gate.clear()
    entries = entries_of(candidate, sink, "running", "waiting")
    for entry in entries:
        entry.model = candidate
        batcher.submit([entry])
        await asyncio.sleep(0)
    await sink.holds(2)
    assert [entry.model is model and entry.error is None for entry in sink.entries] == [True, True]
    assert (len(faults), lost, batcher.guard.trouble) == (1, [], None)
    candidate.gate.set()
    batcher.submit(entries_of(model, sink, "another"))
    await sink.holds(3)
    assert [entry.text for entry in sink.entries].count("running") == 1


async def test_a_candidate_that_became_current_fails_like_any_current_version(world):
    batcher, model, candidate, sink, faults, ask = world
    batcher.swap(model, candidate, TERMS)
    candidate.device_works = False
    ask("one")
    await until(lambda: batcher.guard.trouble)
    assert (faults, sink.taken) == ([], [])
    candidate.device_works = True
    await sink.holds(1)


async def test_while_a_trial_runs_two_versions_with_texts_set_no_timer(model, start):
    batcher, other, sink = (
        start(model, breaker=BreakerLimits(first_pause_s=0.01), max_in_flight=2),
        GatedModel(),
        Inbox(),
    )
    batcher.load(other, TERMS)
    model.device_works = False
    held, late, beside = (entries_of(of, sink, text) for of, text in ((model, "a"), (model, "b"), (other, "c")))
    for entry, of in ((held[0], model), (late[0], model), (beside[0], other)):
        entry.model = of
    batcher.submit(held)
    async with asyncio.timeout(60):
        while batcher.guard.trouble is None:
            await asyncio.sleep(0.001)
        batcher.submit([*late, *beside])
        model.gate.clear()
        model.device_works = True
        while not batcher.in_flight:
            await asyncio.sleep(0.001)
    asked, wake_at = [], batcher.backlog.policy.wake_at
    batcher.backlog.policy.wake_at = lambda in_flight: asked.append(in_flight) or wake_at(in_flight)
    await asyncio.sleep(0.05)
    assert (batcher.guard.on_trial, len(asked)) == (True, 0)
    model.gate.set()
    await sink.holds(3)


async def test_a_candidate_that_becomes_current_while_a_batch_of_it_fails_stays_loaded(world):
    batcher, model, candidate, sink, faults, ask = world
    candidate.gate.clear()
    ask("one")
    await candidate.has_begun()
    batcher.swap(model, candidate, TERMS)
    candidate.device_works = False
    candidate.gate.set()
    await until(lambda: batcher.guard.trouble)
    assert batcher.backlog.policy.is_loaded(candidate)
    candidate.device_works = True
    await sink.holds(1)
    assert (sink.entries[0].model, sink.taken, faults) == (candidate, [], [])


async def test_the_texts_of_a_candidate_that_is_dropped_go_to_the_current_version_and_its_faults_to_nobody(world):
    batcher, model, candidate, sink, faults, ask = world
    candidate.gate.clear()
    ask("running")
    await candidate.has_begun()
    ask("waiting")
    batcher.drop_candidate(candidate)
    candidate.device_works = False
    candidate.gate.set()
    await sink.holds(2)
    assert sorted(entry.text for entry in sink.taken) == ["running", "waiting"]
    assert {entry.model for entry in sink.entries} == {model}
    assert (faults, batcher.guard.trouble) == ([], None)


async def test_a_reply_of_a_candidate_that_fails_is_returned_and_not_delivered_as_well(model, start, monkeypatch):
    use_replies(monkeypatch)
    batcher, model, candidate, sink, faults, ask = put_beside(start(model), model, ReplyingModel(version=2))

    def run(batch):
        candidate.device_works = [each.text for each in batch] != ["bad"]
        if len(batch) > 1 or not candidate.device_works:
            raise ModelFailed("not these")
        return [batch[0].text]

    candidate.run = run
    ask("good", "bad")
    await sink.holds(2)
    assert sorted(entry.text for entry in sink.taken) == ["bad", "good"]
    assert sorted((entry.text, entry.model is model) for entry in sink.entries) == [("bad", True), ("good", True)]
    assert all(entry.outputs for entry in sink.entries)
    assert (len(faults), batcher.guard.trouble) == (1, None)


async def test_a_reply_that_begins_as_the_device_is_lost_ends_once(start, monkeypatch):
    use_replies(monkeypatch)
    model, sink = ReplyingModel(), Inbox()
    batcher = start(model)
    run, lost = model.run, DeviceFailed("gone", lost=True)

    def fail(batch):
        if len(batch) > 1:
            raise ModelFailed("not together")
        if batch[0].text == "bad":
            raise lost
        return run(batch)

    model.run = fail
    batcher.submit(entries_of(model, sink, "good", "bad"))
    await until(lambda: len(sink.entries) == 2)
    await asyncio.sleep(0.01)
    assert sorted((entry.text, type(entry.error)) for entry in sink.entries) == [("bad", Closed), ("good", Closed)]


async def test_a_reply_of_a_candidate_that_is_dropped_during_its_step_is_answered_once_by_the_current_version(
    model, start, monkeypatch
):
    use_replies(monkeypatch)
    batcher, model, candidate, sink, faults, ask = put_beside(start(model), model, ReplyingModel(version=2))
    candidate.step_gate.clear()
    ask("one")
    await until(lambda: candidate.rows and batcher.in_flight)
    batcher.drop_candidate(candidate)
    candidate.step_error = DeviceFailed("gone")
    candidate.step_gate.set()
    await sink.holds(1)
    await until(lambda: not batcher.in_flight)
    assert [(entry.text, entry.model is model) for entry in sink.entries] == [("one", True)]
    assert (faults, batcher.guard.trouble) == ([], None)


async def test_no_reply_of_a_candidate_begins_once_it_has_failed(model, start, monkeypatch):
    use_replies(monkeypatch)
    batcher = start(model, max_in_flight=2, eager_in_flight=2, max_rows=1)
    batcher, model, candidate, sink, faults, ask = put_beside(batcher, model, ReplyingModel(version=2))
    candidate.gate.clear()
    ask("slow")
    await candidate.has_begun()
    ran = candidate.run
    candidate.run = lambda batch: (_ for _ in ()).throw(DeviceFailed("gone"))
    ask("failing")
    await sink.holds(1)
    candidate.run = ran
    candidate.gate.set()
    await sink.holds(2)
    assert [entry.text for entry in sink.taken] == ["failing", "slow"]
    assert {entry.model for entry in sink.entries} == {model}
    assert (len(faults), batcher.guard.trouble) == (1, None)
    assert not batcher.backlog.lanes.queued_rows


def test_a_reply_that_left_during_a_step_does_not_begin_again(monkeypatch):
    use_replies(monkeypatch)
    lanes, model = ReplyLanes(), ReplyingModel()
    entry, other = entries_of(model, None, "one", "two")
    lanes.begin(model, TERMS, [(entry, {"reply": None})])
    lane = lanes.claim_ready()
    assert lanes.drain(running=True) == [entry]
    lanes.begin(model, TERMS, [(other, {"reply": None})])
    assert lanes.finish(lane, StepResult(fault=DeviceFailed("gone"), again=[entry])) == ([], [])


async def test_each_model_decodes_as_many_replies_together_as_its_own_setting_says(monkeypatch):
    use_replies(monkeypatch)
    models = [ReplyingModel(), ReplyingModel()]
    first = Engine(models[0], token_budget=100, name="first", reply_rows=64)
    second = Engine(models[1], token_budget=100, name="second", reply_rows=8, beside=first)
    for engine in (first, second):
        await engine.start()
    for engine in (first, second):
        assert "reply" in (await engine.predict("hello", ["intent"])).outputs
    assert [model.rows for model in models] == [[64], [8]]
    await second.stop(1)
    await first.stop(1)


async def test_a_long_text_has_as_much_time_as_it_exceeds_the_budget_of_its_own_model(model, start):
    batcher, sink, slow = start(model, token_budget=1000, deadline_s=0.03), Inbox(), GatedModel(run_s=0.15)
    batcher.load(slow, VersionTerms(1, 256, 4, deadline_s=0.03))
    (entry,) = entries_of(slow, sink, "word " * 300)
    entry.model = slow
    batcher.submit([entry])
    await sink.holds(1)
    assert entry.error is None
