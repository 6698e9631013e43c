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


def open_client(console: Console, client: str = "127.0.0.1", headers: dict[str, str] | None = None) -> TestClient:
    return TestClient(
        console.application,
        base_url="http://127.0.0.1:9480",
        client=(client, 50_000),
        headers=HERE | (headers or {}),
        follow_redirects=False,
    )


@pytest.fixture
def browse(make_console: Callable[..., Console]) -> Callable[..., TestClient]:
    """`browse(read_only=True)` is a browser on this machine, at a console with these settings."""

    def make(*, client: str = "127.0.0.1", headers: dict[str, str] | None = None, **settings: Any) -> TestClient:
        return open_client(make_console(**settings), client, headers)

    return make


@pytest.fixture
def browse_at() -> Callable[..., TestClient]:
    """`browse_at(kafka=..., model=...)` is a browser on this machine, at a console with these sections of settings."""
    return lambda **sections: open_client(assemble(Settings(**sections)))
