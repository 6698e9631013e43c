"""What a binding says of its own objects at the end is dropped, everything else on standard error is not."""

import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parent
SAID = """\
nanobind: leaked 2 instances!
 - leaked instance 0x7f5 of type "onnx.onnx_cpp2py_export.defs.OpSchema"
nanobind: leaked 31 types!
 - leaked type "onnx.onnx_cpp2py_export.defs.OpSchema"
 - ... skipped remainder
nanobind: leaked 12 functions!
 - leaked function "has"
nanobind: this is likely caused by a reference counting issue in the binding code.
See https://nanobind.readthedocs.io/en/latest/refleaks.html
"""


def ended_with(*lines: str) -> str:
    code = "import os; from leak_messages import drop_leak_messages; drop_leak_messages(); os.write(2, {!r})"
    command = [sys.executable, "-c", code.format("".join(lines).encode())]
    return subprocess.run(command, cwd=TESTS, capture_output=True, text=True, timeout=30, check=True).stderr


def test_messages_about_leaks_are_dropped():
    assert ended_with(SAID) == ""


def test_an_error_among_them_is_passed_on():
    error = "Fatal Python error: Segmentation fault\n - leaked nothing\n"
    assert ended_with(SAID, "Traceback\n", SAID, "last without line end") == "Traceback\nlast without line end"
    assert ended_with(error) == error
