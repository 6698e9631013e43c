"""Pieces that a caller forbids: none of its replies has them, in service and in a rehearsal, and a function that fails fails alone."""

import asyncio
from collections.abc import Callable

import pytest
from tiny_talker import write_talker

from murmura.runtime.batching.engine import Engine
from murmura.runtime.model.model import Model
from murmura.runtime.testing.fakes import FakeEngine
from murmura.schemas.acts import Act, ActName, Utterance

ACTS = (Act(act=ActName.REQUEST, slot="time"),)
TURNS = [(Utterance(role="user", text=text),) for text in ("refund my order", "open the app", "please help me " * 3000)]


def has_r(piece: str) -> bool:
    return "r" in piece


def is_broken(piece: str) -> bool:
    raise RuntimeError("a bug")


def is_slow(piece: str) -> bool:
    raise TimeoutError("a socket of its own")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return Model.load(write_talker(tmp_path_factory.mktemp("talker") / "desk"), device="cpu")


async def test_a_rehearsed_reply_is_that_of_the_engine_whatever_is_forbidden_and_unknown(model: Model) -> None:
    engine, rehearsed = Engine(model, token_budget=600), FakeEngine(model)
    await engine.start()
    try:
        for slots, is_forbidden in ((None, None), ({"time", "unknown"}, None), (set(), has_r)):
            options = {"slots": slots, "is_forbidden": is_forbidden}
            served = [await engine.generate(turns, ACTS, "reply", **options) for turns in TURNS]
            assert [await rehearsed.generate(turns, ACTS, "reply", **options) for turns in TURNS] == served
            assert is_forbidden is None or not any("r" in reply.text for reply in served)
        assert any(found.truncated for found in served)
    finally:
        await engine.stop(5)


@pytest.mark.parametrize("fails", [is_broken, is_slow])
async def test_a_function_that_raises_instead_of_forbidding_fails_its_own_reply_alone(
    model: Model, fails: Callable[[str], bool]
) -> None:
    engine = Engine(model, token_budget=600)
    await engine.start()
    try:
        asked = [engine.generate(TURNS[0], ACTS, "reply", is_forbidden=each) for each in (fails, has_r)]
        broken, whole = await asyncio.wait_for(asyncio.gather(*asked, return_exceptions=True), 20)
        assert isinstance(broken, TimeoutError if fails is is_slow else RuntimeError)  # and not Late
        assert whole == await FakeEngine(model).generate(TURNS[0], ACTS, "reply", is_forbidden=has_r)
        assert (engine.queued_tokens, engine.queued_rows) == (0, 0)
    finally:
        await engine.stop(5)
