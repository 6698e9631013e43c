"""Replies that wait for a device that fails: those that nobody waits for take no step, and those that begin again hold a place."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tiny_talker import write_talker

from murmura.runtime.batching.device.breaker import BreakerLimits
from murmura.runtime.batching.engine import Engine
from murmura.runtime.batching.queues.reply_lanes import ReplyLane, StepResult
from murmura.runtime.errors import DeviceFailed
from murmura.runtime.model.generated import Generated
from murmura.runtime.model.model import Model
from murmura.schemas.acts import Act, ActName, Utterance

ACTS = (Act(act=ActName.REQUEST, slot="time"),)
TURNS = [(Utterance(role="user", text=f"{text} please"),) for text in ("refund my order", "open the app", "hello")] * 20
ROWS = 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_talker(tmp_path_factory.mktemp("talker") / "desk")


@pytest.fixture
async def engine(folder: Path) -> AsyncIterator[Engine]:
    engine = Engine(
        Model.load(folder, device="cpu"), token_budget=600, reply_rows=ROWS, breaker=BreakerLimits(0.01, 0.02, 20)
    )
    await engine.start()
    yield engine
    await engine.stop(5)


class Steps:
    """The steps of all lanes: from the third of a lane on the device fails, while it is `down`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.rows: list[int] = []
        self.down = True
        taken, run_step = Counter[int](), ReplyLane.run_step

        def step(lane: ReplyLane, **options: Any) -> StepResult:
            taken[id(lane)] += 1
            if self.down and taken[id(lane)] > 2:
                raise DeviceFailed("no device")
            result = run_step(lane, **options)
            self.rows.append(result.rows)
            return result

        monkeypatch.setattr(ReplyLane, "run_step", step)


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Steps:
    return Steps(monkeypatch)


def ask(engine: Engine) -> list[asyncio.Task[Generated]]:
    return [asyncio.create_task(engine.generate(turns, ACTS, "reply")) for turns in TURNS]


@pytest.mark.parametrize("kept", [0, 1])
async def test_a_held_step_runs_without_the_replies_that_nobody_waits_for_any_more(
    engine: Engine, steps: Steps, kept: int
) -> None:
    asked = ask(engine)
    while engine.trouble is None:
        await asyncio.sleep(0.001)
    for each in asked[kept:]:
        each.cancel()
    await asyncio.gather(*asked[kept:], return_exceptions=True)
    steps.rows.clear()
    steps.down = False
    while engine.trouble is not None:
        await asyncio.sleep(0.001)
    assert all(each.text for each in await asyncio.gather(*asked[:kept]))
    assert {*steps.rows} == ({1} if kept else set())
    assert (await engine.generate(TURNS[0], ACTS, "reply")).text


async def test_replies_that_begin_again_by_a_new_version_take_no_more_memory_than_is_said(
    engine: Engine, folder: Path, steps: Steps
) -> None:
    asked, most, swaps = ask(engine), 0, 0
    while swaps < 4 or (most <= ROWS and swaps < 40):  # until a swap has met replies in both versions
        swaps += 1
        while engine.trouble is None:
            await asyncio.sleep(0)
            most = max(most, engine.queued_rows)
        engine.swap(Model.load(folder, device="cpu"))
        while engine.trouble is not None:
            await asyncio.sleep(0)
            most = max(most, engine.queued_rows)
    steps.down = False
    assert all(each.text for each in await asyncio.gather(*asked))
    assert ROWS < most <= engine.most_replies + ROWS  # those of a version that is being replaced, too
