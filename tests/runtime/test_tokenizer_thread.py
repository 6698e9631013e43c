"""A tokenizer that does not come back: its chunk fails, its version is blamed, and the others are tokenised."""

import threading

import pytest
from gated_model import GatedModel

from murmura.runtime.batching.callers import tokenizer_thread
from murmura.runtime.batching.callers.tokenizer_thread import TokenizerThread
from murmura.runtime.batching.engine import Engine
from murmura.runtime.errors import Closed, DeviceFailed


class Hanging(GatedModel):
    """Tokenises for ever when a text says so."""

    def __init__(self, **options):
        super().__init__(**options)
        self.come_back = threading.Event()

    def encode(self, texts):
        if "hostile" in texts:
            assert self.come_back.wait(30)
        return super().encode(texts)


@pytest.fixture
async def engine(monkeypatch):
    monkeypatch.setattr(tokenizer_thread, "DEADLINE_S", 0.2)
    engine = Engine(Hanging(), token_budget=1000)
    await engine.start()
    yield engine
    engine.model.come_back.set()
    await engine.stop(1)


@pytest.mark.parametrize("alone", [True, False])
async def test_a_candidates_tokenizer_that_hangs_ends_the_candidate_and_nothing_else(engine, alone):
    candidate, faults = Hanging(version=2), []
    engine.load_candidate(candidate, None, faults.append)
    if alone:
        engine.model.come_back.set()  # the current version has no trouble with it
        answered = await engine.on_side("candidate").predict("hostile", ["intent"])
        assert "intent" in answered.outputs
    else:
        with pytest.raises(DeviceFailed, match="did not come back"):
            await engine.encode(["hostile"], candidate)
    assert [str(fault)[:30] for fault in faults] == ["the tokenizer did not come back"[:30]]
    assert engine.candidate is None
    assert len(await engine.encode(["hello"])) == 1
    candidate.come_back.set()
    assert len(await engine.encode(["hello"])) == 1


async def test_the_current_versions_tokenizer_that_hangs_is_named_and_the_device_given_up(engine):
    lost = []
    engine.on_lost = lost.append
    with pytest.raises(DeviceFailed, match="did not come back"):
        await engine.encode(["hostile"])
    assert "the tokenizer did not come back" in str(lost[0])
    with pytest.raises(Closed):
        await engine.predict("hello", ["intent"])


def test_long_texts_have_longer_and_what_waits_is_done_by_another_thread():
    now = [0.0]
    thread, go_on, begun = TokenizerThread(30.0, clock=lambda: now[0]), threading.Event(), threading.Event()
    stuck = thread.submit(lambda model, texts: begun.set() or go_on.wait(30), "model", ["a" * 500_000] * 2)
    waiting = thread.submit(str.upper, "hello")
    assert begun.wait(30)
    now[0] = 39.0
    assert not thread.end_overdue()
    now[0] = 41.0
    assert thread.end_overdue()
    assert waiting.result(30) == "HELLO"
    with pytest.raises(DeviceFailed, match="within 40 s"):
        stuck.result(0)
    go_on.set()
    assert thread.submit(len, "four").result(30) == 4
    thread.shutdown(cancel_futures=True)
    with pytest.raises(RuntimeError):
        thread.submit(len, "four")
