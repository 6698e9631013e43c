"""What safetensors says of the operating system, as OSError: a full disk is one kind of error, whoever wrote."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

_CODE = re.compile(r"\(os error (\d+)\)")


@contextmanager
def as_os_error(path: Path) -> Iterator[None]:
    """Raise OSError with its code where safetensors could not write the file because the system refused it."""
    try:
        yield
    except SafetensorError as error:
        if (found := _CODE.search(str(error))) is None:
            raise
        code = int(found[1])
        raise OSError(code, os.strerror(code), str(path)) from None
