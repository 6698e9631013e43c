"""What a command needs to be installed."""

import importlib.util

from ...runtime.errors import SetupError


def need_training() -> None:
    """Refuse where a package of the extra `training` is missing."""
    names = ("torch", "transformers", "peft", "accelerate", "sklearn", "safetensors", "spox", "tensorboard", "tqdm")
    missing = [name for name in names if not importlib.util.find_spec(name)]
    if missing:
        raise SetupError(f"training needs {', '.join(missing)}: pip install 'murmura[training,cpu]'")
