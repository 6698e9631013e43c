"""The model store, one list of scenarios for a folder and for an object store: numbers, atomic uploads, fetching."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from store_places import PLACES, Place
from tiny_model import TASKS, write_tiny_model

from murmura.runtime.errors import ModelRefused, SetupError, VersionRefused
from murmura.runtime.model.deltas.cache import KEPT
from murmura.runtime.model.folders.folder import check_folder, read_manifest, write_manifest
from murmura.runtime.model.model import Model
from murmura.runtime.release import store as model_store
from murmura.runtime.release.store import ModelStore
from murmura.schemas.manifest import Base


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("made") / "tiny", TASKS[:1], name="desk")


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "model"))


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    with Place.made(request.param, tmp_path) as place:
        yield place


@pytest.fixture
def store(place: Place) -> ModelStore:
    return ModelStore(place.url)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def fetch(store: ModelStore, version: int, cache: Path) -> Path:
    return store.fetch("desk", version, store.digest("desk", version), cache)


def test_versions_are_numbered_by_name_from_one(store, folder, made, tmp_path):
    other = write_tiny_model(tmp_path / "other", TASKS[:1], name="shop")
    assert [store.push(folder), store.push(other), store.push(folder)] == [1, 1, 2]
    assert store.names() == ["desk", "shop"]
    assert (store.versions("desk"), store.versions("shop"), store.versions("none")) == ([1, 2], [1], [])


def test_more_than_nine_versions_stay_in_order(store, folder):
    for _ in range(11):
        store.push(folder)
    assert store.versions("desk") == list(range(1, 12))


def test_a_version_says_what_it_is(store, folder, place):
    version = store.push(folder)
    manifest, before = store.describe("desk", version), read_manifest(folder)
    assert manifest == before.model_copy(update={"version": 1})
    assert store.digest("desk", version) == sha256(place.read("desk/1/manifest.json")).hexdigest()


def test_fields_of_a_newer_manifest_are_kept(store, folder, place):
    document = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(document | {"licence": "ours", "naïve": True}))
    store.push(folder)
    assert json.loads(place.read("desk/1/manifest.json")) == document | {"licence": "ours", "naïve": True, "version": 1}


def test_a_version_is_not_changed_by_those_after_it(store, folder, place):
    store.push(folder)
    before = place.content("desk/1")
    store.push(folder)
    assert place.content("desk/1") == before


def test_a_folder_that_is_not_sound_is_not_pushed(store, folder):
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelRefused, match="the manifest says"):
        store.push(folder)
    assert store.versions("desk") == []


def test_what_was_left_out_of_the_folder_is_left_out_of_the_manifest(store, folder):
    (folder / "model.safetensors").unlink()
    store.push(folder)
    assert store.describe("desk", 1).path_of("training") is None


def test_a_file_that_changes_during_the_upload_makes_no_version(store, folder, monkeypatch):
    monkeypatch.setattr(model_store, "check_folder", lambda folder: (folder / "tokenizer.json").write_text("{}"))
    with pytest.raises(ModelRefused, match="the manifest says"):
        store.push(folder)
    assert store.versions("desk") == []


def test_serving_gets_all_but_what_only_training_reads(store, folder, cache):
    store.push(folder)
    fetched = fetch(store, 1, cache)
    assert sorted(p.name for p in fetched.iterdir()) == [
        "manifest.json",
        "model.ragged.onnx",
        "reference.json",
        "tokenizer.json",
    ]
    assert check_folder(fetched).version == 1
    assert Model.load(fetched, device="cpu").predict(["hello"])[0].keys() == {"intent"}
    assert [p.name for p in cache.iterdir()] == [fetched.name]


def test_a_delta_is_pushed_and_fetched_as_it_is(store, folder, cache):
    manifest = read_manifest(folder).model_copy(update={"base": Base(source="hub:nobody/nothing", sha256="ab" * 32)})
    (folder / "model.ragged.onnx").unlink()
    (folder / "model.safetensors").rename(folder / "delta.safetensors")
    write_manifest(folder, manifest, {"delta.safetensors": "delta", "tokenizer.json": "tokenizer"})
    (folder / "reference.json").unlink()
    store.push(folder)
    fetched = fetch(store, 1, cache)
    assert read_manifest(fetched).is_delta
    assert (fetched / "delta.safetensors").read_bytes() == (folder / "delta.safetensors").read_bytes()


def test_what_is_in_the_cache_is_not_transferred_again(store, folder, cache, place):
    store.push(folder)
    digest = store.digest("desk", 1)
    first = store.fetch("desk", 1, digest, cache)
    for path in place.content("desk"):
        place.remove(path)
    assert store.fetch("desk", 1, digest, cache) == first


@pytest.mark.parametrize("damage", ["cut", "gone", "extra", "file"])
def test_what_is_damaged_in_the_cache_is_fetched_again(store, folder, cache, damage):
    store.push(folder)
    fetched = fetch(store, 1, cache)
    if damage == "cut":
        (fetched / "model.ragged.onnx").write_bytes(b"")
    elif damage == "gone":
        (fetched / "manifest.json").unlink()
    elif damage == "extra":
        (fetched / "model.pkl").write_bytes(b"")
    else:
        shutil.rmtree(fetched)
        fetched.write_text("")
    check_folder(fetch(store, 1, cache))
    assert [p.name for p in cache.iterdir()] == [fetched.name]


def test_a_cache_keeps_the_versions_fetched_last_and_other_models(store, folder, cache, tmp_path):
    (cache / "desk-2-archive").mkdir(parents=True)
    for version in range(1, KEPT + 3):
        store.push(folder)
        fetch(store, version, cache)
    kept = {int(p.name.split("-")[1]) for p in cache.iterdir() if p.name != "desk-2-archive"}
    assert kept == set(range(3, KEPT + 3))
    assert (cache / "desk-2-archive").is_dir()


def test_a_version_that_is_not_there_is_refused_and_those_that_are_named(store, folder, cache):
    with pytest.raises(VersionRefused, match="has no version 1 of desk") as refused:
        store.digest("desk", 1)
    assert refused.value.reason == "missing"
    store.push(folder)
    with pytest.raises(VersionRefused, match="has no version 2 of desk: it has 1") as refused:
        store.fetch("desk", 2, "ab" * 32, cache)
    assert (refused.value.reason, refused.value.retriable) == ("missing", False)


@pytest.mark.parametrize("name", ["..", "../desk", "a/b", "", ".hidden", "/etc"])
def test_a_name_that_is_none_reaches_nothing(store, cache, name):
    for call in (store.versions, lambda n: store.digest(n, 1), lambda n: store.fetch(n, 1, "ab" * 32, cache)):
        with pytest.raises(VersionRefused, match="is not the name of a model"):
            call(name)


@pytest.mark.parametrize("at", ["model.ragged.onnx", "model.safetensors", "manifest.json"])
def test_an_upload_that_breaks_off_leaves_no_version(store, folder, place, monkeypatch, cache, at):
    if at == "manifest.json":
        monkeypatch.setattr(model_store.json, "dumps", _interrupt)
    else:
        real = model_store.verify_chunks
        monkeypatch.setattr(
            model_store,
            "verify_chunks",
            lambda source, entry: _halfway(source) if entry.path == at else real(source, entry),
        )
    with pytest.raises(KeyboardInterrupt):
        store.push(folder)
    monkeypatch.undo()
    assert (store.versions("desk"), store.names()) == ([], [])
    assert not [path for path in place.content("desk") if not path.endswith(".claim")]
    version = store.push(folder)
    assert store.versions("desk") == [version]
    check_folder(fetch(store, version, cache))


def _interrupt(*args: Any, **kwargs: Any) -> str:
    raise KeyboardInterrupt


def _halfway(source: Any) -> Iterator[bytes]:
    yield source.read(100)
    raise KeyboardInterrupt


KILLED = """
import os, signal, sys
from pathlib import Path
from murmura.runtime.release import store as model_store

real = model_store.verify_chunks
def killed_in_the_graph(source, entry):
    for chunk in real(source, entry):
        yield chunk
        if entry.role == "graph:ragged":
            os.kill(os.getpid(), signal.SIGKILL)
model_store.verify_chunks = killed_in_the_graph
model_store.ModelStore(sys.argv[1]).push(Path(sys.argv[2]))
"""


def test_a_killed_upload_leaves_no_version_and_is_swept_away_later(folder, tmp_path, cache):
    home = tmp_path / "store/desk"
    done = subprocess.run([sys.executable, "-c", KILLED, str(home.parent), str(folder)], timeout=60)
    assert done.returncode == -signal.SIGKILL
    store = ModelStore(home.parent)
    (left,) = home.iterdir()
    assert list(left.iterdir())
    assert (store.versions("desk"), store.names()) == ([], [])
    assert store.push(folder) == 1
    assert left.exists()  # somebody might still be at work on it
    os.utime(left, (0, 0))
    assert store.push(folder) == 2
    assert sorted(path.name for path in home.iterdir()) == [".claims", "1", "2"]
    check_folder(fetch(store, 1, cache))


def test_pushers_at_the_same_time_never_share_a_version(store, folder, cache, monkeypatch):
    pushers = 6
    together = threading.Barrier(pushers)
    real = store._storage._numbers

    def look_then_wait(name: str) -> Any:
        found = real(name)
        together.wait(timeout=20)
        return found

    monkeypatch.setattr(store._storage, real.__name__, look_then_wait)
    with ThreadPoolExecutor(pushers) as pool:
        versions = list(pool.map(store.push, [folder] * pushers))
    monkeypatch.undo()
    assert sorted(versions) == store.versions("desk") == list(range(1, pushers + 1))
    for version in versions:
        assert store.describe("desk", version).version == version
        check_folder(fetch(store, version, cache))


def test_a_url_of_an_unknown_kind_is_one_line_without_credentials():
    with pytest.raises(SetupError, match="model store nowhere://host/models cannot be opened") as refused:
        ModelStore("nowhere://ann:secret@host/models")
    assert "secret" not in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_url_whose_package_is_missing_says_which(monkeypatch):
    from importlib.util import find_spec

    if find_spec("s3fs"):
        pytest.skip("s3fs is installed")
    with pytest.raises(SetupError, match=r"model store s3://bucket/models: .*s3fs"):
        ModelStore("s3://bucket/models")
