import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_model import write_tiny_model

from murmura.runtime.errors import ModelRefused
from murmura.runtime.model.deltas.assembled import resolve
from murmura.runtime.model.folders.folder import check_folder, inspect_files, open_plain, read_manifest, write_manifest
from murmura.runtime.model.model import Model


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("made") / "tiny")


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "model"))


def edit(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


def point_at(folder: Path, path: str) -> None:
    """Let the manifest's tokenizer be another path, as an attacker would."""

    def change(manifest: dict[str, Any]) -> None:
        manifest["tokenizer"] = path
        next(f for f in manifest["files"] if f["role"] == "tokenizer")["path"] = path

    edit(folder, change)


def traversal(folder: Path) -> None:
    shutil.copy(folder / "tokenizer.json", folder.parent / "outside.json")
    point_at(folder, "../outside.json")


def nested_traversal(folder: Path) -> None:
    (folder / "sub").mkdir()
    shutil.copy(folder / "tokenizer.json", folder.parent / "outside.json")
    point_at(folder, "sub/../../outside.json")


def absolute(folder: Path) -> None:
    shutil.copy(folder / "tokenizer.json", folder.parent / "outside.json")
    point_at(folder, str(folder.parent / "outside.json"))


def symlink(folder: Path) -> None:
    shutil.move(folder / "tokenizer.json", folder.parent / "outside.json")
    (folder / "tokenizer.json").symlink_to(folder.parent / "outside.json")


def symlinked_folder(folder: Path) -> None:
    (folder.parent / "outside").mkdir()
    shutil.copy(folder / "tokenizer.json", folder.parent / "outside/tokenizer.json")
    (folder / "sub").symlink_to(folder.parent / "outside")
    point_at(folder, "sub/tokenizer.json")


def symlink_inside(folder: Path) -> None:
    shutil.move(folder / "tokenizer.json", folder / "real.json")
    (folder / "tokenizer.json").symlink_to("real.json")


def hard_link(folder: Path) -> None:
    os.link(folder / "tokenizer.json", folder.parent / "other-name.json")


def endless_device(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.json").symlink_to("/dev/zero")


def pipe(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    os.mkfifo(folder / "tokenizer.json")


def directory(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.json").mkdir()


def flipped_bit(folder: Path) -> None:
    data = bytearray((folder / "model.ragged.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "model.ragged.onnx").write_bytes(data)


def cut_off(folder: Path) -> None:
    path = folder / "model.ragged.onnx"
    path.write_bytes(path.read_bytes()[:-1])


def grown(folder: Path) -> None:
    with (folder / "model.ragged.onnx").open("ab") as file:
        file.truncate(50 * 2**30)  # sparse: takes no room, and must not be read


def missing(folder: Path) -> None:
    (folder / "model.ragged.onnx").unlink()


def unlisted_tokenizer(folder: Path) -> None:
    edit(folder, lambda m: m.update(tokenizer="another.json"))
    shutil.copy(folder / "tokenizer.json", folder / "another.json")


def no_graph(folder: Path) -> None:
    edit(folder, lambda m: m.update(files=[f for f in m["files"] if not f["role"].startswith("graph")]))


def huge_declared(folder: Path) -> None:
    edit(folder, lambda m: m["files"][0].update(bytes=2**60))


def pickled(folder: Path) -> None:
    (folder / "weights.pkl").write_bytes(pickle.dumps({}))
    point_at(folder, "weights.pkl")


def unlisted_pickle(folder: Path) -> None:
    (folder / "model.pt").write_bytes(pickle.dumps({}))


def unlisted_graph(folder: Path) -> None:
    (folder / "sub").mkdir()
    shutil.copy(folder / "model.ragged.onnx", folder / "sub/other.onnx")


def null_in_path(folder: Path) -> None:
    point_at(folder, "tokenizer\0.json")


def backslashes(folder: Path) -> None:
    point_at(folder, "..\\outside.json")


ATTACKS = {
    traversal: "tokenizer: String should match pattern",
    nested_traversal: "tokenizer: String should match pattern",
    absolute: "tokenizer: String should match pattern",
    backslashes: "tokenizer: String should match pattern",
    null_in_path: "tokenizer: String should match pattern",
    symlink: "symbolic link",
    symlink_inside: "symbolic link",
    symlinked_folder: "symbolic link",
    endless_device: "symbolic link",
    hard_link: "not a regular file with one name",
    pipe: "not a regular file",
    directory: "cannot be read: Is a directory",
    flipped_bit: r"not the file that the manifest names \(SHA-256\)",
    cut_off: "the manifest says",
    grown: "expected at most",
    missing: "is missing",
    unlisted_tokenizer: "not among the manifest's files",
    no_graph: "no file with role graph:ragged",
    huge_declared: "at most",
    pickled: "can run code",
    unlisted_pickle: "not named in the manifest",
    unlisted_graph: "not named in the manifest",
}
CODES = {
    "unsafe_path": {traversal, nested_traversal, absolute, backslashes, null_in_path},
    "link": {symlink, symlink_inside, symlinked_folder, endless_device, hard_link, pipe},
    "damaged": {directory, flipped_bit, cut_off, unlisted_graph},
    "too_large": {grown, huge_declared},
    "missing": {missing},
    "pickle": {pickled, unlisted_pickle},
    "not_a_model": {unlisted_tokenizer, no_graph},
}
# Loading reads only what the manifest names, so files beside it are harmless to it.
CHECK_ONLY = {unlisted_pickle, unlisted_graph, unlisted_tokenizer}


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda a: a.__name__)
def test_a_folder_that_is_not_as_it_should_be_is_refused_in_one_line(
    folder: Path, attack: Callable[[Path], None]
) -> None:
    attack(folder)
    with pytest.raises(ModelRefused, match=ATTACKS[attack]) as caught:
        check_folder(folder)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)
    assert attack in CODES[caught.value.reason]


@pytest.mark.parametrize("attack", [a for a in ATTACKS if a not in CHECK_ONLY], ids=lambda a: a.__name__)
def test_loading_refuses_it_as_well(folder: Path, attack: Callable[[Path], None]) -> None:
    attack(folder)
    with pytest.raises(ModelRefused):
        Model.load(folder)


@pytest.mark.parametrize("path", ["../x", "sub/../../x", "/etc/passwd", "..\\x", "a\0b", "./x", "sub//x", ""])
def test_no_path_leads_out_of_the_folder(folder: Path, path: str) -> None:
    with pytest.raises(ModelRefused, match="not a plain path inside the folder"):
        open_plain(folder, path, 1000)


def test_a_sound_folder_gives_its_manifest(folder: Path) -> None:
    assert check_folder(folder) == read_manifest(folder)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is not a manifest"),
        ("{", "is not a manifest"),
        ("[" * 100_000, "is not a manifest"),
        ("{}", "name: Field required"),
        ('{"format_version": 2}', "format_version: Input should be 1"),
    ],
)
def test_a_manifest_that_cannot_be_read_is_refused_in_one_line(folder: Path, text: str, says: str) -> None:
    (folder / "manifest.json").write_text(text)
    with pytest.raises(ModelRefused, match=says) as caught:
        read_manifest(folder)
    assert "\n" not in str(caught.value)


def test_an_endless_manifest_is_not_read(folder: Path) -> None:
    with (folder / "manifest.json").open("ab") as file:
        file.truncate(2**40)
    with pytest.raises(ModelRefused, match="expected at most"):
        read_manifest(folder)


def test_a_folder_that_is_not_there_says_what_makes_one(tmp_path: Path) -> None:
    with pytest.raises(ModelRefused, match="does not exist; `murmura train`"):
        check_folder(tmp_path / "none")
    with pytest.raises(ModelRefused, match=r"has no manifest\.json"):
        check_folder(tmp_path)


def test_what_only_training_reads_may_be_absent_but_not_wrong(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"other")
    with pytest.raises(ModelRefused, match=r"model\.safetensors"):
        check_folder(folder)
    (folder / "model.safetensors").unlink()
    check_folder(folder)
    assert [c.path for c in inspect_files(folder, read_manifest(folder)) if c.absent] == ["model.safetensors"]


def test_every_fault_of_a_folder_is_listed(folder: Path) -> None:
    flipped_bit(folder)
    unlisted_pickle(folder)
    found = {c.path: c.problem for c in inspect_files(folder, read_manifest(folder))}
    assert found["tokenizer.json"] is None
    assert "SHA-256" in (found["model.ragged.onnx"] or "")
    assert "not named" in (found["model.pt"] or "")


def test_notes_beside_the_model_do_no_harm(folder: Path) -> None:
    (folder / "NOTES.md").write_text("ours")
    check_folder(folder)


def test_a_file_exchanged_after_the_check_is_not_what_is_loaded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from murmura.runtime.model import open_files

    real = open_files.open_session

    def exchange_first(source: Any, *more: Any) -> Any:
        (folder / "new.onnx").write_bytes(b"something else")
        (folder / "new.onnx").replace(folder / "model.ragged.onnx")
        return real(source, *more)

    if not Path("/proc/self/fd").exists():
        pytest.skip("this system names no open files")
    monkeypatch.setattr(open_files, "open_session", exchange_first)
    assert Model.load(folder).predict(["hello"])


def test_writing_a_manifest_names_every_file_by_digest_and_leaves_nothing_else(folder: Path) -> None:
    (folder / "report.md").write_text("# Report")
    before = read_manifest(folder)
    roles = {f.path: f.role for f in before.files} | {"report.md": "report"}
    written = write_manifest(folder, before, dict(roles))
    assert read_manifest(folder) == written == check_folder(folder)
    assert written.files[-1].bytes == 8
    assert not [p for p in folder.iterdir() if p.name.startswith(".")]


def test_a_model_folder_resolves_to_itself(folder: Path) -> None:
    assert resolve(folder) == folder
