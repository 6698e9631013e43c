"""A release takes the place of what it was compared with, and of nothing else. The topic is a dictionary here."""

from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tiny_loop import write_corrections, write_job

from murmura.runtime.errors import SetupError, VersionRefused
from murmura.runtime.model.folders.folder import read_manifest
from murmura.runtime.release.store import ModelStore
from murmura.schemas.experiment import Experiment
from murmura.schemas.release import ReleaseState, released, rolled_back, started
from murmura.training.retrain import checks as job_checks
from murmura.training.retrain import going_live, stages, starting_point
from murmura.training.retrain import run as retraining
from murmura.training.retrain.going_live import already_there
from murmura.training.retrain.run import GateRefused, Retraining, retrain

NOW = datetime.now(UTC)


class Silent(retraining.Announcer):
    def __enter__(self):
        return self


@pytest.fixture
def states(monkeypatch) -> dict[str, ReleaseState]:
    found: dict[str, ReleaseState] = {}

    async def read(kafka, topic):
        return dict(found)

    async def publish(kafka, topic, state):
        found[state.name] = state

    async def nothing_missing(kafka, topics):
        return {}

    for module in (going_live, starting_point):
        monkeypatch.setattr(module, "read_states", read)
    monkeypatch.setattr(going_live, "publish_state", publish)
    monkeypatch.setattr(job_checks, "require_topics", nothing_missing)
    monkeypatch.setattr(retraining, "Announcer", Silent)
    return found


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    (tmp_path / "store").mkdir()
    write_corrections(tmp_path / "corrections")
    return ModelStore(tmp_path / "store")


def job(folder: Path, base: Path, **changes) -> Path:
    return write_job(folder, base, **{"kafka": {"bootstrap_servers": "localhost:1"}} | changes)


def live(store: ModelStore, version: int, state: ReleaseState | None = None) -> ReleaseState:
    return released(state, "desk", version, store.digest("desk", version), by="ops", why="", at=NOW)


def another(base: Path, folder: Path) -> Path:
    """A model of the same tasks that answers otherwise."""
    import json
    import shutil

    shutil.copytree(base / "desk", folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["tasks"][0]["thresholds"] = {"accept": 0.5}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def test_a_release_ends_no_experiment_of_people(desk_base, store, states, tmp_path):
    for _ in range(2):
        store.push(desk_base / "desk")
    experiment = Experiment(id="desk-2", share=0.05, started=NOW)
    states["desk"] = running = started(live(store, 1), 2, store.digest("desk", 2), experiment, by="ann", why="", at=NOW)
    with pytest.raises(
        SetupError, match="desk 2 is in experiment desk-2, which a release would end: run the job after it"
    ):
        retrain(job(tmp_path, desk_base), tmp_path / "work", quiet=True)
    assert states == {"desk": running}


def test_a_folder_is_released_over_the_live_version_that_it_is(desk_base, store, states, tmp_path):
    store.push(desk_base / "desk")
    states["desk"] = live(store, 1)
    done = retrain(job(tmp_path, desk_base), tmp_path / "work", quiet=True)
    assert (done.version, done.generation) == (2, 2)


def test_a_folder_is_not_released_over_a_live_version_that_it_is_not(desk_base, store, states, tmp_path):
    store.push(another(desk_base, tmp_path / "other"))
    states["desk"] = live(store, 1)
    with pytest.raises(
        SetupError, match=r"desk 1 is live \(generation 1\), and the gate compares with 0, which is ano"
    ):
        retrain(job(tmp_path, desk_base), tmp_path / "work", quiet=True)
    assert not (tmp_path / "work").exists()


def test_a_live_version_that_the_store_does_not_have_cannot_be_compared_with(desk_base, store, states, tmp_path):
    store.push(desk_base / "desk")
    state = live(store, 1)
    states["desk"] = state.model_copy(update={"current": state.current.model_copy(update={"version": 7})})
    with pytest.raises(SetupError, match=r"desk 7 is live, and the gate has to compare with it, but it cannot be had"):
        retrain(job(tmp_path, desk_base), tmp_path / "work", quiet=True)


def test_what_was_released_while_it_trained_is_not_undone(desk_base, store, states, tmp_path, monkeypatch):
    store.push(desk_base / "desk")
    store.push(another(desk_base, tmp_path / "other"))
    states["desk"] = live(store, 1)
    real = Retraining._gate

    def meanwhile(self, folder: Path):
        states["desk"] = live(store, 2, states["desk"])
        return real(self, folder)

    monkeypatch.setattr(Retraining, "_gate", meanwhile)
    mine = job(tmp_path, desk_base, model={"store": str(tmp_path / "store"), "name": "desk"})
    with pytest.raises(SetupError, match=r"desk 2 is live \(generation 2\), and the gate compares with 1"):
        retrain(mine, tmp_path / "work", quiet=True)
    assert states["desk"].current.version == 2


def test_a_run_that_goes_on_does_not_train_on_when_another_version_is_live_by_then(
    desk_base, store, states, tmp_path, monkeypatch
):
    class Gone(BaseException):
        pass

    def killed(self, folder: Path):
        raise Gone

    store.push(desk_base / "desk")
    store.push(another(desk_base, tmp_path / "other"))
    states["desk"] = live(store, 1)
    mine = job(tmp_path, desk_base, model={"store": str(tmp_path / "store"), "name": "desk"})
    with monkeypatch.context() as patched:
        patched.setattr(Retraining, "_fit", killed)
        with pytest.raises(Gone):
            retrain(mine, tmp_path / "work", quiet=True)
    states["desk"] = live(store, 2, states["desk"])
    with pytest.raises(SetupError, match=r"desk 2 is live \(generation 2\), and the gate compares with 1"):
        retrain(mine, tmp_path / "work", quiet=True)
    assert not list((tmp_path / "work" / "fit").iterdir())


def test_after_feedback_that_was_not_enough_the_next_run_starts_from_what_is_live_by_then(
    desk_base, store, states, tmp_path, monkeypatch
):
    def not_enough(*_):
        raise SetupError("not enough")

    store.push(desk_base / "desk")
    store.push(another(desk_base, tmp_path / "other"))
    states["desk"] = live(store, 1)
    mine = job(tmp_path, desk_base, model={"store": str(tmp_path / "store"), "name": "desk"})
    with monkeypatch.context() as patched:
        patched.setattr(stages, "find_targets", not_enough)
        with pytest.raises(SetupError, match="not enough"):
            retrain(mine, tmp_path / "work", quiet=True)
    states["desk"] = live(store, 2, states["desk"])
    said: list[str] = []
    with suppress(GateRefused):
        retrain(mine, tmp_path / "work", quiet=True, say=said.append)
    assert said[0] == "current: desk 2"


def test_a_damaged_version_in_the_store_is_not_taken_for_the_candidate(desk_base, store, states, tmp_path):
    for _ in range(2):
        store.push(desk_base / "desk")
    manifest = read_manifest(desk_base / "desk")
    (tmp_path / "store" / "desk" / "2" / "manifest.json").write_text("{")
    assert already_there(store, manifest) == 1
    (tmp_path / "store" / "desk" / "1" / "manifest.json").write_text("{")
    assert already_there(store, manifest) is None


def test_a_store_that_cannot_be_reached_is_not_pushed_to_twice(desk_base, store, states, monkeypatch):
    def away(name, version):
        raise VersionRefused("store_unreachable", "no answer")

    store.push(desk_base / "desk")
    monkeypatch.setattr(store, "describe", away)
    with pytest.raises(VersionRefused, match="no answer"):
        already_there(store, read_manifest(desk_base / "desk"))


def test_a_version_that_was_gone_back_from_is_not_released_again(desk_base, store, states, tmp_path, monkeypatch):
    """Killed between the release and its marker; then somebody on call goes back."""

    class Gone(BaseException):
        pass

    store.push(desk_base / "desk")
    states["desk"] = live(store, 1)
    real = Retraining._release

    def killed(self, folder: Path):
        real(self, folder)
        raise Gone

    monkeypatch.setattr(Retraining, "_release", killed)
    mine = job(tmp_path, desk_base, model={"store": str(tmp_path / "store"), "name": "desk"})
    with pytest.raises(Gone):
        retrain(mine, tmp_path / "work", quiet=True)
    assert states["desk"].current.version == 2
    monkeypatch.setattr(Retraining, "_release", real)
    states["desk"] = rolled_back(states["desk"], by="on call", why="bad", at=NOW)
    with pytest.raises(SetupError, match=r"desk 2 was released before \(generation 2\), and since generation 3 desk 1"):
        retrain(mine, tmp_path / "work", quiet=True)
    assert states["desk"].current.version == 1


def test_a_release_that_lacks_only_its_marker_is_not_made_twice(desk_base, store, states, tmp_path):
    mine = job(tmp_path, desk_base)
    retrain(mine, tmp_path / "work", quiet=True)
    (tmp_path / "work" / "release" / "done.json").unlink()
    assert retrain(mine, tmp_path / "work", quiet=True).generation == 1
    assert states["desk"].generation == 1
