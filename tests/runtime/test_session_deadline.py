"""Runs of a graph that nobody trusts yet: they end when their time is up, or when nobody waits for them any more."""

import threading
import time
from pathlib import Path

import numpy as np
import pytest
import spox.opset.ai.onnx.v17 as op
from spox import Tensor, argument, build

from murmura.runtime.errors import ModelFailed
from murmura.runtime.model.onnx_session import Session, open_session

FEEDS = {"x": np.zeros(1, np.float32)}


@pytest.fixture
def endless() -> Session:
    x = argument(Tensor(np.float32, ("N",)))
    often, go_on = op.const(np.array([2**62])), op.const(np.array([True]))
    (y,) = op.loop(often, go_on, [x], body=lambda i, on, v: [on, op.add(v, op.const(np.ones(1, np.float32)))])
    return open_session(build({"x": x}, {"y": y}).SerializeToString(), "cpu")


def test_a_run_that_goes_on_too_long_is_ended_and_so_is_every_later_one(endless: Session) -> None:
    began = time.monotonic()
    with endless.within(0.3, threading.Event()):
        for _ in range(2):
            with pytest.raises(ModelFailed):
                endless.run(FEEDS)
    assert time.monotonic() - began < 60
    assert endless.overdue


def test_a_run_ends_when_it_is_given_up(endless: Session) -> None:
    given_up = threading.Event()
    threading.Timer(0.2, given_up.set).start()
    with endless.within(60.0, given_up), pytest.raises(ModelFailed):
        endless.run(FEEDS)


def test_a_session_that_was_in_time_goes_on(tiny_model: Path) -> None:
    session = open_session((tiny_model / "model.ragged.onnx").read_bytes(), "cpu")
    with session.within(0.05, threading.Event()):
        pass
    time.sleep(0.2)
    assert not session.overdue
