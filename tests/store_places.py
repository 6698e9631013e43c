"""Places for a model store to lie in: each is written behind the store's back through the same few calls."""

import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import fsspec

PLACES = ("folder", "file", "memory")


class Place:
    """`url` is for ModelStore; paths are relative to it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.files, self.root = fsspec.core.url_to_fs(url)
        self.folder: Path | None = None if url.startswith("memory") else Path(self.root)

    @classmethod
    @contextmanager
    def made(cls, kind: str, tmp_path: Path) -> Iterator[Self]:
        folder = tmp_path / "store"
        urls = {"folder": str(folder), "file": folder.as_uri(), "memory": f"memory://{uuid.uuid4().hex}/models"}
        place = cls(urls[kind])
        place.files.makedirs(place.root, exist_ok=True)
        yield place
        if place.folder:
            shutil.rmtree(place.folder, ignore_errors=True)
        elif place.files.exists(place.root):
            place.files.rm(place.root, recursive=True)

    def read(self, path: str) -> bytes:
        return self.files.cat_file(f"{self.root}/{path}")

    def write(self, path: str, content: bytes) -> None:
        self.files.makedirs(f"{self.root}/{path}".rpartition("/")[0], exist_ok=True)
        self.files.pipe_file(f"{self.root}/{path}", content)

    def remove(self, path: str) -> None:
        self.files.rm_file(f"{self.root}/{path}")

    def content(self, under: str) -> dict[str, bytes]:
        """Every file below a path."""
        found = self.files.find(f"{self.root}/{under}")
        return {path.removeprefix(self.root).lstrip("/"): self.files.cat_file(path) for path in found}
