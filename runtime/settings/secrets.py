"""Reads secrets from files, as mounted by orchestrators.

`KEY_file` instead of a secret setting `KEY`, in the settings file or as the variable `..._FILE`, names the file with its
value.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from ..errors import SetupError

FROM_FILES: Final = (("kafka", "security", "username"), ("kafka", "security", "password"), ("model", "store"))
"""Settings that may come from a file; of the agents' options, those of type SecretStr may."""
SUFFIX: Final = "_file"
MAX_BYTES: Final = 65_536


def read_secret(path: Path, place: str) -> str:
    """Return the text of a secret's file without the final line end. `place` names the setting. Raises SetupError."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise SetupError(f"{place}: {path} cannot be read: {error.strerror}") from None
    if len(content) > MAX_BYTES:
        raise SetupError(f"{place}: {path} holds more than {MAX_BYTES} bytes: expected a secret alone")
    try:
        text = content.decode("utf-8").removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise SetupError(f"{place}: {path} is not UTF-8") from None
    if not text:
        raise SetupError(f"{place}: {path} is empty")
    return text


def fill_from_file(values: dict[str, Any], key: str, place: Callable[[str], str], folder: Path | None) -> None:
    """Replace `KEY_file` in `values` by `KEY`. `place` returns the source of a key, and the key. Raises SetupError."""
    named = key + SUFFIX
    if values.get(named) is None:
        values.pop(named, None)
        return
    if values.get(key) is not None:
        raise SetupError(f"{place(named)}: {key} is set too ({place(key)}); leave one of them out")
    path = values.pop(named)
    if not isinstance(path, str):
        raise SetupError(f"{place(named)}: expected the path of a file")
    values[key] = read_secret(folder / path if folder else Path(path), place(named))


def section_of(merged: Mapping[str, Any], path: tuple[str, ...]) -> dict[str, Any] | None:
    """Return the mapping of the last key of `path`; None without one."""
    values: Any = merged
    for part in path[:-1]:
        values = values.get(part) if isinstance(values, Mapping) else None
    return values if isinstance(values, dict) else None
