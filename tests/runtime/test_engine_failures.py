# ruff: noqa: F811 - fixtures are imported, and then named by the tests that take them
"""The engine when a tokenizer panics or the device fails: whoever waits is answered."""

import asyncio

import pytest
from test_engine import SCRIPT, TASKS, make, model  # noqa: F401

from murmura.runtime.batching.device.breaker import BreakerLimits
from murmura.runtime.batching.engine import Engine
from murmura.runtime.errors import Closed, DeviceFailed, ModelFailed
from murmura.runtime.model.pass_time import PassTime
from murmura.runtime.model.texts.long_texts import Windows
from murmura.runtime.testing.fakes import FakeModel


class PanicException(BaseException):
    """As the tokenizers library raises for a panic in its Rust code."""


@pytest.fixture
def panics(model):
    """A model whose tokenizer panics on one text."""
    encode = model.encode

    def encode_or_panic(texts):
        if "panic" in texts:
            raise PanicException("index out of bounds")
        return encode(texts)

    model.encode = encode_or_panic
    return model


async def test_a_panic_of_the_tokenizer_is_answered_to_its_caller_and_costs_the_others_nothing(make, panics):
    engine = await make(Engine, panics)
    async with asyncio.timeout(60):
        *good, bad = await asyncio.gather(
            *(engine.predict(text) for text in ("one", "two", "panic")), return_exceptions=True
        )
    assert [type(answer).__name__ for answer in good] == ["Prediction", "Prediction"]
    assert isinstance(bad, ModelFailed)
    assert "PanicException" in str(bad)


async def test_a_panic_on_a_chunk_of_records_is_an_error_that_is_handled_as_any_other(make, panics):
    engine = await make(Engine, panics)
    with pytest.raises(ModelFailed, match="the tokenizer failed: PanicException"):
        await engine.encode(["one", "panic"])
    assert len(await engine.encode(["one"])) == 1


async def test_a_caller_waits_while_the_device_fails_and_is_answered_afterwards(make, model):
    engine = await make(Engine, model, breaker=BreakerLimits(0.01, 0.02, 20))
    model.device_works = False
    waiting = asyncio.create_task(engine.predict("hm"))
    while engine.trouble is None:
        await asyncio.sleep(0.005)
    assert engine.lookahead == (0, 0)
    model.device_works = True
    async with asyncio.timeout(60):
        answer = await waiting
    assert answer.model == ("bank", 3)
    assert engine.lookahead[0] == engine.token_budget


async def test_a_caller_of_a_device_that_stays_broken_is_answered_with_closed(make, model):
    engine = await make(Engine, model, breaker=BreakerLimits(0.01, 0.02, 0.1))
    model.device_works = False
    with pytest.raises(Closed):
        async with asyncio.timeout(60):
            await engine.predict("hm")


async def test_another_model_that_takes_the_place_of_one_that_fails_answers_what_waited(make, model):
    engine = await make(Engine, model, breaker=BreakerLimits(300, 300, 600))
    model.device_works = False
    waiting = asyncio.create_task(engine.predict("hm", ["intent"]))
    while engine.trouble is None:
        await asyncio.sleep(0.005)
    engine.swap(FakeModel(TASKS, SCRIPT, name="bank", version=2))
    async with asyncio.timeout(60):
        answer = await waiting
    assert answer.model == ("bank", 2)
    assert engine.trouble is None


async def test_a_slower_model_gets_a_longer_deadline_than_the_one_before(make, model):
    engine = await make(Engine, model, token_budget=100, shortest_deadline_s=0.1)
    slow = FakeModel(TASKS, SCRIPT, name="bank", version=2, run_s=0.6)
    engine.swap(slow, PassTime(0.0, 0.006, 0.006))
    async with asyncio.timeout(60):
        answer = await engine.predict("hm", ["intent"])
    assert answer.model == ("bank", 2)
    assert engine.trouble is None


async def test_a_tokenizer_that_fails_on_plain_texts_is_no_callers_fault(make, model):
    engine = await make(Engine, model)
    lost = []
    engine.on_lost = lost.append
    model.encode = None
    async with asyncio.timeout(60):
        answers = await asyncio.gather(engine.predict("one"), engine.predict("two"), return_exceptions=True)
    assert [type(answer) for answer in answers] == [Closed, Closed]
    assert "the tokenizer fails on a plain text too: TypeError" in str(lost[0])


async def test_a_tokenizer_that_fails_on_plain_texts_is_no_records_fault(make, model):
    engine = await make(Engine, model)
    lost = []
    engine.on_lost = lost.append
    model.encode_windows = None
    with pytest.raises(DeviceFailed, match="on a plain text too"):
        await engine.encode(["one"], windows=[Windows()])
    assert lost
