"""Health: the verdicts by arithmetic, and the three paths over HTTP."""

import asyncio
import json
import signal
import urllib.error
import urllib.request

import pytest
from prometheus_client import CollectorRegistry

from murmura.runtime.errors import SetupError
from murmura.runtime.observe.health import LIVE_PATIENCE, HealthApp, HealthState
from murmura.runtime.observe.http_server import HttpServer
from murmura.runtime.observe.metrics import Metrics


def well() -> HealthState:
    return HealthState(overdue_s=10, model_loaded=True, group_joined=True)


def test_a_process_without_partitions_or_work_is_ready_and_live():
    assert well().ready(1e6) == []
    assert well().live(1e6) == []


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"model_loaded": False}, "no model is loaded"),
        ({"group_joined": False}, "the consumer group is not joined"),
        ({"stopping": True}, "stopping"),
    ],
)
def test_what_is_missing_is_the_reason(change, reason):
    state = well()
    for name, value in change.items():
        setattr(state, name, value)
    assert state.ready(0) == [reason]
    assert state.live(0) == []


def test_work_without_progress_is_unready_and_much_later_dead():
    state = well()
    state.set_work(True, now=100)
    state.set_work(True, now=105)
    assert state.ready(110) == []
    assert state.ready(111) == ["no record finished for 11 s while some wait"]
    assert state.live(111) == []
    assert state.live(101 + LIVE_PATIENCE * 10) != []
    state.note_progress(200)
    assert state.ready(201) == []


def test_an_idle_hour_is_no_delay_for_the_first_record_after_it():
    state = well()
    state.note_progress(0)
    state.set_work(False, now=10)
    state.set_work(True, now=3600)
    assert state.ready(3605) == []


@pytest.fixture
async def server():
    state = well()
    served = HttpServer(HealthApp(state, Metrics().registry), ("127.0.0.1", 0))
    await served.start()
    yield state, served
    await served.stop()


async def fetch(url: str) -> tuple[int, str]:
    def get() -> tuple[int, str]:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    return await asyncio.to_thread(get)


async def test_the_three_paths_answer_on_a_free_port(server):
    state, served = server
    state.details["model"] = "desk/3"
    assert not served.address.endswith(":0")
    status, body = await fetch(f"{served.url}/readyz")
    assert (status, json.loads(body)) == (200, {"ready": True, "reasons": [], "model": "desk/3"})
    assert (await fetch(f"{served.url}/livez"))[0] == 200
    status, body = await fetch(f"{served.url}/metrics")
    assert status == 200
    assert "murmura_in_flight_records" in body
    assert (await fetch(f"{served.url}/"))[0] == 404


async def test_metrics_answer_while_a_reading_raises():
    def broken() -> int:
        raise AssertionError("no consumer yet")

    metrics = Metrics()
    metrics.watch(assigned=broken, lag=broken, paused=lambda: 3)
    served = HttpServer(HealthApp(well(), metrics.registry), ("127.0.0.1", 0))
    await served.start()
    try:
        status, body = await fetch(f"{served.url}/metrics")
    finally:
        await served.stop()
    assert status == 200
    assert "murmura_paused_partitions 3.0" in body
    assert "\nmurmura_assigned_partitions " not in body


async def test_not_ready_is_503_with_the_reasons(server):
    state, served = server
    state.model_loaded = False
    status, body = await fetch(f"{served.url}/readyz")
    assert (status, json.loads(body)["reasons"]) == (503, ["no model is loaded"])


async def test_signal_handlers_are_left_alone():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    served = HttpServer(HealthApp(well(), CollectorRegistry()), ("127.0.0.1", 0))
    await served.start()
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    await served.stop()


def test_an_address_in_use_is_refused_with_the_way_out():
    first = HttpServer(HealthApp(well(), CollectorRegistry()), ("127.0.0.1", 0))
    first._socket.listen()
    port = first._socket.getsockname()[1]
    with pytest.raises(
        SetupError, match=rf"http 127\.0\.0\.1:{port}: address already in use; choose another with --http"
    ):
        HttpServer(HealthApp(well(), CollectorRegistry()), ("127.0.0.1", port))
    first._socket.close()
