"""What is known of a model that was distilled into a smaller one: where it began, and how it compares with its teacher."""

from pathlib import Path
from typing import Final, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from .os_errors import write_text
from .run_folder import COMPARED, SMALLER, SmallerRecord

RECORD: Final = "smaller.json"
Found = TypeVar("Found", bound=BaseModel)


class TaskCompared(BaseModel):
    """One task on the same rows of one set: what `murmura compare` compares, of 1."""

    task: str
    set: str
    rows: int
    teacher: float
    student: float


class Compared(BaseModel):
    """Quality on the recipe's sets, and speed of the graphs without replies: texts in batches of 32, one thread, CPU."""

    model_config = ConfigDict(frozen=True)

    layers: list[int]
    """The layers of the teacher that the student began as, from 0."""
    of: int
    neurons: int | None = None
    of_neurons: int | None = None
    """The neurons of each feed-forward part; None where all of them stayed."""
    tasks: list[TaskCompared]
    texts: int
    """How many texts were timed."""
    teacher_seconds: float
    """CPU time for these texts."""
    student_seconds: float

    @property
    def quality(self) -> float:
        """The student's mean score as a share of the teacher's."""
        teacher = sum(each.teacher for each in self.tasks)
        return sum(each.student for each in self.tasks) / teacher if teacher else 0.0

    @property
    def speed(self) -> float:
        """How many times as fast as the teacher the student is."""
        return self.teacher_seconds / self.student_seconds

    @property
    def neurons_kept(self) -> str:
        """How many neurons stayed, in words; empty where all of them did."""
        return f"{self.neurons:,} of {self.of_neurons:,} neurons in each" if self.neurons is not None else ""

    def describe(self) -> str:
        """Return the comparison in a line."""
        neurons = f", {self.neurons_kept}" if self.neurons_kept else ""
        return (
            f"{len(self.layers)} of the teacher's {self.of} layers{neurons}: {100 * self.quality:.1f} % of its mean score at "
            f"{self.speed:.2f} times its speed"
        )


def read_stage(folder: Path | None) -> SmallerRecord | None:
    """Return what the stage `smaller` left in the encoder's folder; None where there was none."""
    return _read(SmallerRecord, folder / RECORD) if folder is not None else None


def stage_of(run: Path) -> Path:
    """Return the folder of the stage in that of a run."""
    return run / SMALLER


def save_comparison(run: Path, found: Compared) -> None:
    """Write the comparison into the run folder."""
    write_text(run / COMPARED, found.model_dump_json(indent=2) + "\n")


def remove_comparison(run: Path) -> None:
    """Remove the comparison of an earlier evaluation."""
    (run / COMPARED).unlink(missing_ok=True)


def read_comparison(run: Path) -> Compared | None:
    """Return the comparison of a run; None where there is none of this version."""
    return _read(Compared, run / COMPARED)


def _read(kind: type[Found], file: Path) -> Found | None:
    try:
        return kind.model_validate_json(file.read_bytes())
    except (OSError, ValidationError):
        return None
