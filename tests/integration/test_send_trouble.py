"""What the broker refuses of the whole process stops intake, is named in `/readyz`, and ends the process if it lasts.

A real broker answers a produce request neither with a refusal of the process nor with an unknown error: these answers
are put in place of the real one, everything else is real.
"""

import asyncio
import time

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import ClusterAuthorizationFailedError, UnknownError
from kafka_topics import create_topics, delete_topic
from serving import Desk, health, ids, reason, until
from started_publisher import start_publisher

from murmura.runtime import serve as app
from murmura.runtime.errors import ProcessRefused
from murmura.runtime.kafka.sending.producer import IdempotentProducer
from murmura.runtime.wire.message import Message


@pytest.fixture
def answers(monkeypatch):
    """`answers(topic, partition)`, when set as `answers.of`, returns the error that stands for the broker's answer."""

    class Answers:
        @staticmethod
        def of(topic, partition):
            return None

    send = IdempotentProducer.send_batch

    async def send_batch(self, batch, topic, *, partition):
        if (error := Answers.of(topic, partition)) is None:
            return await send(self, batch, topic, partition=partition)
        if isinstance(error, UnknownError):  # it does not say whether the batch was appended: its numbers stay used
            self._advance_sequence(TopicPartition(topic, partition), batch.record_count())
        answer = asyncio.get_running_loop().create_future()
        answer.set_exception(error)
        return answer

    monkeypatch.setattr(IdempotentProducer, "send_batch", send_batch)
    return Answers


def texts(*numbers: int) -> list[dict]:
    return [{"id": f"r{number}", "text": f"my card was lost {number}"} for number in numbers]


@pytest.mark.parametrize("error", [ClusterAuthorizationFailedError, UnknownError])
async def test_a_process_whose_sends_are_all_refused_takes_nothing_in_and_goes_on_when_they_are_taken(
    desk: Desk, answers, error
):
    async with desk.serving() as serving:
        await desk.send(*texts(0))
        await desk.read(desk.analysed, 1)
        answers.of = lambda topic, partition: error()
        await desk.send(*texts(*range(1, 40)))
        await until(serving, lambda answer: answer[0] == 503 and error.__name__ in str(answer[1]["reasons"]))
        answers.of = lambda topic, partition: None
        for topic in (desk.classified, desk.analysed):
            assert sorted(ids(await desk.read(topic, 40))) == sorted(f"r{n}" for n in range(40))
        await until(serving, lambda answer: answer[0] == 200)
    assert await desk.committed() == await desk.ends()
    assert sum((await desk.ends(desk.dead_letters)).values()) == 0


@pytest.mark.parametrize("error", [ClusterAuthorizationFailedError, UnknownError])
async def test_a_process_whose_sends_are_refused_for_too_long_ends_and_has_committed_nothing_of_it(
    desk: Desk, answers, error
):
    answers.of = lambda topic, partition: error()
    settings = desk.settings(health={"give_up_s": 3}, kafka={"bootstrap_servers": desk.bootstrap, "drain_s": 2})
    began = time.monotonic()
    serving = asyncio.create_task(app.serve(settings, desk.agents, stop=asyncio.Event()))
    await desk.send(*texts(*range(5)))
    with pytest.raises(ProcessRefused, match=error.__name__):
        await asyncio.wait_for(serving, 60)
    assert time.monotonic() - began > 3
    assert set((await desk.committed()).values()) == {0}


async def send_steadily(desk: Desk, numbers: range, **more) -> None:
    for number in numbers:
        await desk.send(*texts(number), **more)
        await asyncio.sleep(0.1)


async def test_an_unknown_error_of_one_agent_s_topic_suspends_that_agent_alone_until_the_topic_takes_results_again(
    desk: Desk, answers
):
    async with desk.serving(agents={"analysis": {"probe_pause_s": 0.2}}) as serving:
        answers.of = lambda topic, partition: UnknownError() if topic == desk.analysed else None
        await send_steadily(desk, range(30))
        await until(serving, lambda answer: "analysis" in answer[1].get("suspended_agents", {}))
        assert (await health(serving))[0] == 200
        assert sorted(ids(await desk.read(desk.classified, 30))) == sorted(f"r{n}" for n in range(30))
        answers.of = lambda topic, partition: None
        assert sorted(ids(await desk.read(desk.analysed, 30))) == sorted(f"r{n}" for n in range(30))
    assert await desk.committed() == await desk.ends()
    assert sum((await desk.ends(desk.dead_letters)).values()) == 0


async def test_an_unknown_error_of_one_result_is_its_own_dead_letter_while_others_of_its_topic_pass(
    desk: Desk, answers
):
    async with desk.serving() as serving:
        answers.of = lambda topic, partition: UnknownError() if (topic, partition) == (desk.analysed, 2) else None
        await desk.send(*texts(0), partition=2)
        await send_steadily(desk, range(1, 31), partition=1)
        (letter,) = await desk.read(desk.dead_letters, 1)
        assert (reason(letter), dict(letter.headers)["murmura_dl_agent"]) == ("agent_failed", b"analysis")
        assert len(await desk.read(desk.classified, 31)) == 31
        assert len(await desk.read(desk.analysed, 30)) == 30
        assert (await health(serving))[0] == 200
    assert await desk.committed() == await desk.ends()


async def test_a_deleted_dead_letter_topic_stops_intake_until_it_is_made_again_and_nothing_is_lost(desk: Desk):
    async with desk.serving() as serving:
        await desk.send(*texts(0))
        await desk.read(desk.analysed, 1)
        await delete_topic(desk.bootstrap, desk.dead_letters)
        await desk.send(b"not JSON")
        await until(serving, lambda answer: answer[0] == 503 and desk.dead_letters in str(answer[1]))
        await desk.send(*texts(1))
        await asyncio.sleep(1)
        assert ids(await desk.read(desk.classified, 1)) == ["r0"]
        await create_topics(desk.bootstrap, [desk.dead_letters], 3, {})
        await until(serving, lambda answer: answer[0] == 200)
        assert [letter.value for letter in await desk.read(desk.dead_letters, 1)] == [b"not JSON"]
        assert sorted(ids(await desk.read(desk.classified, 2))) == ["r0", "r1"]
    assert await desk.committed() == await desk.ends()


async def test_a_process_that_may_open_no_other_producer_is_in_trouble_until_it_may_again(
    guarded_kafka, make_topics, unique
):
    (topic,) = await make_topics("out", partitions=1, bootstrap=guarded_kafka.bootstrap)
    user = unique("sender")
    guarded_kafka.add_user(user, "sender-password")
    security = {
        "protocol": "SASL_PLAINTEXT",
        "sasl_mechanism": "SCRAM-SHA-256",
        "username": user,
        "password": "sender-password",
    }
    message = [Message(topic, b"a", b"k", [])]
    async with start_publisher(guarded_kafka.sasl, kafka={"security": security}, give_up_s=3) as publisher:
        assert await publisher.publish(message) == [None]
        with (
            guarded_kafka.denied("kafka-cluster", "idempotent_write", user, kind="broker"),
            guarded_kafka.denied("*", "write", user),
        ):
            publisher.producers[-1]._sender.sender_task.cancel()
            sending = asyncio.create_task(publisher.publish(message))
            async with asyncio.timeout(60):
                while publisher.trouble is None:
                    await asyncio.sleep(0.02)
            assert "ClusterAuthorizationFailedError" in publisher.trouble
            assert not publisher.taking.is_set()
        assert await asyncio.wait_for(sending, 60) == [None]
        assert (publisher.taking.is_set(), publisher.trouble) == (True, None)
