"""How slow a pass was, compared with what was calibrated for one of its size."""

import asyncio
import random

import pytest
from tiny_model import TASKS, tiny_tokenizer

from murmura.runtime.batching.device.runs import DeviceTimer
from murmura.runtime.batching.engine import Engine
from murmura.runtime.batching.queues.entry import Entry
from murmura.runtime.batching.queues.version_queue import VersionTerms
from murmura.runtime.experiments.pass_ratios import PassRatios
from murmura.runtime.model.model import Model
from murmura.runtime.testing.fakes import ManualClock
from murmura.runtime.testing.simulated_runner import SimulatedRunner


class Answered:
    """A sink that waits for one entry."""

    def __init__(self) -> None:
        self.entry = asyncio.get_running_loop().create_future()

    def deliver(self, entries: list[Entry]) -> None:
        self.entry.set_result(entries[0])

    def take_back(self, entries: list[Entry]) -> None:
        raise AssertionError


async def find_ratio(engine: Engine, model: Model) -> float | None:
    sink = Answered()
    (encoded,) = await engine.encode(["hello"], model)
    engine.submit([Entry("hello", ("intent",), encoded, sink, model=model)])
    return (await sink.entry).pass_ratio


async def test_a_device_that_became_slow_shows_in_each_pass_and_a_version_that_was_not_measured_has_none(tiny_model):
    manifest = Model.load(tiny_model, device="cpu").manifest
    runner = SimulatedRunner(TASKS, run_s=0.02, row_s=0)
    model, other = (Model(manifest, tiny_tokenizer(), runner) for _ in range(2))
    engine = Engine(model, token_budget=256)
    await engine.start()
    engine.load_candidate(other, None, lambda fault: None)
    try:
        usual = min([await find_ratio(engine, model) for _ in range(3)])
        runner.run_s = 0.1
        slow = await find_ratio(engine, model)
        assert await find_ratio(engine, other) is None
    finally:
        await engine.stop(5)
    assert usual == pytest.approx(1.0, abs=0.5)
    assert slow > 3.0


def test_on_an_accelerator_a_run_does_not_count_its_wait_for_the_run_before_it():
    clock = ManualClock()
    timer = DeviceTimer(clock)
    long = timer.begin("cuda")
    clock.advance(0.001)
    short = timer.begin("cuda")
    clock.advance(0.1)
    assert timer.end("cuda", long) == pytest.approx(0.101)
    clock.advance(0.002)
    assert timer.end("cuda", short) == pytest.approx(0.002)
    clock.advance(1.0)
    alone = timer.begin("cuda")
    clock.advance(0.003)
    assert timer.end("cuda", alone) == pytest.approx(0.003)


def test_on_a_cpu_a_run_counts_the_time_of_its_thread_whatever_the_load():
    clock = ManualClock()
    timer = DeviceTimer(clock)
    began = timer.begin("cpu")
    clock.advance(1000.0)
    assert 0.0 <= timer.end("cpu", began) < 100.0


def test_without_a_calibration_or_a_whole_pass_there_is_no_ratio():
    terms = VersionTerms(100, 10, 400, overhead_s=0.01, token_s=0.001, is_calibrated=True)
    assert terms.find_pass_ratio(0.06, 20) == pytest.approx(2.0)
    assert terms.find_pass_ratio(None, 20) is None
    assert VersionTerms(100, 10, 400).find_pass_ratio(0.06, 20) is None


def test_of_a_pass_of_less_than_a_millisecond_no_part_counts():
    terms = VersionTerms(100, 10, 400, overhead_s=0.0002, token_s=1e-6, is_calibrated=True)
    assert terms.find_pass_ratio(0.0009, 20) == 1.0
    assert terms.find_pass_ratio(0.0001, 20) == 1.0
    assert terms.find_pass_ratio(0.003, 20) == pytest.approx(3.0)


def judge_windows(draw, calibrated_s, median_s, *, windows=3, passes=600):
    """Windows of passes of one row each, whose device time varies by a third, of versions calibrated and running as given."""
    ratios = PassRatios()
    for window in range(windows):
        for side in ("candidate", "control"):
            terms = VersionTerms(100, 10, 400, overhead_s=calibrated_s[side], token_s=2e-6, is_calibrated=True)
            for _ in range(passes):
                device_s = median_s[side] * draw.lognormvariate(0.0, 0.3)
                ratios.count(window * 10, side, terms.find_pass_ratio(device_s, draw.randint(3, 40)))
    ratios.close_until(windows * 10)
    return ratios


@pytest.mark.parametrize("seed", range(20))
def test_equal_versions_of_small_passes_are_equally_slow_whatever_their_calibration_missed(seed):
    """A pass takes 0.45 ms; its overhead is calibrated as anything from 0.12 to 0.3 ms, as hot passes of more tokens show it."""
    draw = random.Random(seed)
    calibrated_s = {side: draw.uniform(0.00012, 0.0003) for side in ("candidate", "control")}
    ratios = judge_windows(draw, calibrated_s, dict.fromkeys(calibrated_s, 0.00045))
    candidate, control = ratios.latest
    assert candidate / control == pytest.approx(1.0, abs=0.1)
    assert not ratios.is_broken


@pytest.mark.parametrize(
    ("calibrated_s", "candidate_s"), [(0.0002, 0.004), (0.002, 0.008), (0.006, 0.018)], ids=["tiny", "small", "usual"]
)
def test_a_candidate_that_is_truly_slow_is_stopped(calibrated_s, candidate_s):
    calibrated = dict.fromkeys(("candidate", "control"), calibrated_s)
    ratios = judge_windows(random.Random(1), calibrated, {"candidate": candidate_s, "control": calibrated_s})
    assert ratios.is_broken
