# ruff: noqa: F811 - fixtures are imported, and then named by the tests that take them
"""Two versions answer at the same time on a real Kafka, and one of them breaks."""

import json
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from released_models import Releases, releases  # noqa: F401
from serving import Desk, health
from serving import until as until_healthy

from murmura.runtime.experiments.assignment import place_unit
from murmura.runtime.release.states import publish_state, read_states
from murmura.schemas.experiment import Experiment
from murmura.schemas.release import raised, started

CUSTOMERS = [f"customer-{number}" for number in range(20)]


class NotFinite:
    """A runner of a version that answers with NaN since it went live."""

    def __init__(self, session):
        self._session, self.device = session, session.device

    def run(self, feeds):
        return [np.full_like(each, np.nan) for each in self._session.run(feeds)]

    def terminate(self, thread=None) -> None:
        pass


async def step(releases: Releases, make, *arguments) -> None:
    state = (await read_states(releases.kafka, releases.topic))["tiny"]
    after = make(state, *arguments, by="test", why="test", at=datetime.now(UTC))
    await publish_state(releases.kafka, releases.topic, after)


async def ask(desk: Desk, part: str) -> list[str]:
    """Send five requests of each customer; returns their ids."""
    names = [f"{part}-{number}-{customer}" for number in range(5) for customer in CUSTOMERS]
    requests = ({"id": n, "text": f"my card {n}", "metadata": {"customer": n.split("-", 2)[2]}} for n in names)
    await desk.send(*requests)
    return names


async def answers(desk: Desk, names: list[str]) -> dict[str, set[tuple[int, str]]]:
    """Wait until both agents have answered every request, each once; returns version and variant by customer of the last part."""
    part, sides = names[-1].split("-", 1)[0], defaultdict(set)
    for topic in (desk.classified, desk.analysed):
        results = [json.loads(record.value) for record in await desk.read(topic, len(names))]
        assert sorted(result["request_id"] for result in results) == sorted(names)
        for result in results:
            if result["request_id"].startswith(f"{part}-"):
                model = result["model"]
                sides[result["metadata"]["customer"]].add((model["version"], model.get("variant", "current")))
    return sides


def expected(share: float) -> dict[str, set[tuple[int, str]]]:
    return {each: {(2, "candidate") if place_unit("spring", each) < share else (1, "current")} for each in CUSTOMERS}


async def test_each_unit_is_on_one_side_until_the_candidate_breaks_and_the_current_version_answers_everything(
    desk: Desk, releases: Releases
):
    await releases.release(releases.push(1))
    second, damaged = releases.push(2), releases.push(3)
    (Path(releases.url) / "tiny" / str(damaged) / "model.ragged.onnx").write_bytes(b"cut off")
    spring = Experiment(id="spring", unit="metadata.customer", share=0.5, started=datetime.now(UTC))
    async with releases.serving() as serving:
        winter = spring.model_copy(update={"id": "winter"})
        await step(releases, started, damaged, releases.store.digest("tiny", damaged), winter)
        refused, ended = await releases.events(2)
        assert (refused.event, refused.version, refused.reason) == ("candidate.rejected", damaged, "damaged")
        assert (ended.event, ended.version) == ("experiment.stopped", damaged)
        assert (await health(serving))[0] == 200
        await step(releases, started, second, releases.store.digest("tiny", second), spring)
        await until_healthy(serving, lambda found: "candidate" in found[1]["model"])
        names = await ask(desk, "first")
        assert await answers(desk, names) == expected(0.5)
        shown = {"version": 2, "experiment": "spring", "share": 0.5}
        status, body = await health(serving)
        assert (status, body["model"]["version"], body["model"]["candidate"]) == (200, 1, shown)

        await step(releases, raised, 0.8)
        names += await ask(desk, "during")
        await until_healthy(serving, lambda found: found[1]["model"]["candidate"]["share"] == 0.8)
        names += await ask(desk, "raised")
        assert await answers(desk, names) == expected(0.8)

        candidate = serving.engine.candidate
        candidate.runner = NotFinite(candidate.runner)
        names += await ask(desk, "broken")
        assert await answers(desk, names) == {key: {(1, "current")} for key in CUSTOMERS}
        _, _, failed, ended = await releases.events(4)
        status, body = await health(serving)
        assert (status, "candidate" in body["model"]) == (200, False)
    assert (failed.event, failed.version, ended.event) == ("candidate.failed", 2, "experiment.stopped")
    state = (await read_states(releases.kafka, releases.topic))["tiny"]
    assert (state.current.version, state.candidate, state.history[-1].experiment) == (1, None, "stopped")
    assert await desk.read(desk.dead_letters, 0) == []
    assert await desk.committed() == await desk.ends()
