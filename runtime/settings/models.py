"""Settings of the models of a process."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, StringConstraints, model_validator

from ..cores import count_cores
from .kafka import Positive, Seconds, Section


def _refuse_address(folder: Any) -> Any:
    if isinstance(folder, str) and "://" in folder:
        raise ValueError("expected a folder, found an address; a model store's address is model.store")
    return folder


class ModelSettings(Section):
    """The model, its device, and how batches are formed."""

    folder: Annotated[Path | None, BeforeValidator(_refuse_address)] = None
    """A model folder or a delta folder. With `store` it serves until the first release."""
    store: Annotated[str, StringConstraints(min_length=1)] | None = None
    """Folder or fsspec URL of the model store. If set, releases of `name` are followed and swapped in."""
    name: Annotated[str, StringConstraints(min_length=1)] | None = None
    """Name of the serving model in the store."""
    device: Literal["auto", "cuda", "cpu"] = "auto"
    cores: Positive = Field(default_factory=count_cores)
    """Concurrent forward passes on a CPU, each on one core. Default: the cores available to the process."""
    graph: Literal["ragged", "padded"] = "ragged"
    token_budget: Positive | None = None
    """Tokens in a batch; default: measured at start."""
    max_rows: Positive = 256
    max_wait_ms: Annotated[float, Field(ge=0)] = 0.0
    """How long a batch may wait for more records. 0: a batch is closed as soon as the device is free."""
    max_hold_ms: Annotated[float, Field(ge=0)] = 20.0
    """How long a batch that is not full may wait while another loaded version has work."""
    reply_rows: Positive | None = None
    """Replies that are decoded together; default: 32 on a CPU, 256 on an accelerator. Bounds the memory of a decoder."""
    steps_between_passes: Positive = 2
    """Maximum number of decoder steps between two forward passes while texts wait."""
    run_deadline_s: Seconds = 5.0
    """Deadline of a forward pass, and of a decoder step; at least 20 times the time measured at start."""
    probe_pause_s: Seconds = 0.5
    """Pause before a failed device is probed; doubled after each failed probe, up to 10 s."""
    give_up_s: Seconds = 60.0
    """The process ends when the device has answered no batch for this time after its first failure."""
    trial_timeout_s: Seconds = 60.0
    """Time limit of the process that tries a version before it serves."""
    trial_memory_bytes: Positive = 8 * 2**30
    """Address space limit of that process; the libraries alone map about 2 GiB."""

    @model_validator(mode="after")
    def _store_and_name_go_together(self) -> Self:
        if (self.store is None) != (self.name is None):
            alone, other = ("store", "name") if self.store else ("name", "store")
            raise ValueError(f"{alone} is set without {other}: releases are followed for one model of one store")
        return self


class NamedModelSettings(Section):
    """One of several models of a process; what it leaves out is as in `model`."""

    folder: Annotated[Path | None, BeforeValidator(_refuse_address)] = None
    """As `model.folder`."""
    store: Annotated[str, StringConstraints(min_length=1)] | None = None
    """As `model.store`; releases of the model of this name are followed."""
    graph: Literal["ragged", "padded"] | None = None
    token_budget: Positive | None = None
    reply_rows: Positive | None = None
    weight: Annotated[float, Field(gt=0, le=1000)] = 1.0
    """Share of the device time while other models have work, relative to their weights."""

    @model_validator(mode="after")
    def _is_somewhere(self) -> Self:
        if self.folder is None and self.store is None:
            raise ValueError("neither folder nor store is set: name where the model is")
        return self
