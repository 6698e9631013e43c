"""The command line in this process: what it prints and its code, without the seconds that a process of its own takes to start."""

import io
import os
import sys
from contextlib import redirect_stderr, redirect_stdout
from subprocess import CompletedProcess
from unittest import mock

from murmura.runtime.cli.main import main


def run_here(*arguments: object) -> CompletedProcess[str]:
    """Run `murmura` with these arguments, in an environment without settings."""
    words = ["murmura", *map(str, arguments)]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MURMURA_")}
    out, err, code = io.StringIO(), io.StringIO(), 0
    with (
        mock.patch.object(sys, "argv", words),
        mock.patch.dict(os.environ, clean | {"COLUMNS": "120"}, clear=True),
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as ended:
            code = int(ended.code or 0)
    return CompletedProcess(words, code, out.getvalue(), err.getvalue())


def refused_here(*arguments: object) -> str:
    """What a command says that cannot start: one line on stderr and code 2."""
    done = run_here(*arguments)
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("murmura: ")
    return done.stderr
