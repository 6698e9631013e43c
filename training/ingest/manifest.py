"""What an ingested data set was made of, so that it can be made again: `dataset.json` in its folder."""

from hashlib import sha256
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ...runtime.errors import SetupError
from ...runtime.kafka.offset_ranges import OffsetRange
from ...runtime.settings.settings import InputSettings
from ...runtime.wire.feedback import known_labels
from ...schemas.manifest import ModelManifest, Sha256

DATASET_NAME: Final = "dataset.json"
Role = Literal["feedback", "reviews", "replies", "results", "requests"]
ROLES: Final[tuple[Role, ...]] = ("feedback", "reviews", "replies", "results", "requests")
"""In the order in which they are read."""
Offset = Annotated[int, Field(ge=0)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class FrozenRange(_Frozen):
    """Records of one partition: from `from` up to, and not including, `to`."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_by_name=True, validate_by_alias=True)

    role: Role
    topic: str
    partition: Offset
    start: Annotated[Offset, Field(alias="from")]
    end: Annotated[Offset, Field(alias="to")]

    @model_validator(mode="after")
    def _goes_forward(self) -> Self:
        if self.end < self.start:
            raise ValueError(f"{self.topic}, partition {self.partition}: it goes from {self.start} to {self.end}")
        return self

    def as_range(self) -> OffsetRange:
        return OffsetRange(self.topic, self.partition, self.start, self.end)


class TaskLabels(_Frozen):
    """Which labels a task may be corrected to."""

    labels: list[str]
    open: bool = False


class EarlierSet(_Frozen):
    """An earlier data set whose texts stay in the part where they were."""

    path: str
    sha256: Sha256
    """Over its rows."""


class Options(_Frozen):
    """Everything besides the records that decides what comes out."""

    heldout: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """The share of conversations (or texts) that is held out."""
    split: Literal["conversation", "text"] = "conversation"
    """Conversation: all that was sent with one key lies in one part; a text without a key goes by itself."""
    tasks: list[str] | None = None
    """Only these."""
    labels: dict[str, TaskLabels] | None = None
    """By task; None: whatever label was given is taken."""
    earlier: list[EarlierSet] = []
    """Texts of these, and where conversations are split by their conversations, stay in their part, whatever `heldout`."""
    operators: list[str] = []
    """People (`by`) who may withdraw anybody's feedback; others only their own."""
    reply_task: str = "reply"
    """What feedback names as the task where it judges the words of a reply."""
    constants: dict[str, str] = {}
    """Slots that have one value in all replies of the dialogue agent."""
    reply_expiry_ms: Annotated[int, Field(gt=0)] | None = None
    """After so long without a turn the dialogue agent begins a conversation again; None: never."""
    inputs: dict[str, InputSettings] = Field(default_factory=dict)
    """By topic of requests: where its values hold the text, as in the settings of the process that answered them."""


class Plan(_Frozen):
    """Which records, and how they are read. Equal plans give equal bytes for as long as the broker has the records."""

    format_version: Literal[1] = 1
    options: Options
    ranges: list[FrozenRange]

    def of(self, role: Role) -> list[OffsetRange]:
        return [each.as_range() for each in self.ranges if each.role == role]


class DataFile(_Frozen):
    path: str
    rows: int
    bytes: int
    sha256: Sha256


class DataSet(Plan):
    """`dataset.json`: the plan, and what came of it."""

    counts: dict[str, int]
    """Feedback records by what became of them, how many results and wanted requests could not be unpacked, and spans that
    were trimmed."""
    files: list[DataFile]
    digest: Sha256
    """Over the files' names and digests."""


def digest_of(files: list[DataFile]) -> str:
    return sha256("".join(f"{file.path}\0{file.sha256}\n" for file in files).encode()).hexdigest()


def labels_of_model(manifest: ModelManifest) -> dict[str, TaskLabels]:
    """Return what corrections may name, as the feedback agent of that model checks it."""
    return {task.name: TaskLabels(labels=sorted(known_labels(task)), open=task.open) for task in manifest.tasks}


def load_data_set(path: Path) -> DataSet:
    """Read a `dataset.json`, or the one in a folder. SetupError when it is none."""
    file = path / DATASET_NAME if path.is_dir() else path
    try:
        return DataSet.model_validate_json(file.read_bytes())
    except OSError as error:
        raise SetupError(f"{file}: {(error.strerror or str(error)).lower()}") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "it"
        raise SetupError(f"{file}: not the manifest of a data set: {where}: {first['msg']}") from None
