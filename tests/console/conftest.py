"""A console without a broker, whose index is filled by hand."""

from collections.abc import Callable
from typing import Any

import pytest
from starlette.testclient import TestClient

from murmura.console.assembly import Console, assemble
from murmura.runtime.settings.settings import Settings

HERE = {"sec-fetch-site": "same-origin"}


@pytest.fixture
def make_console() -> Callable[..., Console]:
    return lambda **settings: assemble(Settings(console=settings))


@pytest.fixture
def browse(make_console: Callable[..., Console]) -> Callable[..., TestClient]:
    """`browse(read_only=True)` is a browser on this machine, at a console with these settings."""

    def make(*, client: str = "127.0.0.1", headers: dict[str, str] | None = None, **settings: Any) -> TestClient:
        return TestClient(
            make_console(**settings).application,
            base_url="http://127.0.0.1:9480",
            client=(client, 50_000),
            headers=HERE | (headers or {}),
            follow_redirects=False,
        )

    return make
