"""Fixtures of the tests of the runtime."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml


@pytest.fixture
def no_settings_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take all variables of settings away."""
    for name in [name for name in os.environ if name.startswith("MURMURA_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def config(tmp_path: Path) -> Callable[[object], Path]:
    """Write a settings file, from text or from what is dumped as YAML, and return its path."""

    def write(settings: object) -> Path:
        path = tmp_path / "murmura.yaml"
        path.write_text(settings if isinstance(settings, str) else yaml.safe_dump(settings))
        return path

    return write
