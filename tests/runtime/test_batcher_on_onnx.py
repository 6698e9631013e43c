"""A real forward pass that would never end: it is ended at its deadline, and its records are given back, not failed."""

import asyncio
from dataclasses import replace

from bad_versions import endless
from gated_model import Inbox
from tiny_model import write_tiny_model

from murmura.runtime.batching.batcher import Batcher
from murmura.runtime.batching.device.breaker import BreakerLimits
from murmura.runtime.batching.device.runs import BatchRuns
from murmura.runtime.batching.queues.entry import Entry
from murmura.runtime.batching.queues.policy import BatchLimits
from murmura.runtime.batching.queues.version_queue import VersionTerms
from murmura.runtime.errors import Closed
from murmura.runtime.model.model import Model

TERMS = VersionTerms(1000, 256, 4000)


async def test_an_endless_run_is_ended_and_its_record_is_held_until_the_device_is_given_up(tmp_path):
    model = Model.open(endless(write_tiny_model(tmp_path / "model")), device="cpu")
    limits = BatchLimits(token_budget=100, max_in_flight=1)
    batcher, inbox, lost, changes = (
        Batcher(model, limits, terms=replace(limits.terms, deadline_s=1.0), breaker=BreakerLimits(0.05, 0.1, 2.5)),
        Inbox(),
        [],
        [],
    )
    batcher.on_lost = lost.append
    batcher.guard.on_change = changes.append
    batcher.start()
    (encoded,) = model.encode(["hello"])
    batcher.submit([Entry("hello", ("intent",), encoded, inbox, model=model)])
    await inbox.holds(1)
    await batcher.stop(1)
    assert isinstance(inbox.entries[0].error, Closed)
    assert changes == ["a forward pass was not back within 1 s"]
    assert "has failed for" in str(lost[0]), "the run was ended at its deadline, so it was not stuck at twice that"
    await asyncio.sleep(0)


def test_answers_that_cannot_be_decoded_of_any_text_are_no_records_fault(tiny_model, monkeypatch):
    model = Model.load(tiny_model, device="cpu")
    texts = ["hello", "my card was lost"]
    entries = [Entry(text, ("intent",), each, None) for text, each in zip(texts, model.encode(texts), strict=True)]
    runs = BatchRuns()
    assert runs.answer(model, entries, TERMS).fault is None
    monkeypatch.setitem(model._decoders, "intent", None)
    answers = runs.answer(model, entries, TERMS)
    assert "the reference sample does not come out any more" in str(answers.fault)
    assert not answers.errors
