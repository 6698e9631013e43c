"""The cache of versions, which several processes share: folders go and come under each other's hands."""

import errno
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tiny_model import TASKS, write_tiny_model

from murmura.runtime.errors import VersionRefused
from murmura.runtime.model.deltas import cache as version_cache
from murmura.runtime.model.deltas.cache import remove_old, temporary_path
from murmura.runtime.model.folders.folder import check_folder
from murmura.runtime.release import store as model_store
from murmura.runtime.release.store import ModelStore


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("made") / "tiny", TASKS[:1], name="desk")


@pytest.fixture
def store(tmp_path: Path, made: Path) -> ModelStore:
    """A store with desk 1 to 6."""
    store = ModelStore(tmp_path / "store")
    for _ in range(6):
        store.push(made)
    return store


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def fetch(store: ModelStore, version: int, cache: Path) -> Path:
    return store.fetch("desk", version, store.digest("desk", version), cache)


def test_many_who_fetch_and_forget_at_once_are_all_served(store, cache):
    def often(seed: int) -> None:
        for step in range(12):
            fetch(store, (seed * 5 + step * 7) % 6 + 1, cache)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(often, range(6)))


def test_a_folder_that_vanishes_while_it_is_looked_at_is_fetched_again(store, cache, monkeypatch):
    fetched = fetch(store, 1, cache)

    def vanish(folder: Path) -> Any:
        version_cache.discard(fetched)
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(folder))

    monkeypatch.setattr("murmura.runtime.model.folders.folder.check_folder", vanish)
    fetch(store, 1, cache)
    monkeypatch.undo()
    check_folder(fetched)


def test_folders_that_vanish_while_old_ones_are_forgotten_are_no_error(cache, monkeypatch):
    for number in range(8):
        (cache / f"desk-{number}-{number:032x}").mkdir(parents=True)
    listed = list(cache.iterdir())
    for folder in listed[::2]:
        folder.rmdir()
    monkeypatch.setattr(Path, "iterdir", lambda self: iter(listed))
    remove_old(cache, "desk", listed[1])
    assert listed[1].exists()


def test_what_a_killed_download_left_is_swept_away_once_nobody_writes_to_it(store, cache):
    cache.mkdir()
    name = f"desk-1-{'0' * 32}"
    left, fresh, grows, other = (
        cache / entry
        for entry in (f".{name}.123.0a1b2c3d", f".{name}.124.0a1b2c3d", f".{name}.125.0a1b2c3d", ".precious")
    )
    for folder in (left, fresh, grows, other):
        folder.mkdir()
        (folder / "model.ragged.onnx").write_bytes(b"half")
    for path in (left / "model.ragged.onnx", left, grows, other / "model.ragged.onnx", other):
        os.utime(path, (0, 0))
    fetch(store, 1, cache)
    assert [folder.exists() for folder in (left, fresh, grows, other)] == [False, True, True, True]


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (errno.ENOSPC, "no_room"),
        (errno.EDQUOT, "no_room"),
        (errno.EFBIG, "failed"),
        (errno.EACCES, "failed"),
        (errno.EROFS, "failed"),
    ],
)
def test_only_a_full_disk_is_a_lack_of_room(store, cache, monkeypatch, number, reason):
    def fail(target: Path, chunks: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(model_store, "_write", fail)
    with pytest.raises(VersionRefused) as caught:
        fetch(store, 1, cache)
    assert caught.value.reason == reason


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.EACCES])
def test_a_store_whose_files_cannot_be_opened_is_out_of_reach_and_not_damaged(store, cache, monkeypatch, number):
    digest = store.digest("desk", 1)

    def fail(path: str, flags: int) -> int:
        raise OSError(number, os.strerror(number), path)

    monkeypatch.setattr("murmura.runtime.model.folders.folder._open_no_link", fail)
    with pytest.raises(VersionRefused) as caught:
        store.fetch("desk", 1, digest, cache)
    assert (caught.value.reason, caught.value.retriable) == ("store_unreachable", True)


def test_a_download_that_still_grows_in_a_nested_folder_is_not_swept(tmp_path):
    download = temporary_path(tmp_path / f"desk-1-{'a' * 32}")
    file = download / "training" / "data" / "rows.jsonl"
    file.parent.mkdir(parents=True)
    file.write_text("{}")
    for folder in (download, download / "training", file.parent):
        os.utime(folder, (time.time() - 3600,) * 2)
    remove_old(tmp_path, "desk", tmp_path / f"desk-2-{'b' * 32}")
    assert file.exists()
    os.utime(file, (time.time() - 3600,) * 2)
    remove_old(tmp_path, "desk", tmp_path / f"desk-2-{'b' * 32}")
    assert not download.exists()
