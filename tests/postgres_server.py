"""A real PostgreSQL with a password, on a free port of 127.0.0.1 and a temporary data folder. It can be stopped, killed and started again."""

import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

NO_POSTGRES = "SEARCHES ON A DATABASE SERVER WERE NOT TRIED: {}; install the package `postgresql`"
START_SECONDS = 60
USER, PASSWORD = "tuner", "se{cret} %of@the/study"
DEBIAN = Path("/usr/lib/postgresql")


def programs() -> Path:
    """Where `initdb` and `postgres` are; skips the test loudly without them, and on a build server fails it."""
    found = shutil.which("initdb")
    folders = sorted(DEBIAN.glob("*/bin"), key=lambda each: float(each.parent.name))
    if found is None and not folders:
        _give_up("no `initdb` on PATH")
    return Path(found).resolve().parent if found else folders[-1]


def _give_up(reason: str) -> None:
    give_up = pytest.fail if os.environ.get("CI") else pytest.skip
    give_up(NO_POSTGRES.format(reason))


class Postgres:
    """One server. `url()` names a database of it, with the password."""

    def __init__(self, folder: Path, bin: Path, owner: str | None) -> None:
        self._folder, self._bin, self._owner = folder, bin, owner
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None

    def initialise(self) -> None:
        word = self._folder / "password"
        word.write_text(PASSWORD)
        if self._owner:
            shutil.chown(self._folder, self._owner)
            shutil.chown(word, self._owner)
        names = [f"--username={USER}", f"--pwfile={word}", "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C"]
        subprocess.run(
            [self._bin / "initdb", "--no-sync", "--no-instructions", *names, "--pgdata", self._data],
            check=True,
            stdout=subprocess.DEVNULL,
            user=self._owner,
            cwd="/",
        )

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    def start(self) -> None:
        settings = ["listen_addresses=127.0.0.1", "unix_socket_directories=", "fsync=off", "max_connections=40"]
        given = [part for each in settings for part in ("-c", each)]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._bin / "postgres", "-D", self._data, "-p", str(self.port), *given],
                stdout=log,
                stderr=log,
                user=self._owner,
                cwd="/",
                start_new_session=True,
            )
        end = time.monotonic() + START_SECONDS
        while not self._answers():
            assert self._process.poll() is None, self.log
            assert time.monotonic() < end, self.log
            time.sleep(0.05)

    def _answers(self) -> bool:
        try:
            self.run("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True

    @property
    def log(self) -> str:
        return (self._folder / "log").read_text()

    def crash(self) -> None:
        """End it at once, without a goodbye to its clients' transactions."""
        self._end(signal.SIGQUIT)

    def stop(self) -> None:
        self._end(signal.SIGINT)

    def _end(self, how: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(START_SECONDS)
            self._process = None

    def run(self, statement: str, database: str = "postgres") -> list[Any]:
        """Run a statement and return its rows."""
        named = {"host": "127.0.0.1", "port": self.port, "user": USER, "password": PASSWORD, "dbname": database}
        with psycopg.connect(**named, autocommit=True) as connection:
            done = connection.execute(statement)
            return done.fetchall() if done.description else []

    def create(self, database: str) -> str:
        """Make a database and return its name."""
        self.run(f'CREATE DATABASE "{database}"')
        return database


@contextmanager
def postgres() -> Iterator[Postgres]:
    """Run a server while the block lasts. It refuses root, so root starts it as another user."""
    found, owner = programs(), None
    if os.getuid() == 0:
        owner = next((each.pw_name for each in pwd.getpwall() if each.pw_name in {"postgres", "nobody"}), None)
    folder = Path(tempfile.mkdtemp(prefix=f"murmura-postgres-{secrets.token_hex(2)}-"))
    server = Postgres(folder, found, owner)
    try:
        server.initialise()
        server.start()
        yield server
    finally:
        server.crash()
        shutil.rmtree(folder, ignore_errors=True)
