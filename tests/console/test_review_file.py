"""The review queue on a file: what people say is in the file, and the rest of it is as before."""

import asyncio
import csv
import json
from collections.abc import Callable
from pathlib import Path
from threading import Event

import pytest
from tiny_model import INTENT

from murmura.console.review.desk import ReviewDesk
from murmura.console.review.file_reviews import FileReviews
from murmura.console.review.row_file import RowFile
from murmura.runtime.errors import SetupError

ROWS = [
    {"suggested": "1", "text": "my card was lost", "guess": "card_lost", "guess_score": "0.4", "label": "", "x": "a,b"},
    {"suggested": "2", "text": "help me", "guess": "", "guess_score": "", "label": "", "x": 'say "hi"'},
    {"suggested": "3", "text": "transfer money", "guess": "", "guess_score": "", "label": "kept", "x": ""},
]


def write_csv(path: Path) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(ROWS[0]))
        writer.writeheader()
        writer.writerows(ROWS)
    return path


async def judge(reviews: FileReviews, act: Callable[[ReviewDesk], None]) -> None:
    """Let somebody act once the queue is full, and stop when all is saved."""
    task = asyncio.create_task(reviews.run())
    async with asyncio.timeout(20):
        while reviews.facts().left_out or not reviews.desk.queue.counts(0.0).open:
            await asyncio.sleep(0.01)
        act(reviews.desk)
        await asyncio.sleep(0.1)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_label_is_filled_in_and_an_undone_one_is_empty_again(tmp_path: Path, tiny_model: Path) -> None:
    path = write_csv(tmp_path / "rows.csv")
    reviews = FileReviews(path, tiny_model, INTENT.name, clock=lambda: 1.0)

    def act(desk: ReviewDesk) -> None:
        first, second = (desk.show("b", "ann", 1.0).item, desk.show("b", "ann", 1.0).following)
        assert (first.text, first.guess.value, first.guess.score) == ("my card was lost", "card_lost", 0.4)
        assert second.guess.value in INTENT.labels  # the model's: the file has none
        desk.judge(first.key, "b", "ann", {"label": [INTENT.labels[0]]}, 1.0)
        desk.judge(second.key, "b", "ann", {"label": [INTENT.labels[1]]}, 1.0)
        desk.undo("b", "ann", 1.0)

    await judge(reviews, act)
    assert reviews.queue.counts(1.0).unsent == 0
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows == [ROWS[0] | {"label": INTENT.labels[0]}, *ROWS[1:]]


async def test_what_is_given_is_saved_while_the_model_still_guesses(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("murmura.console.review.file_reviews._AT_ONCE", 1)
    path, goes_on = write_csv(tmp_path / "rows.csv"), Event()
    reviews = FileReviews(path, tiny_model, INTENT.name, clock=lambda: 1.0)
    predict = reviews._predict

    def predict_slowly(texts: list) -> list:
        assert not texts or goes_on.wait(20)
        return predict(texts)

    monkeypatch.setattr(reviews, "_predict", predict_slowly)
    task = asyncio.create_task(reviews.run())
    async with asyncio.timeout(20):
        while not (shown := reviews.desk.show("b", "ann", 1.0)).item:
            await asyncio.sleep(0.01)
        reviews.desk.judge(shown.item.key, "b", "ann", {"label": [INTENT.labels[0]]}, 1.0)
        while reviews.queue.unsent:
            await asyncio.sleep(0.01)
    goes_on.set()
    assert INTENT.labels[0] in path.read_text()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_of_json_lines_only_the_judged_one_changes(tmp_path: Path, tiny_model: Path) -> None:
    path = tmp_path / "rows.jsonl"
    lines = ['{"text":   "my card was lost", "spans": null}\n', '{"text": "help me",   "n": 1.50}\n']
    path.write_text("".join(lines))
    reviews = FileReviews(path, tiny_model, "entities", clock=lambda: 1.0)
    label = reviews._task.labels[0]

    def act(desk: ReviewDesk) -> None:
        desk.judge(desk.show("b", "ann", 1.0).item.key, "b", "ann", {"spans": [f"3 7 {label}"]}, 1.0)

    await judge(reviews, act)
    first, second = path.read_text().splitlines(keepends=True)
    assert json.loads(first) == {"text": "my card was lost", "spans": [{"label": label, "start": 3, "end": 7}]}
    assert second == lines[1]


def test_permissions_and_a_link_stay_and_half_a_surrogate_pair_is_written(tmp_path: Path) -> None:
    real, link = tmp_path / "real.jsonl", tmp_path / "rows.jsonl"
    real.write_text('{"text": "help me", "n": "\\ud800"}\n')
    real.chmod(0o640)
    link.symlink_to(real)
    rows = RowFile(link, INTENT)
    rows.fill(0, INTENT.labels[0])
    rows.save()
    assert json.loads(real.read_text()) == {"text": "help me", "n": "\ud800", "label": INTENT.labels[0]}
    assert (link.is_symlink(), real.stat().st_mode & 0o777) == (True, 0o640)


async def test_a_file_that_somebody_else_changed_is_not_written_over(tmp_path: Path, tiny_model: Path) -> None:
    path = write_csv(tmp_path / "rows.csv")
    reviews = FileReviews(path, tiny_model, INTENT.name, clock=lambda: 1.0)

    def act(desk: ReviewDesk) -> None:
        path.write_text("text,label\nmine,\n")
        desk.judge(desk.show("b", "ann", 1.0).item.key, "b", "ann", {"label": [INTENT.labels[0]]}, 1.0)

    await judge(reviews, act)
    assert path.read_text() == "text,label\nmine,\n"
    assert "changed by another program" in reviews.facts().refused
    assert reviews.queue.counts(1.0).unsent == 1


@pytest.mark.parametrize(
    ("name", "task", "says"),
    [
        ("rows.parquet", "intent", "ends with .csv, .tsv or .jsonl"),
        ("rows.csv", "intnt", "did you mean intent"),
        ("rows.csv", None, "name the task to label"),
        ("none.csv", "intent", "No such file"),
        ("rows.csv", "entities", "use JSON lines"),
    ],
)
def test_what_cannot_be_labelled_is_refused(tmp_path: Path, tiny_model: Path, name: str, task: str, says: str) -> None:
    write_csv(tmp_path / "rows.csv")
    with pytest.raises(SetupError, match=says):
        FileReviews(tmp_path / name, tiny_model, task)
