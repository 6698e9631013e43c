"""Calls on the candidate's side of an experiment: the candidate answers them, and the serving version what it does not."""

import pytest
from tiny_talker import write_talker

from murmura.runtime.batching.engine import Engine
from murmura.runtime.batching.queues.reply_lanes import ReplyLane
from murmura.runtime.errors import DeviceFailed, RecordError
from murmura.runtime.model.model import Model
from murmura.runtime.testing.fakes import FakeModel
from murmura.schemas.acts import Act, ActName, Utterance
from murmura.schemas.manifest import TaskSpec

INTENT = TaskSpec(name="intent", kind="classification", labels=["refund", "praise"])
MOOD = TaskSpec(name="mood", kind="classification", labels=["good", "bad"])


class World:
    def __init__(self, engine):
        self.engine, self.faults, self.lost = engine, [], []
        engine.on_lost = self.lost.append

    def load(self, **options):
        candidate = FakeModel([INTENT], version=2, **options)
        self.engine.load_candidate(candidate, None, self.faults.append)
        return candidate

    async def ask(self, text="hello", variant="candidate", **asked):
        found = await self.engine.on_side(variant).predict(text, **asked)
        return found.model[1], found.variant


@pytest.fixture
async def world():
    engine = Engine(FakeModel([INTENT, MOOD], version=1), token_budget=1000, max_in_flight=1)
    await engine.start()
    yield World(engine)
    await engine.stop(5)


async def test_each_side_is_answered_by_its_version(world):
    assert await world.ask() == (1, "current")
    candidate = world.load()
    assert (await world.ask(), await world.ask(variant="current")) == ((2, "candidate"), (1, "current"))
    assert world.engine.on_side("candidate").model is candidate
    world.engine.drop_candidate()
    assert await world.ask() == (1, "current")


async def test_the_serving_version_answers_what_the_candidate_does_not(world):
    world.load(broken=["bad"])
    assert await world.ask("bad") == (1, "current")
    assert await world.ask(tasks=("mood",)) == (1, "current")
    failed = [await world.engine.on_side("candidate").predict(text) for text in ("bad", "good")]
    assert [each.candidate_failed for each in failed] == [True, False]
    with pytest.raises(RecordError):
        await world.ask("")
    assert (await world.ask(), world.faults) == ((2, "candidate"), [])


@pytest.mark.parametrize("part", ["device", "tokenizer"])
async def test_a_candidate_that_breaks_is_unloaded_and_costs_no_call(world, part):
    candidate = world.load()
    if part == "device":
        candidate.device_works = False
    else:
        candidate.encode = lambda texts: 1 / 0
    assert await world.ask() == (1, "current")
    assert (len(world.faults), world.lost, world.engine.trouble, world.engine.candidate) == (1, [], None, None)
    assert isinstance(world.faults[0], DeviceFailed)


async def test_a_call_whose_candidate_is_dropped_while_its_text_is_tokenised_is_the_serving_versions(world):
    candidate = world.load()
    encode = candidate.encode

    def encode_and_drop(texts):
        world.engine._batcher._loop.call_soon_threadsafe(world.engine.drop_candidate)
        return encode(texts)

    candidate.encode = encode_and_drop
    assert await world.ask() == (1, "current")
    assert candidate.batches == []


async def test_a_reply_is_worded_by_the_version_of_its_side_and_by_the_serving_one_once_that_fails(
    tmp_path, monkeypatch
):
    engine = Engine(Model.load(write_talker(tmp_path / "desk"), device="cpu"), token_budget=600, reply_rows=4)
    candidate, faults = Model.load(tmp_path / "desk", device="cpu"), []
    candidate.manifest = candidate.manifest.model_copy(update={"version": 2})

    async def word(variant):
        said = (Utterance(role="user", text="refund my order please"),)
        found = await engine.on_side(variant).generate(said, (Act(act=ActName.REQUEST, slot="time"),), "reply")
        return found.text, found.model[1], found.variant

    await engine.start()
    try:
        text, version, _ = await word("current")
        engine.load_candidate(candidate, None, faults.append)
        assert await word("candidate") == (text, 2, "candidate")
        run_step = ReplyLane.run_step

        def fail_candidates(lane, **options):
            if lane.model is candidate:
                raise DeviceFailed("no device")
            return run_step(lane, **options)

        monkeypatch.setattr(ReplyLane, "run_step", fail_candidates)
        assert await word("candidate") == (text, version, "current")
        assert (len(faults), engine.trouble) == (1, None)
    finally:
        await engine.stop(5)
