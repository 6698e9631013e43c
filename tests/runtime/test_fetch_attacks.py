"""What a store may hold by accident or malice: each is refused with its reason, and nothing of it is left in the cache."""

import json
import os
import pickle
import shutil
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from store_places import PLACES, Place
from tiny_model import TASKS, write_tiny_model

from murmura.runtime.errors import SetupError, VersionRefused
from murmura.runtime.model.folders.folder import check_folder
from murmura.runtime.release import store as model_store
from murmura.runtime.release.store import ModelStore


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("made") / "tiny", TASKS[:1], name="desk")


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest, tmp_path: Path, made: Path) -> Iterator[Place]:
    """A store that holds desk 1, to be tampered with."""
    with Place.made(request.param, tmp_path) as place:
        ModelStore(place.url).push(made)
        yield place


def edit(place: Place, change: Callable[[dict[str, Any]], Any]) -> None:
    manifest = json.loads(place.read("desk/1/manifest.json"))
    change(manifest)
    place.write("desk/1/manifest.json", json.dumps(manifest).encode())


def rename_tokenizer(place: Place, path: str) -> None:
    def change(manifest: dict[str, Any]) -> None:
        manifest["tokenizer"] = path
        next(f for f in manifest["files"] if f["role"] == "tokenizer")["path"] = path

    edit(place, change)


def no_manifest(place: Place) -> None:
    place.remove("desk/1/manifest.json")


def no_version(place: Place) -> None:
    for path in place.content("desk"):
        place.remove(path)


def no_graph_file(place: Place) -> None:
    place.remove("desk/1/model.ragged.onnx")


def flipped_bit(place: Place) -> None:
    data = bytearray(place.read("desk/1/model.ragged.onnx"))
    data[len(data) // 2] ^= 1
    place.write("desk/1/model.ragged.onnx", bytes(data))


def cut_off(place: Place) -> None:
    place.write("desk/1/model.ragged.onnx", place.read("desk/1/model.ragged.onnx")[:-1])


def grown(place: Place) -> None:
    place.write("desk/1/model.ragged.onnx", place.read("desk/1/model.ragged.onnx") + b"\0" * 5_000_000)


def not_json(place: Place) -> None:
    place.write("desk/1/manifest.json", b"\x80\x04not a manifest")


def another_name(place: Place) -> None:
    edit(place, lambda manifest: manifest.update(name="shop"))


def another_version(place: Place) -> None:
    edit(place, lambda manifest: manifest.update(version=7))


def no_tokenizer(place: Place) -> None:
    edit(place, lambda m: m.update(files=[f for f in m["files"] if f["role"] != "tokenizer"]))


def traversal(place: Place) -> None:
    rename_tokenizer(place, "../../../outside.json")


def absolute(place: Place) -> None:
    rename_tokenizer(place, "/tmp/outside.json")


def backslashes(place: Place) -> None:
    rename_tokenizer(place, "..\\outside.json")


def itself(place: Place) -> None:
    def change(manifest: dict[str, Any]) -> None:
        content = b"{}"
        entry = {"path": "manifest.json", "role": "attribution", "sha256": sha256(content).hexdigest(), "bytes": 2}
        manifest["files"].append(entry)

    edit(place, change)


def pickled(place: Place) -> None:
    place.write("desk/1/weights.pkl", pickle.dumps({}))
    rename_tokenizer(place, "weights.pkl")


def huge_file(place: Place) -> None:
    edit(place, lambda manifest: manifest["files"][-1].update(bytes=2**50))


def huge_in_all(place: Place) -> None:
    entry = {"role": "attribution", "sha256": "0" * 64, "bytes": 2**32}
    edit(place, lambda m: m["files"].extend(entry | {"path": f"notes-{i}.md"} for i in range(3)))


def huge_manifest(place: Place) -> None:
    place.write("desk/1/manifest.json", place.read("desk/1/manifest.json") + b" " * 5_000_000)


def many_files(place: Place) -> None:
    entry = {"role": "attribution", "sha256": "0" * 64, "bytes": 1}
    edit(place, lambda m: m["files"].extend(entry | {"path": f"notes-{i}.md"} for i in range(100)))


ATTACKS = {
    no_manifest: "missing",
    no_version: "missing",
    no_graph_file: "missing",
    flipped_bit: "damaged",
    cut_off: "damaged",
    grown: "damaged",
    not_json: "not_a_model",
    another_name: "not_a_model",
    another_version: "not_a_model",
    no_tokenizer: "not_a_model",
    traversal: "unsafe_path",
    absolute: "unsafe_path",
    backslashes: "unsafe_path",
    itself: "unsafe_path",
    pickled: "pickle",
    huge_file: "too_large",
    huge_in_all: "too_large",
    huge_manifest: "too_large",
    many_files: "too_large",
}


def refused(place: Place, digest: str, cache: Path) -> VersionRefused:
    """Fetching desk 1 is refused in one line that names it, and leaves nothing behind."""
    before = sorted(cache.parent.rglob("*"))
    with pytest.raises(VersionRefused) as caught:
        ModelStore(place.url).fetch("desk", 1, digest, cache)
    assert "\n" not in str(caught.value)
    assert [path for path in sorted(cache.parent.rglob("*")) if path not in before] in ([], [cache])
    assert not cache.exists() or not list(cache.iterdir())
    return caught.value


def released_digest(place: Place) -> str:
    """That of the manifest as it is now: whoever tampered has released it, too."""
    path = "desk/1/manifest.json"
    return sha256(place.read(path)).hexdigest() if place.files.exists(f"{place.root}/{path}") else "0" * 64


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
def test_a_version_that_is_not_as_it_should_be_is_refused_with_its_reason(place, tmp_path, attack):
    attack(place)
    assert refused(place, released_digest(place), tmp_path / "cache").reason == ATTACKS[attack]


def test_a_manifest_that_is_not_the_released_one_is_refused_before_it_is_interpreted(place, tmp_path, monkeypatch):
    digest = released_digest(place)
    edit(place, lambda manifest: manifest["limits"].update(max_tokens=16))

    def never(raw: bytes, where: str) -> Any:
        raise AssertionError("interpreted before the digest was compared")

    monkeypatch.setattr(model_store, "parse_manifest", never)
    assert refused(place, digest, tmp_path / "cache").reason == "wrong_digest"


def test_no_more_is_read_of_a_file_than_its_manifest_says(place, tmp_path, monkeypatch):
    grown(place)
    taken = []
    real = model_store.verify_chunks

    def counting(source: Any, entry: Any) -> Iterator[bytes]:
        for chunk in real(source, entry):
            taken.append((entry.path, len(chunk)))
            yield chunk

    monkeypatch.setattr(model_store, "verify_chunks", counting)
    sizes = {f["path"]: f["bytes"] for f in json.loads(place.read("desk/1/manifest.json"))["files"]}
    refused(place, released_digest(place), tmp_path / "cache")
    assert all(size <= sizes[path] for path, size in taken)


def test_a_store_that_breaks_off_is_worth_another_try(place, tmp_path, monkeypatch):
    digest = released_digest(place)
    monkeypatch.setattr("murmura.runtime.release.store_backends.open_plain", lambda *a: _Broken())
    if not place.folder:
        monkeypatch.setattr(type(place.files), "open", lambda *a, **k: _Broken())
    error = refused(place, digest, tmp_path / "cache")
    assert (error.reason, error.retriable) == ("store_unreachable", True)


class _Broken:
    def read(self, size: int) -> bytes:
        raise ConnectionResetError("connection reset by peer")

    def close(self) -> None:
        pass


def test_a_cache_without_room_is_refused_before_anything_is_transferred(place, tmp_path, monkeypatch):
    monkeypatch.setattr(model_store, "_FREE_BYTES", 2**60)
    assert refused(place, released_digest(place), tmp_path / "cache").reason == "no_room"


# Links exist in folders only.


@pytest.fixture
def on_disk(tmp_path: Path, made: Path) -> Iterator[Place]:
    with Place.made("folder", tmp_path) as place:
        ModelStore(place.url).push(made)
        yield place


def symlink(version: Path) -> None:
    shutil.move(version / "tokenizer.json", version.parent.parent / "outside.json")
    (version / "tokenizer.json").symlink_to(version.parent.parent / "outside.json")


def symlinked_version(version: Path) -> None:
    version.rename(version.parent.parent / "elsewhere")
    version.symlink_to(version.parent.parent / "elsewhere")


def symlinked_name(version: Path) -> None:
    version.parent.rename(version.parent.parent / "elsewhere")
    version.parent.symlink_to(version.parent.parent / "elsewhere")


def symlinked_manifest(version: Path) -> None:
    (version / "manifest.json").rename(version / "real.json")
    (version / "manifest.json").symlink_to("real.json")


def hard_link(version: Path) -> None:
    os.link(version / "model.ragged.onnx", version.parent.parent / "other-name.onnx")


def endless_device(version: Path) -> None:
    (version / "tokenizer.json").unlink()
    (version / "tokenizer.json").symlink_to("/dev/zero")


def pipe(version: Path) -> None:
    (version / "tokenizer.json").unlink()
    os.mkfifo(version / "tokenizer.json")


LINKS = [symlink, symlinked_version, symlinked_name, symlinked_manifest, hard_link, endless_device, pipe]


@pytest.mark.parametrize("attack", LINKS, ids=lambda attack: attack.__name__)
def test_a_link_in_the_store_is_not_followed(on_disk, tmp_path, attack):
    digest = released_digest(on_disk)
    attack(on_disk.folder / "desk/1")
    assert refused(on_disk, digest, tmp_path / "cache").reason == "link"


def test_a_link_in_the_cache_is_replaced_and_its_target_left_alone(on_disk, tmp_path):
    store, cache = ModelStore(on_disk.url), tmp_path / "cache"
    digest = store.digest("desk", 1)
    folder = store.fetch("desk", 1, digest, cache)
    folder.rename(tmp_path / "precious")
    folder.symlink_to(tmp_path / "precious")
    (tmp_path / "precious/tokenizer.json").write_text("{}")
    check_folder(store.fetch("desk", 1, digest, cache))
    assert not folder.is_symlink()
    assert (tmp_path / "precious/tokenizer.json").read_text() == "{}"


def test_a_folder_that_is_not_there_is_worth_another_try(tmp_path):
    store = ModelStore(tmp_path / "not-mounted")
    for call in (store.names, lambda: store.versions("desk"), lambda: store.digest("desk", 1)):
        with pytest.raises(SetupError, match="not-mounted is not there") as caught:
            call()
        assert (caught.value.reason, caught.value.retriable) == ("store_unreachable", True)
