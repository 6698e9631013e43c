"""The only importer of onnxruntime: checks the installed distribution and the actual device, and runs graphs."""

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
_CHECK_S: Final = 0.05


class Runner(Protocol):
    """Computes outputs for feeds: a session, or a simulated device in a benchmark."""

    @property
    def device(self) -> str: ...

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]: ...
    def terminate(self, thread: int | None = None) -> None: ...


def check_installation() -> None:
    """Raise SetupError unless exactly one distribution of onnxruntime is installed.

    The wheels of `onnxruntime` and `onnxruntime-gpu` write the same folder, so with both it is undefined which one runs.
    """
    found = [name for name in ("onnxruntime", "onnxruntime-gpu") if _is_installed(name)]
    if len(found) == 2:
        raise SetupError(
            "onnxruntime and onnxruntime-gpu are both installed and overwrite each other: "
            "pip uninstall -y onnxruntime onnxruntime-gpu, then pip install 'murmura[cpu]' or 'murmura[gpu]'"
        )
    if not found and importlib.util.find_spec("onnxruntime") is None:
        raise SetupError("no onnxruntime is installed: pip install 'murmura[cpu]' (or 'murmura[gpu]' with CUDA)")


def _is_installed(distribution: str) -> bool:
    try:
        version(distribution)
    except PackageNotFoundError:
        return False
    return True


class Session:
    """A loaded graph. `run` may be called concurrently from several threads, which share the weights."""

    def __init__(self, session: Any, run_options: Any) -> None:
        self._session, self._run_options = session, run_options
        self._in_flight: dict[int, Any] = {}
        """Options of the runs by calling thread."""
        self._lock = Lock()
        self.overdue = False
        """Whether the time of `within` is over or was given up: then no run starts any more."""
        self.inputs = tuple(i.name for i in session.get_inputs())
        self.outputs = tuple(o.name for o in session.get_outputs())
        self.device = "cuda" if _PROVIDERS["cuda"] in session.get_providers() else "cpu"

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Return every output by name.

        Raises ModelFailed when the run fails or is terminated, DeviceFailed when the device caused the error.
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
            # onnxruntime raises many unrelated classes; the first line names the failed operator.
            raise model_error(error, "onnxruntime") from error
        finally:
            with self._lock:
                self._in_flight.pop(get_ident(), None)

    def terminate(self, thread: int | None = None) -> None:
        """Terminate the runs in flight, or that of one thread; each raises ModelFailed. Later runs are not affected.

        onnxruntime checks between operators only, so this takes milliseconds if they are short.
        """
        with self._lock:
            for waits, options in self._in_flight.items():
                if thread in {None, waits}:
                    options.terminate = True

    @contextmanager
    def within(self, seconds: float, given_up: Event) -> Iterator[None]:
        """Terminate runs after `seconds` or when `given_up` is set: they and all later ones raise ModelFailed.

        For a graph that is not trusted yet: a graph can be harmless to load and endless to run.
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
        while not left.wait(_CHECK_S):
            if given_up.is_set() or time.monotonic() >= deadline:
                with self._lock:
                    self.overdue = True
                self.terminate()
                return

    def close(self) -> None:
        """Release the weights; a run in flight keeps them until it ends."""
        self._session = None


def open_session(source: Path | bytes, device: Device = "auto", threads: int = 1) -> Session:
    """Load a graph from a file, or from bytes that have been checked.

    `threads`: number of threads for the operators of one run; several runs at once use more cores better (no spinning, so a
    waiting thread uses no CPU). `auto` uses CUDA if the session gets it, else the CPU; `cuda` raises SetupError if the
    session does not get it. Raises ModelRefused when onnxruntime does not accept the graph.
    """
    check_installation()
    import onnxruntime  # noqa: PLC0415  (after the check, which explains more than an ImportError)

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
    # A provider with missing libraries is reported on stderr, although the outcome is checked here.
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
