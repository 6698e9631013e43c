"""Keeps pytest's summary the last thing on the screen.

onnx's binding (nanobind) counts its objects when the interpreter ends, and writes some forty lines about those that a test still
refers to. They say nothing of Murmura and cannot be switched off from Python. After the summary, standard error goes through a process that
drops these lines alone and passes on all others, a crash's included.
"""

import os
import re
import subprocess
import sys

LEAK = re.compile(
    rb"nanobind: (leaked \d+ |this is likely caused)| - (leaked (instance|type|function|keep_alive) |\.\.\. skipped remainder)|See https://nanobind\."
)


def drop_leak_messages() -> None:
    """Filter standard error of this process from now on; the filter ends with the process."""
    command = [sys.executable, "-S", __file__]
    filtering = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=2, start_new_session=True)
    assert filtering.stdin is not None
    sys.stderr.flush()
    os.dup2(filtering.stdin.fileno(), 2)
    filtering.stdin.close()
    filtering.returncode = 0  # nobody waits for it: it ends after us


if __name__ == "__main__":
    for line in sys.stdin.buffer:
        if not LEAK.match(line):
            sys.stdout.buffer.write(line)
            sys.stdout.buffer.flush()
