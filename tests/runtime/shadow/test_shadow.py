"""A version that is only compared, from the records to what is published about it."""

import asyncio
import gc
import json
import threading
import weakref
from dataclasses import replace

import pytest

from murmura.runtime.errors import RecordTooLarge, SetupError
from murmura.runtime.testing.fakes import FakeModel
from murmura.schemas.ids import prediction_id
from murmura.schemas.manifest import TaskSpec
from murmura.schemas.review import Review, ReviewReason
from murmura.schemas.shadow import ShadowCounts, ShadowDifference

from .conftest import AGENT, make_model, praise, until


async def test_each_record_is_compared_and_only_differences_are_published_without_the_text(start):
    process = await start()
    process.put_shadow(make_model(2, answers=praise))
    results = await process.answer("good", "bad")
    await until(lambda: process.count("agreed") + process.count("differed") == 2)
    assert {result["model"]["version"] for result in results.values()} == {1}
    difference, counts = process.records()
    assert isinstance(difference, ShadowDifference)
    assert difference.model.model_dump() == {"name": "fake", "current": 1, "candidate": 2}
    assert difference.predictions == {"classification": prediction_id("classification", "in", "good")}
    assert difference.predictions["classification"] == results["good"]["prediction_id"]
    assert difference.source.model_dump() == results["good"]["source"]
    task = difference.tasks["intent"]
    assert (task.agrees, task.current.answer, task.candidate.answer) == (False, "refund", "praise")
    assert task.candidate.labels[0].score == 0.75
    assert isinstance(counts, ShadowCounts)
    assert (counts.answered, counts.chosen, counts.compared, counts.agreed) == (2, 2, 2, 1)
    assert counts.tasks["intent"].model_dump() == {"compared": 2, "agreed": 1}


async def test_people_are_asked_about_few_of_the_answers_that_differ_with_the_guess_that_was_sent(start):
    process = await start()
    process.put_shadow(make_model(2, answers=praise))
    results = await process.answer("bad", "good", "great", "grand")
    await until(lambda: process.count("differed") == 3)
    (asked,) = process.asked
    review = Review.model_validate_json(asked.value)
    assert (review.why, review.agent, review.task) == (ReviewReason.DISAGREEMENT, "classification", "intent")
    result = next(each for each in results.values() if each["prediction_id"] == review.prediction_id)
    assert result["request_id"] != "bad"
    assert review.source.model_dump() == result["source"]
    assert (review.model.version, review.predicted) == (1, "refund")
    assert result["request_id"].encode() not in asked.value, "the text, which is the id here"
    labels = {"agent": "classification", "task": "intent", "why": "disagreement"}
    assert process.metrics.registry.get_sample_value("murmura_reviews_total", labels) == 1


def fail(request, prediction):
    raise ValueError("no")


async def test_nobody_is_asked_about_the_answer_of_an_agent_that_failed_on_the_record(start):
    process = await start(agents=(AGENT, replace(AGENT, name="broken", output="broken", decide=fail)))
    process.put_shadow(make_model(2, answers=praise))
    await process.answer("bad", dead_letters=1)
    await process.answer("good", dead_letters=1)  # offset 1 chooses the second of two agents
    await until(lambda: process.count("differed") == 1)
    assert [Review.model_validate_json(asked.value).agent for asked in process.asked] == ["classification"]
    (difference,) = [found for found in process.records() if isinstance(found, ShadowDifference)]
    assert set(difference.predictions) == {"classification"}


async def test_nobody_is_asked_about_an_answer_that_the_broker_refused(start):
    process = await start()
    publish = process.broker.publish

    async def refuse_results(messages):
        await publish([message for message in messages if message.topic != "out"])
        return [RecordTooLarge("no") if message.topic == "out" else None for message in messages]

    process.broker.publish = refuse_results
    process.put_shadow(make_model(2, answers=praise))
    await process.answer("good", dead_letters=1)
    await until(lambda: process.count("differed") == 1)
    assert process.asked == []


async def test_a_replaced_version_is_freed_while_the_broker_acknowledges_nothing(start):
    process = await start()
    acknowledges, publish = asyncio.Event(), process.broker.publish

    async def wait(messages):
        await acknowledges.wait()
        return await publish(messages)

    process.broker.publish = wait
    process.put_shadow(make_model(3))
    answering = asyncio.create_task(process.answer("one"))
    await until(lambda: process.dispatcher.outbox.pending)
    replaced = weakref.ref(process.engine.model)
    process.slot.put(make_model(2))
    await until(lambda: gc.collect() >= 0 and replaced() is None)
    assert process.dispatcher.outbox.pending
    acknowledges.set()
    assert (await answering)["one"]["model"]["version"] == 1
    await until(lambda: process.count("agreed") == 1)
    assert process.records()[0].model.current == 1


async def test_an_answer_that_an_agent_changed_to_nonsense_costs_no_comparison(start, monkeypatch):
    process = await start()
    monkeypatch.setattr("murmura.runtime.shadow.disagreements._make_review", lambda *_: {}["label"])
    process.put_shadow(make_model(2, answers=praise))
    await process.answer("good")
    await until(lambda: process.count("differed") == 1)
    assert (process.asked, process.faults) == ([], [])


async def test_results_offsets_and_their_order_are_the_same_with_and_without_it(start):
    texts = [f"g{n}" for n in range(50)]
    taken = []
    for with_shadow in (False, True):
        process = await start()
        if with_shadow:
            process.put_shadow(make_model(2, answers=praise))
        await process.answer(*texts)
        values = [json.loads(message.value) for message in process.broker.taken]
        taken.append([{**value, "time": None} for value in values])
    assert taken[0] == taken[1]


async def test_only_the_share_is_compared_by_the_id_of_the_request(start):
    process = await start()
    process.put_shadow(make_model(2), share=0.25)
    await process.answer(*(f"t{n}" for n in range(200)))
    await until(lambda: process.shared.running is None and process.count("agreed"))
    (counts,) = process.records()
    assert counts.answered == 200
    assert 30 <= counts.chosen <= 70
    assert counts.compared == counts.chosen


async def test_tokens_are_reused_where_tokenizer_and_limit_are_equal_and_made_anew_where_not(start):
    process, same, other = await start(), make_model(2), make_model(3)
    other.manifest = other.manifest.model_copy(
        update={"limits": other.manifest.limits.model_copy(update={"max_tokens": 3})}
    )
    encoded, encode = [], other.encode
    other.encode = lambda texts: encoded.extend(texts) or encode(texts)
    same.encode = lambda texts: 1 / 0
    process.put_shadow(same)
    await process.answer("one")
    await until(lambda: process.count("agreed") == 1)
    process.slot.drop_shadow()
    process.put_shadow(other)
    await process.answer("two")
    await until(lambda: process.count("agreed") == 2)
    assert encoded == ["two"]


async def test_nothing_runs_while_a_record_waits_that_has_not_come_to_the_device(start):
    process, shadow = await start(), make_model(2)
    waiting = ["a record"]
    process.dispatcher.versions.has_waiting = lambda: bool(waiting)
    process.put_shadow(shadow)
    await process.answer("one")
    assert shadow.batches == []
    waiting.clear()
    await process.answer("two")
    await until(lambda: process.count("agreed") == 2)


async def test_the_pass_of_a_dropped_shadow_ends_before_another_begins(start):
    process, first, second, go_on = await start(), make_model(2), make_model(3), threading.Event()
    run = first.run
    first.run = lambda batch: go_on.wait(30) and run(batch)
    process.put_shadow(first)
    await process.answer("one")
    await until(lambda: process.shared.running is not None)
    process.slot.drop_shadow()
    process.put_shadow(second)
    await process.answer("two")
    await asyncio.sleep(0.01)
    assert second.batches == []
    go_on.set()
    await until(lambda: process.count("agreed") == 1)


async def test_a_pass_takes_no_more_rows_than_its_device_time_allows_and_a_longer_record_is_counted(start):
    shadow = make_model(2)
    process = await start(max_pass_ms=1.65)  # a pass of n tokens takes 1 + n / 10 ms, a text of one word has 3 tokens
    process.put_shadow(shadow)
    await process.answer("a", "b", "c", "d", "e", "w " * 20)
    await until(lambda: process.count("agreed") == 5 and process.count("too_long") == 1)
    assert max(map(len, shadow.batches)) == 2


async def test_a_version_that_fails_on_every_record_is_unloaded_with_one_fault_and_the_others_go_on(start):
    shadow = make_model(2, broken=["one", "two", "three", "four"])
    process = await start()
    process.put_shadow(shadow)
    await process.answer("one", "two", "three", "four")
    await until(lambda: process.faults)
    assert len(process.faults) == 1
    assert process.count("failed") == 3
    assert process.dispatcher.versions.on_answered is None
    ran = len(shadow.batches)
    assert set(await process.answer("five")) == {"five"}
    assert len(shadow.batches) == ran
    assert process.engine.trouble is None


async def test_a_record_that_alone_fails_is_counted_and_the_comparison_goes_on(start):
    process = await start()
    process.put_shadow(make_model(2, broken=["bad"]))
    await process.answer("one", "bad", "two")
    await until(lambda: process.count("failed") == 1 and process.count("agreed") == 2)
    assert process.faults == []


async def test_a_failing_device_unloads_it_at_once(start):
    shadow = make_model(2)
    shadow.device_works = False
    process = await start()
    process.put_shadow(shadow)
    await process.answer("one")
    await until(lambda: process.faults)
    assert (str(process.faults[0]), process.engine.trouble) == ("the device does not work", None)


async def test_a_pass_that_does_not_end_is_given_up_while_records_are_answered(start, monkeypatch):
    monkeypatch.setattr("murmura.runtime.shadow.shadow.DEADLINE_S", 0.05)
    shadow, gate, terminated = make_model(2), threading.Event(), []
    shadow.run = lambda batch: gate.wait(60)
    shadow.terminate = terminated.append
    process = await start()
    process.put_shadow(shadow)
    await process.answer("one")
    await until(lambda: process.faults)
    assert "was not back within" in str(process.faults[0])
    assert len(terminated) == 2, "at its deadline, and when it is given up"
    assert set(await process.answer("two")) == {"two"}
    process.put_shadow(make_model(3))
    await process.answer("three")
    await until(lambda: process.count("agreed") == 1)
    gate.set()


async def test_a_pass_that_comes_back_with_answers_after_its_deadline_was_only_slow(start, monkeypatch):
    monkeypatch.setattr("murmura.runtime.shadow.shadow.DEADLINE_S", 0.05)
    shadow, gate = make_model(2), threading.Event()
    run = shadow.run
    shadow.run = lambda batch: gate.wait(60) and run(batch)
    shadow.terminate = lambda thread: gate.set()
    process = await start()
    process.put_shadow(shadow)
    await process.answer("one")
    await until(lambda: process.count("agreed") == 1)
    assert process.faults == []


async def test_a_pass_that_is_terminated_at_its_deadline_unloads_the_version(start, monkeypatch):
    monkeypatch.setattr("murmura.runtime.shadow.shadow.DEADLINE_S", 0.05)
    shadow, gate = make_model(2), threading.Event()
    shadow.run = lambda batch: gate.wait(60) and 1 / 0
    shadow.terminate = lambda thread: gate.set()
    process = await start()
    process.put_shadow(shadow)
    await process.answer("one", "two")
    await until(lambda: process.faults)
    assert "was not back within" in str(process.faults[0])


async def test_a_version_that_an_agent_cannot_work_with_and_a_second_one_are_refused(start):
    process, lacking = await start(), FakeModel([TaskSpec(name="mood", kind="classification", labels=["a", "b"])])
    lacking.pass_time = None
    with pytest.raises(SetupError, match="task intent is not one of"):
        process.put_shadow(lacking)
    process.put_shadow(make_model(2))
    with pytest.raises(ValueError, match="drop it first"):
        process.put_shadow(make_model(3))


async def test_a_version_that_becomes_current_is_compared_no_more(start):
    process, shadow = await start(), make_model(2)
    process.put_shadow(shadow)
    process.slot.put(shadow)
    assert (await process.answer("one"))["one"]["model"]["version"] == 2
    assert (process.dispatcher.versions.on_answered, process.records()) == (None, [])
