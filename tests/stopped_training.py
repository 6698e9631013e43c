"""Interrupts a training where a test says."""

from typing import Any

import pytest

from murmura.training.fit import gradient


class Stopped(Exception):
    """Raised in the middle of a run."""


def stop_before(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Interrupt the run when it collates the rows of this step."""
    collate = gradient.collate

    def collate_or_stop(parts: Any, tasks: Any, rows: Any, device: str) -> Any:
        calls.append(rows)
        if len(calls) == step:
            raise Stopped
        return collate(parts, tasks, rows, device)

    calls: list[Any] = []
    monkeypatch.setattr(gradient, "collate", collate_or_stop)
