"""What the demos that train have in common: the packages that they need, and the folder that they work in."""

import contextlib
import importlib.util
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ...runtime.errors import SetupError


def need_training(demo: str) -> None:
    """Raise SetupError where the training extra is not installed."""
    if any(importlib.util.find_spec(name) is None for name in ("torch", "transformers", "peft", "sklearn")):
        raise SetupError(f"{demo} trains a model: `make {demo}`, or pip install 'murmura[demo,training]'")


@contextlib.contextmanager
def work_folder(keep: Path | None) -> Iterator[Path]:
    """Yield the folder for all output, the model cache included: the user's own cache is not used."""
    with contextlib.ExitStack() as stack:
        if keep is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="murmura-demo-")))
        else:
            if keep.exists():
                raise SetupError(f"--keep {keep}: it exists; name a new folder")
            keep.mkdir(parents=True)
            folder = keep.resolve()
        os.environ["MURMURA_CACHE"] = str(folder / "cache")
        yield folder
