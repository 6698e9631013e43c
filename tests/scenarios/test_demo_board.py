"""What the learning demo's board makes of what it is told, and how it is drawn."""

import io
import json
from datetime import UTC, datetime

import pytest
from rich.console import Console

from murmura.scenarios.stage.board import Board, Figure, Phase, Stage, State, summary
from murmura.scenarios.stage.desk import Desk, Message
from murmura.scenarios.stage.learn_screen import plain_lines, screen
from murmura.scenarios.stage.screen import Facts, Now
from murmura.scenarios.support.learn_command import _print_changes
from murmura.schemas.manifest import TaskSpec
from murmura.schemas.serving_event import ServingEvent
from murmura.schemas.training_event import TrainingEvent

NOW = datetime(2026, 1, 5, tzinfo=UTC)
FIGURE = {
    "task": "intent",
    "set": "new product",
    "rows": 90,
    "current": 0.0,
    "candidate": 0.9,
    "difference": 0.9,
    "low": 0.83,
    "high": 0.96,
    "allowance": 0.005,
    "verdict": "better",
}
TASKS = tuple(TaskSpec(name=name, kind="classification", labels=["a", "b"]) for name in ("intent", "queue"))
FACTS = Facts("desk version 1", "cpu", "http://127.0.0.1:9464", TASKS)


def training_event(event: str, **more) -> bytes:
    return TrainingEvent(event=event, run="r", name="desk", at=NOW, **more).model_dump_json().encode()


def swapped(event: str = "model.swapped", **more) -> bytes:
    return (
        ServingEvent(event=event, app="demo", name="desk", version=2, previous=1, at=NOW, **more)
        .model_dump_json()
        .encode()
    )


def retraining() -> Board:
    board = Board(figures={("intent", "new product"): Figure(90, before=0.0), ("queue", "new product"): Figure(90)})
    board.begin(Stage.RETRAIN, 0.0)
    board.phase = Phase.TRAINING
    return board


def test_progress_is_told_with_loss_and_batch():
    board = retraining()
    board.read_training_event(training_event("run.progress", step=20, steps=40, loss={"intent": 0.5}), 1.0)
    assert board.steps[Stage.RETRAIN].detail == "batch 20 of 40; loss intent 0.50"


def test_a_gate_that_passes_ends_its_stage_and_begins_the_swap():
    board = retraining()
    board.read_training_event(training_event("run.evaluated"), 30.0)
    board.read_training_event(training_event("gate.passed", gate=[FIGURE]), 31.0)
    states = [step.state for step in board.steps.values()]
    assert states[3:6] == [State.DONE, State.DONE, State.RUNNING]
    assert board.steps[Stage.RETRAIN].took_s == 30.0
    assert board.figures["intent", "new product"].gate.low == 0.83
    assert board.figures["queue", "new product"].gate is None
    assert board.phase is Phase.SWAP


def test_a_gate_that_refuses_ends_the_story_with_its_reason():
    board = retraining()
    board.read_training_event(training_event("run.evaluated"), 30.0)
    board.read_training_event(training_event("gate.refused", gate=[FIGURE], message="sentiment is worse"), 31.0)
    assert "sentiment is worse" in board.failed
    assert board.steps[Stage.GATE].state is State.FAILED
    assert not board.complete


def test_the_version_is_the_one_that_was_swapped_in():
    board = retraining()
    board.begin(Stage.SWAP, 40.0)
    board.read_serving_event(swapped(), 41.5)
    assert (board.version, board.swapped, board.steps[Stage.SWAP].took_s) == (2, True, 1.5)


def test_a_version_that_is_refused_ends_the_story():
    board = retraining()
    board.read_serving_event(swapped("model.rejected", reason="damaged", message="a file is cut"), 41.0)
    assert board.failed == "version 2 was refused: a file is cut"


def test_only_answers_of_a_phase_are_counted():
    board = Board()
    board.add_latency(Message("a", False, 0.0, latency_s=0.5))
    board.phase = Phase.USUAL
    board.add_latency(Message("a", False, 0.0, latency_s=0.1))
    board.add_latency(Message("a", False, 0.0, latency_s=0.2, dead="invalid"))
    assert dict(board.latencies) == {Phase.USUAL: [0.1]}


def test_a_summary_gives_median_and_tail():
    found = summary([n / 1000 for n in range(1, 101)])
    assert found == {"count": 100, "p50": 0.051, "p99": 0.1, "max": 0.1}


def test_all_is_done_when_every_stage_is():
    board = Board()
    for stage in Stage:
        assert not board.complete
        board.begin(stage, 0.0)
        board.end(stage, 1.0)
    assert board.complete


def test_the_outcome_can_be_kept():
    board = retraining()
    board.latencies[Phase.USUAL].append(0.02)
    kept = json.loads(board.as_json())
    assert kept["figures"][0] == {"task": "intent", "set": "new product", "rows": 90, "before": 0.0, "after": None}
    assert kept["latency_s"]["usual"]["count"] == 1


@pytest.mark.parametrize(("width", "height"), [(80, 24), (100, 30), (160, 45), (60, 18)])
def test_the_screen_fits_exactly_whatever_its_size(width, height):
    board, desk = retraining(), Desk(frozenset({"a"}))
    board.report(Stage.RETRAIN, "a long line of what the training says " * 9)
    for number in range(50):
        desk.add_message((0, number), "where is my card?", 0.0)
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=False)
    console.print(screen(FACTS, board, desk, Now(1.0, 1.0, "", 5.0), width, height))
    lines = console.file.getvalue().rstrip("\n").split("\n")
    assert len(lines) == height
    assert max(map(len, lines)) <= width


def test_figures_and_latencies_are_lines_where_there_is_no_screen():
    board = retraining()
    board.read_training_event(training_event("run.evaluated"), 30.0)
    board.read_training_event(training_event("gate.passed", gate=[FIGURE]), 31.0)
    board.figures["intent", "new product"].after = 0.9
    board.latencies[Phase.SWAP] += [0.010, 0.030]
    text = "\n".join(plain_lines(board))
    assert "0.0     90.0   +90.0 [+83.0, +96.0]" in text
    assert "around the swap" in text
    assert "30 ms" in text


def test_without_a_screen_what_a_long_stage_says_is_printed_now_and_then(capsys, monkeypatch):
    seconds = [0.0]
    monkeypatch.setattr("murmura.scenarios.support.learn_command.time.monotonic", lambda: seconds[0])
    board = retraining()
    _print_changes(board)
    for at, said in ((5.0, "batch 1"), (11.0, "batch 2"), (15.0, "batch 3")):
        seconds[0] = at
        board.report(Stage.RETRAIN, said)
    assert capsys.readouterr().out == "   11 s  ● retraining beside the traffic: batch 2\n"
    board.end(Stage.RETRAIN, 20.0)
    assert "✓ retraining" in capsys.readouterr().out
