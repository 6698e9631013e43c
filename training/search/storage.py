"""Where a study is kept: a file of SQLite, or a PostgreSQL server that several machines share. What goes wrong there is one line without passwords."""

import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from sqlalchemy import column, create_engine, event, select, table, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, IntegrityError, OperationalError, ProgrammingError, SQLAlchemyError

from ...runtime.errors import SetupError
from ..recipe.keys.tune import PASSWORD_KEYS
from .workers import hold_lock

DATABASE: Final = "study.db"
HEARTBEAT_S: float = 60
SILENT_S: float = 300
"""A trial of another machine that has not been heard of for so long is taken again."""
AWAY_S: float = 180
"""So long is waited for a server that has gone, so that its trials are not yet silent when it is back."""
ERRORS: Final = (SQLAlchemyError, StorageInternalError)
_AGAIN_S: Final = 1.0
_CONNECT_S: Final = 15
_TURN_S: Final = 30
"""A process that stands still in its turn loses it after so long."""
_SQLITE_WAIT_S: Final = 60
_SQLITE: Final = b"SQLite format 3\0"
"""The beginning of its files."""
_OPENINGS: Final = 5
_POSTGRESQL: Final = frozenset({"postgresql", "postgres", "postgresql+psycopg"})
_EXPECTED: Final = "expected postgresql://USER@HOST/NAME or sqlite:///FILE"
_ADVICE: Final = (
    (r"password authentication|no password", "give it by ~/.pgpass, PGPASSWORD or MURMURA_TUNE_STORAGE"),
    (r"resolve host|translate host", "check the name of the host"),
    (r"database .* does not exist", "make it first: CREATE DATABASE"),
    (r"permission denied|must be owner", "let the user own the database"),
    (r"pg_hba\.conf", "let this machine in there"),
    (r"refused|timeout expired|No such file", "check that the server runs there, and host and port"),
)


def place_of(storage: str | None, out: Path) -> URL:
    """Return where a study is kept: at a URL that was given, or in its folder. SetupError for what is no URL, or of another database."""
    if storage is None:
        return URL.create("sqlite", database=str((out / DATABASE).resolve()))
    try:
        url = make_url(storage)
    except (ArgumentError, ValueError):
        raise SetupError(f"tune.storage: not the URL of a database; {_EXPECTED}") from None
    if url.drivername in _POSTGRESQL:
        if storage.count("@") > 1:  # where the password ends is not known, and it would be shown
            raise SetupError("tune.storage: has an @ in a name or password; write %40 there")
        return url.set(drivername="postgresql+psycopg")
    if url.drivername != "sqlite":
        raise SetupError(f"tune.storage: {url.drivername} is not supported; {_EXPECTED}")
    if url.database in {None, "", ":memory:"}:
        raise SetupError("tune.storage: SQLite needs a file, so that the study can go on; expected sqlite:///FILE")
    return url


def show_url(url: URL) -> str:
    """Return the URL of a storage without what is secret."""
    named = {key: "***" for key in url.query if key.lower() in PASSWORD_KEYS}
    shown = url.set(drivername=url.get_backend_name()).update_query_dict(named)
    return shown.render_as_string(hide_password=True)


def try_storage(url: URL, out: Path) -> None:
    """Connect to a server, or look at a file and where it is to lie, and write nothing. SetupError where it cannot be used.

    `out` is the study's folder, which is made later.
    """
    if url.get_backend_name() == "sqlite":
        if not url.query and (why := _find_problem(Path(url.database or ""), out)):
            raise SetupError(f"{show_url(url)}: the storage of the study cannot be used: {why}")
        return
    with _contained(url):
        engine = create_engine(url, connect_args=_connect_args(url))
        with engine.connect():
            pass
        engine.dispose()


def _find_problem(file: Path, out: Path) -> str:
    """Return why a file cannot be that of a study; nothing where it can."""
    if file.is_dir():
        return "a folder, expected a file"
    if file.exists():
        if not os.access(file, os.R_OK | os.W_OK):
            return "this user may not read and write the file"
        with file.open("rb") as opened:
            begins = opened.read(len(_SQLITE))
        return "" if begins in {b"", _SQLITE} else "the file is no database of SQLite"
    folder = file.resolve().parent
    if folder == out.resolve():
        folder = next(each for each in (folder, *folder.parents) if each.exists())
    if not folder.is_dir():
        return f"{folder} is a file, expected a folder" if folder.exists() else f"there is no folder {folder}"
    return "" if os.access(folder, os.W_OK | os.X_OK) else f"this user may not write into {folder}"


@contextmanager
def open_storage(url: URL, study: str, say: Callable[[str], None]) -> Iterator["Storage"]:
    """Yield the storage of a study. What it raises in the block becomes a SetupError of one line."""
    with _contained(url):
        storage = Storage(url, study, say)
    try:
        with _contained(url, storage):
            yield storage
    finally:
        storage.close()


class Storage:
    """The storage of a study, and who works on it: turns, heartbeats, and a server that goes away."""

    def __init__(self, url: URL, study: str, say: Callable[[str], None]) -> None:
        self.url, self.say = url, say
        self._study = study
        self.at_stake = ""
        """What an error here means for the study, in words."""
        self.waits = True
        """Whether this thread waits for a server that has gone."""
        self._thread = threading.get_ident()
        self.rdb = self._open()
        if not self._is_file:
            event.listen(self.rdb.engine, "do_connect", self._connect)
            event.listen(self.rdb.engine, "connect", _use_utc)
            self.rdb.engine.dispose()  # those before had neither

    @property
    def _is_file(self) -> bool:
        return self.url.get_backend_name() == "sqlite"

    def _open(self) -> RDBStorage:
        """Make the tables where there are none; another process may make them at the same time."""
        text_of_url = self.url.render_as_string(hide_password=False).replace("{", "{{").replace("}", "}}")
        kept: dict[str, Any] = {"connect_args": _connect_args(self.url), "pool_pre_ping": not self._is_file}
        for opening in range(_OPENINGS):
            try:
                return RDBStorage(
                    text_of_url,
                    engine_kwargs=kept,
                    heartbeat_interval=max(1, round(HEARTBEAT_S)),
                    grace_period=max(1, round(SILENT_S)),
                )
            except RuntimeError as error:
                if isinstance(error, ERRORS):
                    raise
                raise SetupError(f"{show_url(self.url)}: {error}") from None  # tables of another version of optuna
            except (IntegrityError, OperationalError, ProgrammingError) as error:
                if opening + 1 == _OPENINGS or not _is_of_two_at_once(error):
                    raise
                time.sleep(0.2 * (opening + 1))
        raise AssertionError("the last opening returns or raises")

    def _connect(self, dialect: Any, record: object, given: Any, named: Any) -> Any:
        """Connect, and wait for a server that has gone: a training is not lost by a restart of it."""
        end, said = time.monotonic() + AWAY_S, False
        while self.waits and threading.get_ident() == self._thread:
            try:
                return dialect.connect(*given, **named)
            except dialect.loaded_dbapi.OperationalError as error:
                if time.monotonic() >= end:
                    raise
                if not said:
                    self.say(f"{show_url(self.url)}: {_describe(self.url, error)}; waiting up to {AWAY_S:g} s for it")
                said = True
                time.sleep(_AGAIN_S)
        return None  # as it does without us

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Let one process at a time do what stands inside: of all machines on a server, of this one with a file."""
        if self._is_file:
            assert self.url.database is not None, "place_of refuses it"
            with hold_lock(Path(f"{self.url.database}.lock")):
                yield
            return
        with self.rdb.engine.begin() as connection:
            # A machine that vanishes in its turn must not keep the others out for hours.
            connection.execute(text(f"SET LOCAL idle_in_transaction_session_timeout = '{_TURN_S}s'"))
            connection.execute(text(f"SET LOCAL lock_timeout = '{3 * _TURN_S}s'"))
            connection.execute(
                text("SELECT pg_advisory_xact_lock(hashtextextended(:study, 0))"), {"study": self._study}
            )
            yield

    @contextmanager
    def beating(self, trial: int) -> Iterator[None]:
        """Let others hear of a trial, by its id in the storage, while the block lasts."""
        stop = threading.Event()

        def beat() -> None:
            pause = HEARTBEAT_S
            while not stop.wait(pause):
                try:
                    self.rdb.record_heartbeat(trial)
                    pause = HEARTBEAT_S
                except ERRORS:  # said where a result is to be stored; here it is tried again soon
                    pause = min(_AGAIN_S, HEARTBEAT_S)
            self.rdb.remove_session()

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join(2 * _CONNECT_S)

    def heard(self, trials: list[int]) -> dict[int, datetime]:
        """Return when trials were last heard of, by the storage's clock."""
        beats = table("trial_heartbeats", column("trial_id"), column("heartbeat"))
        with self.rdb.engine.connect() as connection:
            found = connection.execute(select(beats).where(beats.c.trial_id.in_(trials)))
            return {row.trial_id: row.heartbeat for row in found}

    def close(self) -> None:
        """Let go of all connections."""
        self.rdb.remove_session()
        self.rdb.engine.dispose()


def _connect_args(url: URL) -> Mapping[str, Any]:
    """Return the connection settings of the driver; those of the URL come before them. A machine that vanishes is noticed after a minute."""
    if url.get_backend_name() == "sqlite":
        return {"timeout": _SQLITE_WAIT_S}
    wanted = {"connect_timeout": _CONNECT_S, "keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}
    wanted["tcp_user_timeout"] = 60_000
    return {key: value for key, value in wanted.items() if key not in url.query}


def _use_utc(connection: Any, record: object) -> None:
    """Write heartbeats in one time zone, whatever that of the machine or the user is."""
    connection.execute("SET TIME ZONE 'UTC'")
    connection.commit()


def _is_of_two_at_once(error: SQLAlchemyError) -> bool:
    return isinstance(error, IntegrityError) or "already exists" in str(error)


@contextmanager
def _contained(url: URL, storage: Storage | None = None) -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        if storage is not None or url.get_backend_name() == "sqlite":
            raise
        needed = "a study on a server needs psycopg: pip install 'murmura[postgresql]'"
        raise SetupError(f"{show_url(url)}: {needed} ({error.name or error})") from None
    except ERRORS as error:
        why = _describe(url, error)
        advice = next((said for pattern, said in _ADVICE if re.search(pattern, why)), "")
        after = (storage.at_stake if storage else "") or advice
        problem = f"{show_url(url)}: the storage of the study cannot be used: {why}"
        raise SetupError(f"{problem}; {after}" if after else problem) from None


def _describe(url: URL, error: BaseException) -> str:
    """Return what the database said first of all, in a line without what is secret."""
    while (cause := getattr(error, "orig", None) or error.__cause__) is not None:
        error = cause
    why = " ".join(str(error).split())
    for secret in _list_secrets(url):
        why = why.replace(secret, "***")
    return why[:200]


def _list_secrets(url: URL) -> Iterator[str]:
    if url.password:
        yield url.password
    for key, value in url.query.items():
        if key.lower() in PASSWORD_KEYS:
            yield from [value] if isinstance(value, str) else value
