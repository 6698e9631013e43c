import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest
import spox.opset.ai.onnx.v20 as op
from spox import Tensor, argument, build

from murmura.runtime.errors import ModelFailed, ModelRefused, SetupError
from murmura.runtime.model import onnx_session as session_module
from murmura.runtime.model.onnx_session import Session, check_installation, open_session


def doubling() -> bytes:
    x = argument(Tensor(np.float32, ("n",)))
    return build({"x": x}, {"y": op.add(x, x)}).SerializeToString()


def endless() -> bytes:
    """A graph that loads at once and would run for years."""
    x = argument(Tensor(np.float32, (1,)))
    always = op.const(np.array([True]))
    steps = op.const(np.array([2**62]))
    (y,) = op.loop(steps, always, [x], body=lambda i, cond, v: [cond, op.add(v, op.const(np.ones(1, np.float32)))])
    return build({"x": x}, {"y": y}).SerializeToString()


def installed(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    monkeypatch.setattr(session_module, "_is_installed", lambda name: name in names)


def test_it_runs_and_names_its_outputs() -> None:
    session = open_session(doubling(), "cpu")
    assert session.run({"x": np.array([1, 2], np.float32)})["y"].tolist() == [2, 4]
    assert (session.inputs, session.outputs, session.device) == (("x",), ("y",), "cpu")


def test_it_opens_a_file(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(doubling())
    assert open_session(tmp_path / "m.onnx", "cpu").outputs == ("y",)


def test_both_distributions_at_once_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, "onnxruntime", "onnxruntime-gpu")
    with pytest.raises(SetupError, match=r"both installed.*pip uninstall -y onnxruntime onnxruntime-gpu") as caught:
        open_session(doubling(), "cpu")
    assert "\n" not in str(caught.value)


def test_with_none_the_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch)
    monkeypatch.setattr(session_module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SetupError, match=r"pip install 'murmura\[cpu\]'"):
        check_installation()


def test_an_onnxruntime_of_another_distribution_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch)
    check_installation()


def test_insisting_on_cuda_without_a_build_for_it_is_a_clear_error() -> None:
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime offers CUDA")
    with pytest.raises(SetupError, match=r"no CUDA: pip uninstall -y onnxruntime, then pip install 'murmura\[gpu\]'"):
        open_session(doubling(), "cuda")


class FellBack:
    """onnxruntime-gpu where the CUDA libraries are missing: offered, then not in the session."""

    RunOptions = onnxruntime.RunOptions
    SessionOptions = onnxruntime.SessionOptions

    @staticmethod
    def get_available_providers() -> list[str]:
        return ["CUDAExecutionProvider", "CPUExecutionProvider"]

    @staticmethod
    def set_default_logger_severity(level: int) -> None: ...

    @staticmethod
    def InferenceSession(model: bytes, options: Any, providers: list[Any]) -> Any:
        assert [name for name, _ in providers] == ["CUDAExecutionProvider", "CPUExecutionProvider"]
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def test_the_device_is_what_the_session_really_uses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", FellBack)
    assert open_session(doubling(), "auto").device == "cpu"
    with pytest.raises(SetupError, match="fell back to the CPU"):
        open_session(doubling(), "cuda")


def test_a_session_with_cuda_says_so() -> None:
    inner = SimpleNamespace(
        get_inputs=list, get_outputs=list, get_providers=lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]
    )
    assert Session(inner, onnxruntime.RunOptions).device == "cuda"


@pytest.mark.parametrize("data", [b"", b"nonsense", b"\x80\x04pickle"])
def test_what_is_no_graph_is_refused_in_one_line(data: bytes) -> None:
    with pytest.raises(ModelRefused) as caught:
        open_session(data, "cpu")
    assert "\n" not in str(caught.value)


def test_a_failing_run_is_model_failed_and_the_session_goes_on() -> None:
    session = open_session(doubling(), "cpu")
    with pytest.raises(ModelFailed, match="onnxruntime: "):
        session.run({"x": np.zeros((2, 2), np.int64)})
    assert session.run({"x": np.ones(1, np.float32)})["y"].tolist() == [2]


def test_terminate_ends_a_run_that_would_never_end_and_spares_later_ones() -> None:
    session = open_session(endless(), "cpu")
    failures: list[BaseException] = []

    def run() -> None:
        try:
            session.run({"x": np.zeros(1, np.float32)})
        except ModelFailed as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    time.sleep(0.2)
    assert thread.is_alive()
    session.terminate()
    thread.join(5)
    assert not thread.is_alive()
    assert len(failures) == 1
    other = open_session(doubling(), "cpu")
    other.terminate()
    assert other.run({"x": np.ones(1, np.float32)})["y"].tolist() == [2]


def test_runs_on_one_session_at_once_do_not_mix() -> None:
    session = open_session(doubling(), "cpu")

    def run(i: int) -> bool:
        return bool((session.run({"x": np.full(1000, i, np.float32)})["y"] == 2 * i).all())

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(run, range(200)))


def test_a_closed_session_says_so() -> None:
    session = open_session(doubling(), "cpu")
    session.close()
    with pytest.raises(ModelFailed, match="closed"):
        session.run({"x": np.ones(1, np.float32)})
