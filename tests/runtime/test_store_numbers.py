"""Numbers of versions: whose they are when an upload is in doubt, and that none is given twice."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from store_places import PLACES, Place
from tiny_model import TASKS, write_tiny_model

from murmura.runtime.errors import VersionRefused
from murmura.runtime.release.store import ModelStore


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("made") / "tiny", TASKS[:1], name="desk")


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    with Place.made(request.param, tmp_path) as place:
        yield place


@pytest.fixture
def bucket(tmp_path: Path) -> Iterator[Place]:
    with Place.made("memory", tmp_path) as place:
        yield place


def test_the_number_of_a_deleted_version_is_not_given_again(place, made):
    store = ModelStore(place.url)
    assert [store.push(made), store.push(made)] == [1, 2]
    place.files.rm(f"{place.root}/desk/2", recursive=True)
    assert store.versions("desk") == [1]
    assert store.push(made) == 3
    for version in (1, 3):
        place.files.rm(f"{place.root}/desk/{version}", recursive=True)
    assert (store.versions("desk"), store.names(), store.push(made)) == ([], [], 4)


def interrupted(place: Place, monkeypatch: pytest.MonkeyPatch, *, before: bool, stuck: bool = False) -> None:
    """Have the write of a manifest fail, before or after the file is there; `stuck`: nothing can be removed then."""
    files = type(place.files)
    write, remove = files.pipe_file, files.rm_file

    def pipe_file(self: Any, path: str, value: bytes, **more: Any) -> None:
        manifest = path.endswith("manifest.json")
        if not (manifest and before):
            write(self, path, value, **more)
        if manifest:
            raise TimeoutError("the answer was lost")

    def rm_file(self: Any, path: str) -> None:
        if stuck:
            raise TimeoutError("no answer")
        remove(self, path)

    monkeypatch.setattr(files, "pipe_file", pipe_file)
    monkeypatch.setattr(files, "rm_file", rm_file)


@pytest.mark.parametrize("before", [True, False])
def test_a_manifest_whose_write_is_in_doubt_leaves_no_version(bucket, made, monkeypatch, before):
    store = ModelStore(bucket.url)
    interrupted(bucket, monkeypatch, before=before)
    with pytest.raises(VersionRefused, match="the answer was lost"):
        store.push(made)
    monkeypatch.undo()
    assert store.versions("desk") == []
    assert all(path.endswith(".claim") for path in bucket.content("desk"))
    assert store.push(made) == 2


def test_a_version_that_may_be_seen_and_cannot_be_taken_back_stays_whole(bucket, made, monkeypatch, tmp_path):
    store = ModelStore(bucket.url)
    interrupted(bucket, monkeypatch, before=False, stuck=True)
    with pytest.raises(VersionRefused):
        store.push(made)
    monkeypatch.undo()
    assert store.versions("desk") == [1]
    store.fetch("desk", 1, store.digest("desk", 1), tmp_path / "cache")


def test_a_second_try_of_a_manifest_finds_the_first_one_there_and_is_no_conflict(bucket, made, monkeypatch):
    """Clients repeat a request whose answer was lost; the number is the pusher's own by then."""
    files = type(bucket.files)
    write = files.pipe_file

    def twice(self: Any, path: str, value: bytes, **more: Any) -> None:
        write(self, path, value, **more)
        if path.endswith("manifest.json"):
            write(self, path, value, **more)

    monkeypatch.setattr(files, "pipe_file", twice)
    assert ModelStore(bucket.url).push(made) == 1
