"""What is promised when processes and brokers die: nothing is lost, and what is answered twice can be told."""

import asyncio
import json
import signal
from pathlib import Path

import pytest
from served_process import Process, ended
from serving import Desk, ids


async def stream(desk: Desk, count: int, per_s: float) -> list[str]:
    """Send requests at a steady rate; returns their ids."""
    names = []
    for start in range(0, count, 20):
        requests = [{"id": f"s{n}", "text": f"my card was lost {n}"} for n in range(start, min(start + 20, count))]
        names += [request["id"] for request in requests]
        await desk.send(*requests)
        await asyncio.sleep(20 / per_s)
    return names


@pytest.mark.slow
async def test_kill_9_three_times_loses_nothing(desk: Desk, tmp_path: Path):
    processes = [Process(desk, tmp_path, 0)]
    with ended(processes):
        await processes[0].until("serving")
        sending = asyncio.create_task(stream(desk, 1200, per_s=400))
        for number in range(1, 4):
            await asyncio.sleep(0.6)
            assert processes[-1].end(signal.SIGKILL) == -signal.SIGKILL
            processes.append(Process(desk, tmp_path, number))
            await processes[-1].until("serving")
        names = await sending
        classified = await desk.read(desk.classified, len(names))
        await _until_answered(desk, set(names))
        analysed = await desk.read(desk.analysed, len(names))
        assert processes[-1].end(signal.SIGTERM) == 0
    assert set(ids(classified)) | set(ids(analysed)) == set(names)
    assert await desk.committed() == await desk.ends()
    # Delivered again, and telling so: the same prediction id for the same request.
    by_request: dict[str, set[str]] = {}
    for record in await desk.read(desk.classified, len(names)):
        result = json.loads(record.value)
        by_request.setdefault(result["request_id"], set()).add(result["prediction_id"])
    assert set(by_request) == set(names)
    assert all(len(predictions) == 1 for predictions in by_request.values())


async def test_sigterm_in_mid_stream_loses_and_repeats_nothing(desk: Desk, tmp_path: Path):
    first = Process(desk, tmp_path, 0)
    processes = [first]
    with ended(processes):
        await first.until("serving")
        sending = asyncio.create_task(stream(desk, 600, per_s=600))
        await asyncio.sleep(0.5)
        assert first.end(signal.SIGTERM) == 0
        processes.append(Process(desk, tmp_path, 1))
        names = await sending
        await processes[1].until("serving")
        await _until_answered(desk, set(names))
        assert processes[1].end(signal.SIGINT) == 0
    assert sorted(ids(await desk.read(desk.classified, len(names)))) == sorted(names)
    assert sorted(ids(await desk.read(desk.analysed, len(names)))) == sorted(names)


async def test_two_processes_share_partitions_and_one_takes_over(desk: Desk, tmp_path: Path):
    processes = [Process(desk, tmp_path, 0), Process(desk, tmp_path, 1)]
    with ended(processes):
        for process in processes:
            await process.until("serving")
        for process in processes:
            await process.until(r"partitions assigned.*\"partitions\": [12]\b")
        names = await stream(desk, 200, per_s=1000)
        await _until_answered(desk, set(names))
        processes[0].end(signal.SIGKILL)
        more = [{"id": f"after{n}", "text": "my card was lost"} for n in range(30)]
        await desk.send(*more)
        names += [request["id"] for request in more]
        await _until_answered(desk, set(names))
        assert processes[1].end(signal.SIGTERM) == 0
    assert await desk.committed() == await desk.ends()


@pytest.mark.slow
async def test_an_outage_of_the_broker_loses_nothing(own_kafka, make_topics, unique, tiny_model):
    prefix = unique("outage")
    await make_topics("requests", "classified", "analysed", "deadletters", prefix=prefix, bootstrap=own_kafka.bootstrap)
    desk = Desk(own_kafka.bootstrap, prefix, tiny_model)
    names = [f"r{n}" for n in range(400)]
    async with desk.serving(producer={"send_timeout_s": 2}):
        await desk.send(*({"id": name, "text": "my card was lost"} for name in names[:200]))
        await desk.read(desk.classified, 20)
        await asyncio.to_thread(own_kafka.kill)
        await asyncio.sleep(4)
        await asyncio.to_thread(own_kafka.start)
        await desk.send(*({"id": name, "text": "my card was lost"} for name in names[200:]))
        await _until_answered(desk, set(names))
    assert set(ids(await desk.read(desk.analysed, 400))) == set(names)
    assert await desk.committed() == await desk.ends()


async def _until_answered(desk: Desk, names: set[str]) -> None:
    """Wait until every request has a result of each agent."""
    async with asyncio.timeout(60):
        for topic in (desk.classified, desk.analysed):
            count = len(names)
            while not names <= set(ids(records := await desk.read(topic, count, patience_s=60))):
                count = len(records) + 1
