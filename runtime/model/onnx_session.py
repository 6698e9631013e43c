"""The one door to onnxruntime: which distribution is installed, which device a graph really runs on, and running it."""

import importlib.util
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from threading import Event, Lock, Thread, get_ident
from typing import Any, Final, Literal, Protocol

import numpy.typing as npt

from ..errors import ModelFailed, ModelRefused, SetupError
from .device_faults import model_error

Array = npt.NDArray[Any]
Device = Literal["auto", "cuda", "cpu"]

_PROVIDERS: Final = {"cuda": "CUDAExecutionProvider", "cpu": "CPUExecutionProvider"}
# Full float32, so that a GPU reproduces the reference sample and the thresholds chosen on a CPU; and an arena that grows
# by what is asked for, since batches differ in size.
_OPTIONS: Final = {"cuda": {"use_tf32": "0", "arena_extend_strategy": "kSameAsRequested"}, "cpu": {}}
_ERRORS_ONLY: Final = 3
_FATAL_ONLY: Final = 4
_LOOK_S: Final = 0.05


class Runner(Protocol):
    """Whatever answers feeds with outputs: a session, or a simulated device in a benchmark."""

    @property
    def device(self) -> str: ...

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]: ...
    def terminate(self, thread: int | None = None) -> None: ...


def check_installation() -> None:
    """Raise SetupError unless exactly one distribution of onnxruntime is there.

    The wheels of `onnxruntime` and `onnxruntime-gpu` write the same folder, so with both it is chance which one runs.
    """
    found = [name for name in ("onnxruntime", "onnxruntime-gpu") if _installed(name)]
    if len(found) == 2:
        raise SetupError(
            "onnxruntime and onnxruntime-gpu are both installed and overwrite each other: "
            "pip uninstall -y onnxruntime onnxruntime-gpu, then pip install 'murmura[cpu]' or 'murmura[gpu]'"
        )
    if not found and importlib.util.find_spec("onnxruntime") is None:
        raise SetupError("no onnxruntime is installed: pip install 'murmura[cpu]' (or 'murmura[gpu]' with CUDA)")


def _installed(distribution: str) -> bool:
    try:
        version(distribution)
    except PackageNotFoundError:
        return False
    return True


class Session:
    """A loaded graph. `run` may be called from several threads at once: the weights are shared, each run is its own."""

    def __init__(self, session: Any, run_options: Any) -> None:
        self._session, self._run_options = session, run_options
        self._in_flight: dict[int, Any] = {}
        """Options of the runs by the thread that waits for each."""
        self._lock = Lock()
        self.overdue = False
        """The time of `within` was up, or was given up: nothing is run any more."""
        self.inputs = tuple(i.name for i in session.get_inputs())
        self.outputs = tuple(o.name for o in session.get_outputs())
        self.device = "cuda" if _PROVIDERS["cuda"] in session.get_providers() else "cpu"

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Return every output by name.

        Raises ModelFailed when the run fails or `terminate` ended it, DeviceFailed where the error is the device's.
        """
        session = self._session
        if session is None:
            raise ModelFailed("the session has been closed")
        options = self._run_options()
        with self._lock:
            if self.overdue:
                raise ModelFailed("its time is up")
            self._in_flight[get_ident()] = options
        try:
            return dict(zip(self.outputs, session.run(self.outputs, feeds, options), strict=True))
        except Exception as error:
            # onnxruntime raises a dozen unrelated classes; its first line says which operator gave up.
            raise model_error(error, "onnxruntime") from error
        finally:
            with self._lock:
                self._in_flight.pop(get_ident(), None)

    def terminate(self, thread: int | None = None) -> None:
        """End the runs in flight, or the one of a thread; each raises ModelFailed. Later runs are not affected.

        Takes milliseconds where operators are short: onnxruntime looks only between two of them.
        """
        with self._lock:
            for waits, options in self._in_flight.items():
                if thread in {None, waits}:
                    options.terminate = True

    @contextmanager
    def within(self, seconds: float, given_up: Event) -> Iterator[None]:
        """End runs that go on when the time is up or `given_up` is set: they and all later ones raise ModelFailed.

        For a graph that is not trusted yet: one can be harmless to load and endless to run.
        """
        left = Event()
        watch = Thread(target=self._expire, args=(seconds, given_up, left), daemon=True, name="murmura-deadline")
        watch.start()
        try:
            yield
        finally:
            left.set()
            watch.join()

    def _expire(self, seconds: float, given_up: Event, left: Event) -> None:
        deadline = time.monotonic() + seconds
        while not left.wait(_LOOK_S):
            if given_up.is_set() or time.monotonic() >= deadline:
                with self._lock:
                    self.overdue = True
                self.terminate()
                return

    def close(self) -> None:
        """Let go of the weights; a run in flight keeps them until it ends."""
        self._session = None


def open_session(source: Path | bytes, device: Device = "auto", threads: int = 1) -> Session:
    """Load a graph, from a file or from bytes that have been checked already.

    `threads` is for the operators inside one run; more runs at once is the better use of more cores (no spinning, so a
    waiting thread costs nothing). `auto` takes CUDA when the session really got it, else the CPU; insisting on `cuda`
    raises SetupError where it did not. Raises ModelRefused when onnxruntime does not accept the graph.
    """
    check_installation()
    import onnxruntime  # noqa: PLC0415  (after the check, which explains what a bare ImportError would not)

    offered = _PROVIDERS["cuda"] in onnxruntime.get_available_providers()
    if device == "cuda" and not offered:
        raise SetupError(
            "device cuda was asked for, but this onnxruntime has no CUDA: pip uninstall -y onnxruntime, then pip install 'murmura[gpu]'"
        )
    wants_cuda = offered and device != "cpu"
    if wants_cuda and hasattr(onnxruntime, "preload_dlls"):
        onnxruntime.preload_dlls()
    session = _load(onnxruntime, source, ["cuda", "cpu"] if wants_cuda else ["cpu"], threads)
    loaded = Session(session, onnxruntime.RunOptions)
    if device == "cuda" and loaded.device != "cuda":
        raise SetupError(
            "device cuda was asked for, but onnxruntime fell back to the CPU: check the driver with nvidia-smi and the "
            "CUDA libraries with pip install 'murmura[gpu]', or use --device cpu"
        )
    return loaded


def _load(onnxruntime: Any, source: Path | bytes, devices: list[str], threads: int) -> Any:
    # A provider whose libraries are missing is reported on stderr although we look at the outcome ourselves.
    onnxruntime.set_default_logger_severity(_FATAL_ONLY)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    options.log_severity_level = _ERRORS_ONLY
    model = source if isinstance(source, bytes) else str(source)
    try:
        return onnxruntime.InferenceSession(model, options, providers=[(_PROVIDERS[d], _OPTIONS[d]) for d in devices])
    except Exception as error:
        first = str(error).strip().splitlines()[0][:300]
        raise ModelRefused(f"onnxruntime does not accept the graph: {first}; export the model again") from error
