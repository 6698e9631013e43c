"""A disk that takes no more, by the limit that the system sets on the size of a file: real errors of real writes."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager

MOST = 4096


@contextmanager
def no_room(most: int = MOST) -> Iterator[None]:
    """Let this process write no file beyond so many bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
