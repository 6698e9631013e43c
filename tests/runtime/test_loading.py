"""From a release to a model that may serve: what is tried in a child process, and every reason for a refusal."""

import asyncio
import dataclasses
import math
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import bad_versions
import numpy as np
import pytest
from bad_versions import MADE, TAMPERED, as_delta, endless, push_made, push_tampered
from safetensors.numpy import save
from tiny_model import TASKS, random_weights, tiny_encoder, write_tiny_model

from murmura.agents.classification import agent as classification
from murmura.runtime.agent.handler import Handler, LoadedModel
from murmura.runtime.errors import DeviceFailed, ModelFailed, ModelRefused, SetupError, VersionRefused
from murmura.runtime.model.folders.folder import check_folder
from murmura.runtime.model.model import Model
from murmura.runtime.release import staging as loading
from murmura.runtime.release.staging import UNCERTAIN_TRIES, Loader, make_refusal
from murmura.runtime.release.store import ModelStore
from murmura.runtime.release.trial_process import prove
from murmura.runtime.settings.settings import Settings
from murmura.schemas.manifest import ModelManifest
from murmura.schemas.release import Release

TRIAL = {"timeout_s": 60.0, "memory_bytes": 8 * 2**30}
AGENT = dataclasses.replace(classification, tasks=("intent",))


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModelStore:
    monkeypatch.setenv("MURMURA_CACHE", str(tmp_path / "cache"))
    (tmp_path / "store").mkdir()
    return ModelStore(tmp_path / "store")


@pytest.fixture
def loader(store: ModelStore) -> Loader:
    return loader_of(store)


def loader_of(store: ModelStore, *handlers: Handler, trial_timeout_s: float = 60) -> Loader:
    model = {"store": store.address, "name": "tiny", "device": "cpu", "trial_timeout_s": trial_timeout_s}
    settings = Settings(app="a", model=model)
    return Loader(settings, store, [AGENT], handlers)


def refusal(loader: Loader, version: int, digest: str) -> VersionRefused:
    with pytest.raises(ModelRefused) as caught:
        loader.load("tiny", version, digest)
    return caught.value


def test_a_good_version_is_loaded_and_answers_when_handlers_are_prepared_for_it(store, tmp_path):
    version, handler = store.push(write_tiny_model(tmp_path / "model", pooled=True)), Picky(embeds="hello")
    model = loader_of(store, handler).load("tiny", version, store.digest("tiny", version))
    assert np.array_equal(handler.vectors, model.embed(["hello"]))
    assert model.manifest.version == 1
    assert model.predict(["hello"])[0].keys() == {task.name for task in TASKS}


def test_a_version_for_which_there_is_no_memory_beside_another_is_refused(store, tmp_path, monkeypatch):
    version = store.push(write_tiny_model(tmp_path / "model"))
    monkeypatch.setattr(loading, "find_free_bytes", lambda: 1000)
    with pytest.raises(VersionRefused, match=r"tiny 1: its graphs take .* MB are free") as caught:
        loader_of(store).load("tiny", version, store.digest("tiny", version), beside=True)
    assert (caught.value.reason, caught.value.certain) == ("too_large", False)


@pytest.mark.parametrize("make", MADE, ids=lambda make: make.__name__)
def test_a_version_that_must_not_serve_is_refused_with_its_reason(store, tmp_path, make):
    loader = loader_of(store, trial_timeout_s=4 if make is endless else 60)
    refused = refusal(loader, *push_made(store, tmp_path / "model", make))
    assert refused.reason == MADE[make]
    assert "\n" not in str(refused)


@pytest.mark.parametrize("tamper", TAMPERED, ids=lambda tamper: tamper.__name__)
def test_a_version_that_was_tampered_with_is_refused_with_its_reason(store, loader, tmp_path, tamper):
    assert refusal(loader, *push_tampered(store, tmp_path / "model", tamper)).reason == TAMPERED[tamper]


def test_a_version_is_tried_in_the_child_before_this_process_loads_it(store, loader, tmp_path, monkeypatch):
    def never(*arguments: Any, **more: Any) -> None:
        raise AssertionError("loaded here before the child had tried it")

    released = push_made(store, tmp_path / "model", bad_versions.not_reproduced)
    monkeypatch.setattr(Model, "open", never)
    assert refusal(loader, *released).reason == "not_reproduced"


def test_a_graph_that_is_endless_only_here_is_ended(store, loader, tmp_path, monkeypatch):
    released = push_made(store, tmp_path / "model", endless)
    monkeypatch.setattr(loading, "prove", lambda folder, graph, **more: folder)
    monkeypatch.setattr(loading, "_IN_PROCESS_S", 0.5)
    assert refusal(loader, *released).reason == "endless"


def test_waits_for_turns_do_not_count_against_the_time_of_a_version(store, loader, tmp_path, monkeypatch):
    version, waits = store.push(write_tiny_model(tmp_path / "model")), []

    @contextmanager
    def turn() -> Iterator[None]:
        time.sleep(0.2)
        waits.append(0.2)
        yield

    loader.turn = turn
    monkeypatch.setattr(loading, "_IN_PROCESS_S", 1.0)
    assert loader.load("tiny", version, store.digest("tiny", version)).manifest.version == version
    assert sum(waits) > 1.0


def test_a_version_that_was_given_up_while_it_waited_for_its_turn_does_not_run(store, loader, tmp_path, monkeypatch):
    version, given_up = store.push(write_tiny_model(tmp_path / "model")), threading.Event()

    @contextmanager
    def turn() -> Iterator[None]:
        given_up.set()
        yield

    def never(*arguments: Any, **more: Any) -> None:
        raise AssertionError("nobody waits for it")

    loader.turn = turn
    monkeypatch.setattr(loading, "prove", lambda folder, graph, **more: folder)
    monkeypatch.setattr(Model, "reproduce", never)
    with pytest.raises(VersionRefused):
        loader.load("tiny", version, store.digest("tiny", version), given_up)


async def test_who_stops_waiting_leaves_no_child_and_no_thread_behind(store, tmp_path):
    version, digest = push_made(store, tmp_path / "model", endless)
    staging = asyncio.create_task(loader_of(store).stage("tiny", Release(version=version, digest=digest)))
    while not (children := await asyncio.to_thread(_children)):
        await asyncio.sleep(0.05)
    staging.cancel()
    await asyncio.gather(staging, return_exceptions=True)
    began = time.monotonic()
    await asyncio.get_running_loop().shutdown_default_executor()
    assert time.monotonic() - began < 60
    assert not [child for child in children if Path(f"/proc/{child}").exists()]


def _children() -> list[str]:
    found = subprocess.run(
        ["ps", "-ww", "-o", "pid=,args=", "--ppid", str(os.getpid())], capture_output=True, text=True
    )
    return [line.split()[0] for line in found.stdout.splitlines() if "trial_process" in line]


@pytest.mark.parametrize(
    "sample",
    [
        '{"texts": [1], "outputs": {}}',
        '{"texts": ["a"], "outputs": {"intent": ["x"]}}',
        '{"texts": ["a"], "outputs": {"intent": 3}}',
        '{"texts": ["a\\ud800"], "outputs": {"intent": [[0, 0, 0, 0]]}}',
        "[]",
    ],
)
def test_a_sample_that_is_none_is_a_problem_of_the_sample(tmp_path, sample):
    folder = write_tiny_model(tmp_path / "model", TASKS[:1])
    (folder / "reference.json").write_text(sample)
    with pytest.raises(VersionRefused) as caught:
        prove(bad_versions.resign(folder), "ragged", **TRIAL)
    assert caught.value.reason == "not_reproduced"


def test_a_child_that_ends_with_an_error_of_its_own_is_a_failure_and_no_lack_of_memory(tmp_path, monkeypatch):
    monkeypatch.setenv("MURMURA_CACHE", "\udcff" * 9000)  # a name that no file system takes
    folder = as_delta(write_tiny_model(tmp_path / "model"), "hub:nobody/nothing", "ab" * 32)
    with pytest.raises(VersionRefused) as caught:
        prove(folder, "ragged", **TRIAL)
    assert caught.value.reason == "failed"


# What running agents and handlers need.


class Picky(Handler):
    name = "picky"
    topics = ("in",)

    def __init__(self, *tasks: str, labels: str = "", embeds: str = "") -> None:
        self.tasks = tasks
        self._label, self._text = labels, embeds
        self.vectors: Any = None

    async def handle(self, record, engine):
        return ()

    def check(self, manifest: ModelManifest) -> None:
        if self._label and self._label not in manifest.task("intent").labels:
            raise SetupError(f"policy.yaml: {self._label} is not a label of task intent")

    def prepare(self, model: LoadedModel) -> None:
        if self._text:
            try:
                self.vectors = model.embed([self._text])
            except ValueError as error:
                raise SetupError(str(error)) from None


@pytest.mark.parametrize(
    ("handler", "says"),
    [
        (Picky("mood"), "has no task mood"),
        (Picky("intent", labels="holiday"), "holiday is not a label"),
        (Picky(embeds="hello"), "has no pooled output"),
    ],
)
def test_a_version_that_a_handler_could_not_work_with_lacks_a_task(store, tmp_path, handler, says):
    version = store.push(write_tiny_model(tmp_path / "model"))
    refused = refusal(loader_of(store, handler), version, store.digest("tiny", version))
    assert refused.reason == "lacks_task"
    assert says in str(refused)


def test_what_is_needed_does_not_depend_on_what_served_before(store, loader, tmp_path):
    """Nobody who runs has declared the tasks that are gone, so every process takes it, whenever it started."""
    fewer = store.push(write_tiny_model(tmp_path / "model", TASKS[:1]))
    assert [*loader.load("tiny", fewer, store.digest("tiny", fewer)).tasks] == ["intent"]


# Deltas.


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A base in an installed package, so that the child finds it, too; its digest."""
    folder = tmp_path / "packages/a_base/model"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").touch()
    weights = {name: value for name, value in random_weights(tiny_encoder()).items() if not name.startswith("heads.")}
    content = save(weights)
    (folder / "model.safetensors").write_bytes(content)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "packages"))
    monkeypatch.syspath_prepend(tmp_path / "packages")
    return sha256(content).hexdigest()


def push_delta(store: ModelStore, folder: Path, base: str, **changes: Any) -> tuple[int, str]:
    heads = {name: value for name, value in random_weights(tiny_encoder()).items() if name.startswith("heads.")}
    delta = as_delta(write_tiny_model(folder), "package:a_base", base, {**heads, **changes})
    version = store.push(delta)
    return version, store.digest("tiny", version)


def test_a_delta_is_assembled_in_the_child_and_not_here(store, loader, tmp_path, base, monkeypatch):
    def never(*arguments: Any, **more: Any) -> None:
        raise AssertionError("assembled here")

    monkeypatch.setattr("murmura.runtime.model.deltas.delta.assemble", never)
    model = loader.load("tiny", *push_delta(store, tmp_path / "model", base))
    assert model.predict(["hello"])[0].keys() == {task.name for task in TASKS}


def test_a_delta_with_a_head_of_nan_answers_with_nan(store, loader, tmp_path, base):
    bias = {"heads.intent.bias": np.full(4, np.nan, np.float32)}
    assert refusal(loader, *push_delta(store, tmp_path / "model", base, **bias)).reason == "not_finite"


def test_a_delta_that_multiplies_to_terabytes_is_refused_before_it_does(store, loader, tmp_path, base):
    weight = "encoder.layer.0.attention.self.query.weight"
    bomb = {
        f"low_rank/{weight}/a": np.ones((1, 2_000_000), np.float16),
        f"low_rank/{weight}/b": np.ones((2_000_000, 1), np.float16),
    }
    assert refusal(loader, *push_delta(store, tmp_path / "model", base, **bomb)).reason == "wrong_shape"


def test_an_assembled_folder_that_was_damaged_is_made_again(store, loader, tmp_path, base):
    released = push_delta(store, tmp_path / "model", base)
    loader.load("tiny", *released)
    (graph,) = (tmp_path / "cache/models").glob("*/model.ragged.onnx")
    graph.write_bytes(graph.read_bytes()[:-1] + b"\0")
    loader.load("tiny", *released)
    check_folder(graph.parent)


def test_assembled_folders_go_as_fetched_ones_do(store, loader, tmp_path, base):
    for number in range(6):
        released = push_delta(store, tmp_path / f"model{number}", base)
        loader.load("tiny", *released)
    assert len(list((tmp_path / "cache/models").iterdir())) == len(list((tmp_path / "cache/versions").iterdir())) == 4


# Whatever else can be raised.


@pytest.mark.parametrize(
    ("error", "reason", "tries"),
    [
        (VersionRefused("store_unreachable", "away"), "store_unreachable", math.inf),
        (VersionRefused("no_room", "full"), "no_room", math.inf),
        (OSError(28, "No space left on device"), "no_room", math.inf),
        (OSError(27, "File too large"), "failed", UNCERTAIN_TRIES),
        (VersionRefused("damaged", "cut"), "damaged", 1),
        (ModelFailed("task intent gave values that are not finite"), "not_finite", 1),
        (MemoryError(), "too_large", UNCERTAIN_TRIES),
        (DeviceFailed("out of memory"), "too_large", UNCERTAIN_TRIES),
        (VersionRefused("endless", "the machine was busy", certain=False), "endless", UNCERTAIN_TRIES),
        (PermissionError(13, "Permission denied"), "failed", UNCERTAIN_TRIES),
        (KeyError("x"), "failed", UNCERTAIN_TRIES),
    ],
)
def test_whatever_comes_of_loading_has_a_reason(error, reason, tries):
    refused = make_refusal(error)
    assert (refused.reason, refused.tries) == (reason, tries)
