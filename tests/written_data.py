"""Reads a data file that a test has just written: its examples and counts, or the one line that refuses it."""

from pathlib import Path
from typing import Any

import pytest

from murmura.runtime.errors import SetupError
from murmura.training.data.counts import ReadCounts
from murmura.training.data.example import Example
from murmura.training.prepare.reading import read_counted
from murmura.training.recipe.keys.tasks import Task


def read_all(folder: Path, content: str, name: str = "x.json", **keys: Any) -> tuple[list[Example], ReadCounts]:
    (folder / name).write_text(content, encoding="utf-8")
    task = Task.model_validate({"train": name, **keys})
    return read_counted(task.train, task, folder, seed=1)


def refusal(folder: Path, content: str, name: str = "x.json", **keys: Any) -> str:
    with pytest.raises(SetupError) as caught:
        read_all(folder, content, name, **keys)
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix(str(folder) + "/")
