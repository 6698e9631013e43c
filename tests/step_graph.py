"""The step graph of a model's replies under a test's control."""

import time
from collections.abc import Callable, Mapping
from typing import Any

from murmura.runtime.model.model import Model


class StepGraph:
    """The step graph of a model, which can be watched, slowed down and broken."""

    device = "cpu"

    def __init__(self, model: Model) -> None:
        self.runner = model.decoders["reply"]._step
        self.rows: list[int] = []
        self.pause_s = 0.0
        self.failure: Callable[[Mapping[str, Any]], Exception | None] = lambda feeds: None
        model.decoders["reply"]._step = self

    def run(self, feeds: Mapping[str, Any]) -> Mapping[str, Any]:
        self.rows.append(len(feeds["position"]))
        time.sleep(self.pause_s)
        if (error := self.failure(feeds)) is not None:
            raise error
        return self.runner.run(feeds)

    def terminate(self, thread: int | None = None) -> None: ...
