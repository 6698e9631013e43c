"""The console's own files. A digest in their addresses lets browsers keep them until they change."""

import os
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs

from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

STATIC: Final = Path(__file__).parent / "static"
PATH: Final = "/static"
_KEPT: Final = "public, max-age=31536000, immutable"


@cache
def _find_digest(name: str) -> str:
    return sha256((STATIC / name).read_bytes()).hexdigest()[:16]


def make_static_url(name: str) -> str:
    """Return the address of a file: it changes with the file."""
    return f"{PATH}/{name}?v={_find_digest(name)}"


class OwnFiles(StaticFiles):
    """The files of the console; one that is asked for by its digest may be kept for a year, others not at all."""

    def __init__(self) -> None:
        super().__init__(directory=STATIC)

    def file_response(
        self, full_path: str | os.PathLike[str], stat_result: os.stat_result, scope: Scope, status_code: int = 200
    ) -> Response:
        answer = super().file_response(full_path, stat_result, scope, status_code)
        asked = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("v", [""])[0]
        if asked == _find_digest(Path(full_path).name):
            answer.headers["cache-control"] = _KEPT
        return answer
