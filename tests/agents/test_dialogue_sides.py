"""A conversation keeps its side of an experiment in its state, until it expires or the experiment ends."""

import pytest
from dialogue_process import POLICY, TASKS, Process, answers, turn

from murmura.runtime.experiments.unit_assignment import Assignment, RunningExperiment
from murmura.runtime.testing.fakes import FakeEngine, FakeModel
from murmura.schemas.dialogue import ConversationSide, ConversationState

PLACE = 0.5610
"""Of conversation c-1 in experiment spring, to four digits."""
EXPIRED = 24 * 3_600_000 + 1


class Candidate(FakeEngine):
    def make_prediction(self, *answered):
        return super().make_prediction(*answered, variant="candidate")


class TwoVersions(FakeEngine):
    """Version 1 serves, 2 is a candidate."""

    def __init__(self):
        super().__init__(FakeModel(TASKS, answers, version=1))
        self._candidate = Candidate(FakeModel(TASKS, answers, version=2))

    def on_side(self, variant):
        return self._candidate if variant == "candidate" else self


class World:
    """A process and what its releases say of an experiment."""

    def __init__(self, policy, log=()):
        self.running = None
        self.process = Process(policy, [*log], engine=TwoVersions(), experiment=lambda: self.running)
        self.process.agent.check(self.process.engine.on_side("candidate").model.manifest)

    def run(self, share, experiment="spring", *, is_loaded=True):
        self.running = RunningExperiment(Assignment(experiment, "key", share), is_loaded)

    async def hear(self, *arguments, **more):
        """Return the side in the state, and version and variant in the reply."""
        state, reply, *_ = await self.process.hear(turn(*arguments, **more))
        model = reply.value["model"]
        return ConversationState.model_validate_json(state.value).side, model["version"], model.get("variant")


@pytest.fixture
async def world(tmp_path):
    policy = tmp_path / "policy.yaml"
    policy.write_text(POLICY)
    made = World(policy)
    await made.process.begin()
    return made


CURRENT, CANDIDATE = (ConversationSide(experiment="spring", variant=variant) for variant in ("current", "candidate"))


async def test_a_raised_share_moves_no_conversation_before_it_has_expired(world):
    world.run(PLACE - 0.01)
    assert await world.hear(1, "send £5") == (CURRENT, 1, None)
    world.run(PLACE + 0.01)
    assert await world.hear(2, "£5") == (CURRENT, 1, None)
    assert await world.hear(3, "send £5", key=b"c-3") == (
        CANDIDATE,
        2,
        "candidate",
    )  # its place is below the share, too
    assert await world.hear(4, "send £5", at=2000 + EXPIRED) == (CANDIDATE, 2, "candidate")


async def test_a_reply_says_that_the_candidate_failed_on_its_turn_also_when_it_comes_again(world, monkeypatch):
    engine, found = world.process.engine, []

    async def fail(*asked, **options):
        found.append(await engine.predict(*asked, **options))
        found[-1].candidate_failed = True
        return found[-1]

    world.run(PLACE + 0.01)
    monkeypatch.setattr(engine.on_side("candidate"), "predict", fail)
    said = turn(1, "send £5")
    (_, reply, *_), (_, again, *_) = await world.process.hear(said), await world.process.hear(said)
    assert (reply.value["candidate_failed"], again.value) == (True, reply.value)
    assert found


async def test_a_conversation_changes_its_side_with_the_next_turn_after_the_end_of_an_experiment(world):
    world.run(PLACE + 0.01)
    assert await world.hear(1, "send £5") == (CANDIDATE, 2, "candidate")
    world.running = None
    assert await world.hear(2, "£5") == (None, 1, None)
    world.run(0.001, "summer")
    assert await world.hear(3, "£5") == (ConversationSide(experiment="summer", variant="current"), 1, None)


async def test_the_next_process_keeps_the_side_also_before_it_has_loaded_the_candidate(world, tmp_path):
    world.run(PLACE + 0.01)
    await world.hear(1, "send £5")
    after = World(tmp_path / "policy.yaml", world.process.log)
    await after.process.begin()
    after.run(PLACE + 0.01, is_loaded=False)
    assert (await after.hear(2, "£5"))[0] == CANDIDATE
    assert (await after.hear(3, "send £5", key=b"c-3"))[0] is None, "its side is chosen once the candidate can answer"


async def test_a_turn_that_comes_again_gets_the_same_reply_whatever_the_share_is_then(world):
    world.run(PLACE - 0.01)
    said = turn(1, "send £5")
    _, reply, *_ = await world.process.hear(said)
    world.run(PLACE + 0.01)
    _, again, *_ = await world.process.hear(said)
    assert again.value == reply.value
