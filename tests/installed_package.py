"""A package as if it were installed: its modules and its entry points, for as long as a test needs them."""

import importlib
import sys
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from murmura.runtime.model.kinds.registry import KINDS

ROOT = Path(__file__).resolve().parents[1]
OWN_KIND = ROOT / "examples/e10_own_kind"
PAIRS = ROOT / "examples/e11_pair_of_texts"


@contextmanager
def installed(package: str, folder: Path, groups: Mapping[str, Mapping[str, str]], scratch: Path) -> Iterator[None]:
    """Put `folder`, which holds the package's modules, on the path with these entry points (group, name, object)."""
    information = scratch / f"{package}-1.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1\n")
    lines = [line for group, points in groups.items() for line in (f"[{group}]", *map(" = ".join, points.items()))]
    (information / "entry_points.txt").write_text("\n".join(lines) + "\n")
    paths = [str(folder), str(scratch)]
    sys.path[:0] = paths
    refresh()
    try:
        yield
    finally:
        for path in paths:
            sys.path.remove(path)
        for module in [name for name in sys.modules if name.split(".")[0] == package]:
            del sys.modules[module]
        refresh()


def refresh() -> None:
    importlib.invalidate_caches()
    KINDS.refresh()
    trained = sys.modules.get("murmura.training.kinds.registry")
    if trained is not None:
        trained.KINDS.refresh()


@contextmanager
def installed_example(scratch: Path, folder: Path = OWN_KIND) -> Iterator[None]:
    """Install the kind of an example as its pyproject.toml says."""
    project = tomllib.loads((folder / "pyproject.toml").read_text())
    (package,) = project["tool"]["setuptools"]["packages"]
    with installed(package, folder, project["project"]["entry-points"], scratch):
        yield
