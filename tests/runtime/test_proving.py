"""The child process that tries a version: what it knows, and what its end says."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from bad_versions import endless
from tiny_model import write_tiny_model

from murmura.runtime.errors import VersionRefused
from murmura.runtime.release import trial_process as proving
from murmura.runtime.release.trial_process import prove

MEMORY = 8 * 2**30
SECRETS = {
    "MURMURA_KAFKA__SECURITY__PASSWORD": "hunter2",
    "AWS_SECRET_ACCESS_KEY": "hunter2",
    "GOOGLE_APPLICATION_CREDENTIALS": "hunter2",
    "AZURE_STORAGE_CONNECTION_STRING": "hunter2",
    "MY_TOKEN": "hunter2",
}


def children():
    found = subprocess.run(
        ["ps", "-ww", "-o", "pid=,args=", "--ppid", str(os.getpid())], capture_output=True, text=True
    )
    return [int(line.split()[0]) for line in found.stdout.splitlines() if "runtime.release.trial_process" in line]


def signal_the_child(number):
    """Send a signal to the next child that tries a version."""

    def send():
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            if found := children():
                time.sleep(0.3)  # it has begun
                os.kill(found[0], number)
                return
            time.sleep(0.01)

    threading.Thread(target=send, daemon=True).start()


def test_the_child_gets_no_secret_of_this_process(tmp_path, monkeypatch):
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MURMURA_CACHE", str(tmp_path / "cache"))
    asked = []
    popen = subprocess.Popen

    def watch(command, **more):
        asked.append(more["env"])
        return popen(
            [sys.executable, "-c", "import os, json; print(json.dumps({'folder': '/' + '|'.join(os.environ)}))"], **more
        )

    monkeypatch.setattr(proving.subprocess, "Popen", watch)
    seen = str(prove(tmp_path, "ragged", timeout_s=20, memory_bytes=MEMORY))
    assert "hunter2" not in json.dumps(asked)
    assert not set(SECRETS) & set(seen.strip("/").split("|"))
    assert "MURMURA_CACHE" in seen


def test_a_good_version_passes_with_that_environment(tmp_path):
    folder = write_tiny_model(tmp_path / "model")
    assert prove(folder, "ragged", timeout_s=60, memory_bytes=MEMORY) == folder


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="computing time is read from /proc")
@pytest.mark.parametrize(
    ("number", "timeout_s", "reason"),
    [(signal.SIGKILL, 30, "too_large"), (signal.SIGSTOP, 3, "endless")],
    ids=["killed as if for memory", "kept waiting"],
)
def test_what_may_be_the_machines_fault_is_no_certain_refusal(tmp_path, number, timeout_s, reason):
    folder = endless(write_tiny_model(tmp_path / "model"))
    signal_the_child(number)
    with pytest.raises(VersionRefused) as refused:
        prove(folder, "ragged", timeout_s=timeout_s, memory_bytes=MEMORY)
    assert (refused.value.reason, refused.value.certain) == (reason, False)
