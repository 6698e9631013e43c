"""Day zero: what a file of examples of a new label is refused for. `integration/test_loop.py` takes one to service."""

from pathlib import Path

import pytest
from tiny_loop import loans, write_job
from tiny_training import write_jsonl

from murmura.runtime.errors import SetupError
from murmura.training.mix.corrections import TooLittleFeedback
from murmura.training.recipe.job import read_job
from murmura.training.retrain.preview import preview


def write_examples(folder: Path, count: int, **changes: str) -> Path:
    return write_jsonl(
        folder / "new.jsonl", [{"text": row["text"], "label": "loan", **changes} for row in loans(count, 3)]
    )


def test_too_few_examples_are_said_to_be_too_few_before_anything_is_trained(desk_base: Path, tmp_path: Path) -> None:
    write_examples(tmp_path, 10)
    job = write_job(tmp_path, desk_base, feedback={"examples": {"intent": "new.jsonl"}})
    with pytest.raises(TooLittleFeedback, match="5 held-out texts with new labels, 6 are needed"):
        [*preview(job)]


@pytest.mark.parametrize(
    ("feedback", "message"),
    [
        ({"examples": {"mood": "new.jsonl"}}, "job.yaml:.*: feedback.examples.mood: the model has no task mood"),
        (
            {"examples": {"intent": "gone.csv"}},
            "gone.csv: no such file; expected examples with the columns text and label",
        ),
        ({"examples": {"topics": "new.jsonl"}}, "label 'loan' is new, and the task topics of the model is closed"),
        (
            {"examples": {"intent": "new.jsonl"}, "data": "x"},
            "expected one of `data`, `manifest`, `ingest` and `examples`",
        ),
        ({"data": "x", "examples_heldout": 0.2}, "`examples_heldout` has no effect without `examples`"),
    ],
)
def test_a_mistake_is_one_line(desk_base: Path, tmp_path: Path, feedback: dict[str, object], message: str) -> None:
    write_examples(tmp_path, 16)
    job = write_job(tmp_path, desk_base, feedback=feedback)
    with pytest.raises(SetupError, match=message):
        [*preview(job)]


def test_one_text_with_two_labels_is_refused_and_six_held_out_rows_are_enough_unless_the_job_says_more(
    desk_base: Path, tmp_path: Path
) -> None:
    rows = [{"text": row["text"], "label": "loan"} for row in loans(16, 3)]
    write_jsonl(tmp_path / "new.jsonl", [*rows, {**rows[0], "label": "lost"}])
    job = write_job(tmp_path, desk_base, feedback={"examples": {"intent": "new.jsonl"}}, gate={"allowance": 0.01})
    with pytest.raises(SetupError, match=r"new.jsonl:17: the text of .*new.jsonl:1 again, here with the label 'lost'"):
        [*preview(job)]
    assert read_job(job).value.gate.least_new_rows == 6
    job = write_job(tmp_path, desk_base, feedback={"examples": {"intent": "new.jsonl"}}, gate={"least_new_rows": 8})
    assert read_job(job).value.gate.least_new_rows == 8
    assert read_job(write_job(tmp_path, desk_base)).value.gate.least_new_rows == 10
