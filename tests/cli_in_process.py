"""The command line in this process: what it prints and its code, without the seconds that a process of its own takes to start."""

import io
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import chdir, contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from subprocess import CompletedProcess
from unittest import mock

import structlog

from murmura.runtime.cli.main import main


def run_here(*arguments: object, stdin: str = "", cwd: Path | None = None) -> CompletedProcess[str]:
    """Run `murmura` with these arguments, in an environment without settings."""
    words = ["murmura", *map(str, arguments)]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MURMURA_")}
    out, err, code = io.StringIO(), io.StringIO(), 0
    with (
        mock.patch.object(sys, "argv", words),
        mock.patch.object(sys, "path", [*sys.path]),
        mock.patch.dict(os.environ, clean | {"COLUMNS": "120"}, clear=True),
        chdir(cwd or Path.cwd()),
        _logging_as_before(),
        _stdin(stdin),
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as ended:
            code = int(ended.code or 0)
    return CompletedProcess(words, code, out.getvalue(), err.getvalue())


def refused_here(*arguments: object, cwd: Path | None = None) -> str:
    """What a command says that cannot start: one line on stderr and code 2."""
    done = run_here(*arguments, cwd=cwd)
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("murmura: ")
    return done.stderr


@contextmanager
def _stdin(text: str) -> Iterator[None]:
    """Commands read the descriptor 0 itself."""
    kept = os.dup(0)
    with tempfile.TemporaryFile() as file:
        file.write(text.encode())
        file.seek(0)
        os.dup2(file.fileno(), 0)
        try:
            yield
        finally:
            os.dup2(kept, 0)
            os.close(kept)


@contextmanager
def _logging_as_before() -> Iterator[None]:
    """A command sends all logging to its own stderr, which ends with it."""
    root, was_configured, before = logging.getLogger(), structlog.is_configured(), structlog.get_config()
    handlers, level = [*root.handlers], root.level
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        if was_configured:
            structlog.configure(**before)
        else:
            structlog.reset_defaults()
