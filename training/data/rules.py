"""What a recipe says about the rows of one source."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from ...runtime.errors import SetupError
from ...runtime.model.texts.words import trim_blanks
from ...schemas.manifest import GenerationSpec
from ..recipe.keys.reading import Columns, Reading, Source
from ..recipe.keys.tasks import Task


@dataclass
class Findings:
    """What is known of a source after its last row only."""

    labels: set[str] = field(default_factory=set)
    """All labels that were read, under their names before `merge`."""
    marks_ends: bool = False
    """Whether tags mark the ends of spans, as BILOU does."""
    unmarked: SetupError | None = None
    """The first row whose tags are a mistake where tags mark the ends of spans."""


@dataclass(frozen=True)
class Rules:
    """`reading`: the source's own keys over its task's. `label`: given to every row of the source.

    `named`: all labels that the task names anywhere, and so means: `none`, say. None where every label is meant.
    """

    reading: Reading
    columns: Columns
    label: str | None
    named: frozenset[str] | None
    several: bool = False
    """Whether labels do not exclude each other."""
    generation: GenerationSpec | None = None
    """How acts and turns become the two texts that a task of replies reads."""
    findings: Findings = field(default_factory=Findings, compare=False)


def make_rules(source: Source, task: Task, named: frozenset[str] | None, *, several: bool = False) -> Rules:
    """Return the rules of a source; `named` are those of `find_named_labels`."""
    own = source.model_dump(include=set(Reading.model_fields), exclude_none=True)
    base = task.model_dump(include=set(Reading.model_fields), exclude_none=True)
    reading = Reading.model_validate({**base, **own})
    return Rules(reading, reading.columns or Columns(), source.label, named, several, task.generation())


def sources_of(task: Task) -> Iterator[Source]:
    """Yield the sources of all parts."""
    for _, sources in task.parts():
        yield from sources


def find_named_labels(task: Task, sources: Iterable[Source]) -> frozenset[str]:
    """Return every text that a task or one of its sources names as a label or as a value."""
    names = set(task.labels or ())
    if task.out_of_scope:
        names.add(task.out_of_scope.label)
    for each in [task, *sources, *sources_of(task)]:
        names.update(_named_in(each))
    # Tagging tasks name tags.
    return frozenset(names | {name[2:] for name in names if name[:2] in {"B-", "I-"}})


def _named_in(reading: Reading) -> Iterator[str]:
    if isinstance(reading, Source) and reading.label is not None:
        yield reading.label
    yield from reading.one_of or ()
    for new, olds in (reading.merge or {}).items():
        yield from (new, *olds)
    for values in (*(reading.where or {}).values(), *(reading.unless or {}).values()):
        yield from (trim_blanks(str(value)) for value in values)
