"""The trials that other machines still take when a budget is at its end."""

import time
from datetime import datetime
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial, TrialState

from . import storage as kept
from .storage import Storage
from .study import WORKER
from .workers import host_of, is_alive


class Others:
    """Waits until each of them has been heard of, or has been silent so long that it is taken again: nobody else may be left to do that."""

    def __init__(self, study: optuna.Study, storage: Storage, out: Path) -> None:
        self._study, self._storage, self._out = study, storage, out
        self._first: dict[int, tuple[datetime | None, float]] = {}

    def may_be_gone(self) -> bool:
        """Return whether a trial runs of whose process is not known that it lives. Says so when one is first looked at."""
        doubtful = []
        running = [each for each in self._running() if not is_alive(self._out, each.user_attrs.get(WORKER, ""))]
        beats = self._storage.heard([each._trial_id for each in running]) if running else {}
        for trial in running:
            beat = beats.get(trial._trial_id)
            is_new = trial.number not in self._first
            first, since = self._first.setdefault(trial.number, (beat, time.monotonic()))
            # A little longer than until it counts as silent; a clock that goes back must not keep us here.
            if beat == first and time.monotonic() - since < kept.SILENT_S + kept.HEARTBEAT_S:
                doubtful.append(trial)
                if is_new:
                    wait = f"waiting until it is heard of, or has been silent for {kept.SILENT_S:g} s"
                    self._storage.say(f"trial {trial.number} runs on {_host(trial)}: {wait}")
        return bool(doubtful)

    def say_running(self) -> None:
        """Name what still runs, which the results lack."""
        for trial in self._running():
            if not is_alive(self._out, trial.user_attrs.get(WORKER, "")):  # one of this folder writes there itself
                then = "the same command writes the results again when it has ended"
                self._storage.say(f"trial {trial.number} still runs on {_host(trial)}: {then}")

    def _running(self) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))


def _host(trial: FrozenTrial) -> str:
    return host_of(trial.user_attrs.get(WORKER, "another machine"))
