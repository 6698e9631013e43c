"""A study on a real PostgreSQL: machines that share it, one that is killed, a server that goes away, and what is refused in one line."""

import json
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import optuna
import pytest
import yaml
from cli_in_process import refused_here, run_here
from postgres_server import PASSWORD, USER, Postgres, postgres
from tiny_training import RECIPE, rows, write_jsonl

from murmura.runtime.errors import SetupError
from murmura.training.search import run as search
from murmura.training.search import storage as kept
from murmura.training.search import taking
from murmura.training.search.others import Others
from murmura.training.search.plan import Plan, open_plan
from murmura.training.search.storage import Storage, open_storage, place_of, try_storage
from murmura.training.search.study import WORKER, quiet_optuna
from murmura.training.search.trial import Outcome

WriteRecipe = Callable[..., Path]
HEAD_RATE = "optimiser.head_lr"
SHORT: dict[str, Any] = {
    "encoder": {**RECIPE["encoder"], "hidden_size": 16, "layers": 1},
    "tasks": {"intent": RECIPE["tasks"]["intent"]},
    "budget": {"steps": 15, "evaluations": 2},
    "precision": "fp32",
    "tune": {"space": {HEAD_RATE: {"low": 1e-3, "high": 1e-1, "log": True}}, "trials": 6, "pruning": "none"},
}
START_S = 120


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with postgres() as started:
        yield started


@pytest.fixture(autouse=True)
def short_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "HEARTBEAT_S", 0.3)
    monkeypatch.setattr(kept, "SILENT_S", 3)
    monkeypatch.setattr(kept, "AWAY_S", 0.5)
    monkeypatch.setattr(kept, "_AGAIN_S", 0.1)
    monkeypatch.setattr(taking, "POLL_S", 0.2)
    monkeypatch.setattr(search, "make_page", lambda *given: "the page")  # its drawings take longer than all trials


def url_of(server: Postgres, database: str, password: str = PASSWORD) -> str:
    return f"postgresql://{USER}:{quote(password, safe='')}@127.0.0.1:{server.port}/{database}"


def score(*given: Any, on_scores: Callable[[int, list[float]], None], **named: Any) -> Outcome:
    """A trial without a training, whose figure is the rate of its heads."""
    reached = [given[1].optimiser.head_lr]
    time.sleep(0.05)
    on_scores(1, reached)
    return Outcome(reached, {"intent": {"main": reached[0]}}, 1, 0.0)


class Machine:
    """A process with a folder and data of its own, which works on a study."""

    def __init__(self, folder: Path, name: str, recipe: Path, url: str) -> None:
        self.out, self._taken, self._log = folder / name / "study", folder / f"{name}.taken", folder / f"{name}.log"
        data = folder / name / "data"
        data.mkdir(parents=True)
        for part, seed in (("train", 1), ("test", 2)):
            write_jsonl(data / f"{part}.jsonl", rows(30, seed))
        self.plan = open_plan(recipe, data, self.out, storage=url, say=self._say)
        self.process: multiprocessing.Process = multiprocessing.get_context("fork").Process()

    def start(
        self, until: Callable[[], bool] = lambda: True, *, dies_at: int = 0, silent_s: float = 3, zone: str = "UTC"
    ) -> None:
        """Work in a process. Its first trial ends when `until` is true, and the process in the middle of its trial `dies_at`."""

        def take(*given: Any, on_scores: Callable[[int, list[float]], None], **named: Any) -> Outcome:
            if len(self.taken) + 1 == dies_at:
                on_scores(1, [0.5])
            with self._taken.open("a") as file:
                file.write(f"{given[1].optimiser.head_lr}\n")
            if len(self.taken) == dies_at:
                os.kill(os.getpid(), signal.SIGKILL)
            end = time.monotonic() + START_S
            while not until() and time.monotonic() < end:
                time.sleep(0.02)
            return score(*given, on_scores=on_scores, **named)

        def work() -> None:
            os.environ["PGTZ"] = zone
            kept.SILENT_S = silent_s
            taking.take_trial = take
            search.run_study(self.plan, quiet=True, say=self._say)
            os._exit(0)

        self.process = multiprocessing.get_context("fork").Process(target=work)
        self.process.start()

    def _say(self, line: str) -> None:
        with self._log.open("a") as file:
            file.write(f"{line}\n")

    @property
    def said(self) -> str:
        return self._log.read_text()

    @property
    def taken(self) -> list[float]:
        return [float(line) for line in self._taken.read_text().split()] if self._taken.exists() else []

    @property
    def trials(self) -> list[dict[str, Any]]:
        return json.loads((self.out / "tune.json").read_text())["trials"]


def test_two_machines_share_a_study_and_one_goes_on_with_the_trial_of_the_other_that_is_killed(
    server: Postgres, tmp_path: Path, write_recipe: WriteRecipe
) -> None:
    recipe, url = write_recipe(**SHORT), url_of(server, server.create("shared"))
    one, other = (Machine(tmp_path, name, recipe, url) for name in ("one", "other"))
    # Both find an empty database. Only the other one looks for silent trials, when one of them is: a busy machine is silent, too.
    one.start(lambda: bool(other.taken), dies_at=2, silent_s=2 * START_S, zone="Asia/Tokyo")
    other.start(lambda: len(one.taken) == 2)
    one.process.join(START_S)
    other.process.join(START_S)
    assert (one.process.exitcode, other.process.exitcode) == (-signal.SIGKILL, 0), other.said
    states = [each["state"] for each in other.trials]
    assert (states.count("complete"), states.count("died"), len(states)) == (6, 1, 7)
    dead = other.trials[states.index("died")]["params"]
    assert dead[HEAD_RATE] == one.taken[1]
    ended = [each["params"][HEAD_RATE] for each in other.trials if each["state"] == "complete"]
    assert len(set(ended)) == 6
    assert sorted(ended) == sorted({*one.taken, *other.taken})
    assert sorted(ended) == sorted([one.taken[0], *other.taken])  # each was taken by one of them
    assert other.trials[0]["params"] == {HEAD_RATE: 1e-2}  # that of the recipe, once
    assert f"trial {states.index('died')} of {os.uname().nodename} has been silent too long; it is taken again" in (
        other.said
    )
    one.start()
    one.process.join(START_S)
    assert one.process.exitcode == 0
    assert "the study goes on: 6 of 6 trials are taken" in one.said
    for name in ("best.yaml", "tune.json", "tune.html"):
        assert (one.out / name).read_bytes() == (other.out / name).read_bytes()
    assert "tune" not in yaml.safe_load((one.out / "best.yaml").read_text())
    _assert_no_password(tmp_path)


def _assert_no_password(folder: Path) -> None:
    for file in folder.rglob("*"):
        if file.is_file():
            found = file.read_bytes()
            assert not any(word.encode() in found for word in (PASSWORD, quote(PASSWORD, safe=""))), file


def _plan(server: Postgres, database: str, folder: Path, recipe: Path, few: Path) -> Plan:
    return open_plan(recipe, few, folder, storage=url_of(server, server.create(database)), say=lambda line: None)


def test_a_study_goes_on_when_the_server_is_back_and_a_restart_of_it_costs_no_trial(
    server: Postgres,
    few: Path,
    tmp_path: Path,
    write_recipe: WriteRecipe,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    recipe, out = write_recipe(**{**SHORT, "tune": {**SHORT["tune"], "trials": 4}}), tmp_path / "study"
    words = ["tune", recipe, "--data", few, "--out", out, "--quiet"]
    words += ["--storage", url_of(server, server.create("away"))]
    calls: list[float] = []

    def crash_in_the_third(*given: Any, **named: Any) -> Outcome:
        calls.append(given[1].optimiser.head_lr)
        if len(calls) == 3:
            server.crash()
            time.sleep(0.5)  # for heartbeats without a server
        return score(*given, **named)

    monkeypatch.setattr(taking, "take_trial", crash_in_the_third)
    done = run_here(*words)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1, done.stderr
    assert "refused" in done.stderr
    assert "trial 2 was running: the same command goes on with the study, and takes it again" in done.stderr
    assert "waiting up to 0.5 s for it" in done.stdout
    server.start()

    def restart_in_the_next(*given: Any, **named: Any) -> Outcome:
        calls.append(given[1].optimiser.head_lr)
        if len(calls) == 4:
            server.crash()
            threading.Timer(0.5, server.start).start()
        return score(*given, **named)

    monkeypatch.setattr(kept, "AWAY_S", START_S)
    monkeypatch.setattr(taking, "take_trial", restart_in_the_next)
    done = run_here(*words)
    assert done.returncode == 0, done.stderr
    assert "trial 2 died with its process; it is taken again" in done.stdout
    trials = json.loads((out / "tune.json").read_text())["trials"]
    assert [each["state"] for each in trials] == ["complete", "complete", "died", "complete", "complete"]
    assert calls[2] == calls[3] == trials[2]["params"][HEAD_RATE] == trials[3]["params"][HEAD_RATE]
    _assert_no_password(out)
    assert "Traceback" not in capfd.readouterr().err
    assert PASSWORD not in done.stdout + done.stderr


def test_a_turn_is_taken_by_one_machine_at_a_time_and_lost_by_one_that_stands_still(
    server: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept, "_TURN_S", 1)
    place = place_of(url_of(server, server.create("turns")), Path())
    order: list[str] = []
    with quiet_optuna():
        one, other = (Storage(place, "study", order.append) for _ in range(2))

    def take() -> None:
        with other.turn():
            order.append("other has it")

    def wait_with(turn: float) -> None:
        thread = threading.Thread(target=take)
        with one.turn():
            thread.start()
            time.sleep(turn)
            order.append("one had it")
        thread.join(START_S)

    wait_with(0.2)
    assert order == ["one had it", "other has it"]
    with pytest.raises(Exception, match="idle-in-transaction"):
        wait_with(2.0)
    assert order[2:] == ["other has it", "one had it"]
    for each in (one, other):
        each.close()


def test_a_trial_that_lives_elsewhere_is_heard_of_and_not_waited_for(
    server: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept, "SILENT_S", 2 * START_S)
    place = place_of(url_of(server, server.create("alive")), tmp_path)
    said: list[str] = []
    with quiet_optuna(), open_storage(place, "study", said.append) as storage:
        study = optuna.create_study(storage=storage.rdb, study_name="study")
        trial = study.ask()
        trial.set_user_attr(WORKER, "far-away-17-0123")
        storage.rdb.record_heartbeat(trial._trial_id)
        others = Others(study, storage, tmp_path)
        assert others.may_be_gone()
        time.sleep(0.5)
        assert others.may_be_gone()
        with storage.beating(trial._trial_id):
            end = time.monotonic() + START_S
            while others.may_be_gone() and time.monotonic() < end:
                time.sleep(0.05)
        assert not others.may_be_gone()
        others.say_running()
    begun = "trial 0 runs on far-away: waiting until it is heard of, or has been silent for 240 s"
    left = "trial 0 still runs on far-away: the same command writes the results again when it has ended"
    assert said == [begun, left]


def test_a_storage_that_cannot_be_used_is_one_line_that_says_what_to_do(
    server: Postgres, few: Path, tmp_path: Path, write_recipe: WriteRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = write_recipe(**SHORT)
    good = url_of(server, "postgres")

    def refused(url: str) -> str:
        said = refused_here("tune", recipe, "--data", tmp_path / "none", "--storage", url)  # before data are read
        assert not any(word in said for word in (PASSWORD, quote(PASSWORD, safe=""), "secret"))
        return said

    assert "check the name of the host" in refused("postgresql://me:secret@no.such.invalid/x")
    assert "check that the server runs there" in refused("postgres://me:secret@127.0.0.1:1/x")
    assert 'failed for user "tuner"; give it by ~/.pgpass, PGPASSWORD or' in refused(
        url_of(server, "postgres", "secret")
    )
    assert "no password supplied; give it by" in refused(f"postgresql://{USER}@127.0.0.1:{server.port}/postgres")
    assert "make it first: CREATE DATABASE" in refused(url_of(server, "none"))
    assert "write %40 there" in refused("postgresql://me:secret@secret@host/x")
    assert "not the URL of a database" in refused("postgresql://me:secret@host:secret/x")
    for other in ("mysql+pymysql://me:secret@host/x", "postgresql+asyncpg://me:secret@host/x"):
        assert f"{other.partition(':')[0]} is not supported; expected postgresql://USER@HOST/NAME" in refused(other)
    assert "SQLite needs a file" in refused("sqlite://")
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "psycopg", None)
        assert "a study on a server needs psycopg: pip install 'murmura[postgresql]'" in refused(good)
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    try_storage(place_of(f"postgresql://{USER}@127.0.0.1:{server.port}/postgres", tmp_path), tmp_path)
    server.run("CREATE ROLE poor LOGIN PASSWORD 'secret'")
    poor = f"postgresql://poor:secret@127.0.0.1:{server.port}/postgres"
    plan = open_plan(recipe, few, tmp_path / "study", storage=poor, say=lambda line: None)
    with pytest.raises(SetupError, match="permission denied for schema public; let the user own the database"):
        search.run_study(plan, quiet=True, say=lambda line: None)
