"""What was read for each task, counted: on the terminal before training, and in `run.json`, the manifest and the report."""

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from pydantic import BaseModel, ConfigDict

from ..kinds.registry import KINDS

TRAIN: Final = "train"
VALIDATION: Final = "validation"
CALIBRATION: Final = "calibration"
TEST: Final = "test"
THRESHOLDS: Final = "thresholds"
PROBE: Final = "frozen encoder + logistic regression"
NAMED_LABELS: Final = 6
"""A line names so many labels at most; of more it gives the rarest and the most frequent."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class TokenReport(_Frozen):
    """What the encoder's tokenizer makes of the texts of a part."""

    empty: int
    """Texts without a token: zero-width characters, say."""
    cut: int
    """Texts longer than `max_tokens`."""
    unknown: float | None
    """Share of the tokens that the vocabulary does not know; None where the tokenizer cannot tell."""
    mostly_unknown: float | None
    """Share of the texts of which more than a third is unknown."""


class Overlap(_Frozen):
    """Rows whose text stands in another part, too."""

    exact: int
    near: int
    """Apart from case, blanks and letter forms (NFKC); those of `exact` are not counted again."""


class PartReport(_Frozen):
    """The rows of one part. Repeats and typo copies are not counted."""

    rows: int
    left_out: dict[str, int] = {}
    """Rows and spans that are left out, by reason; those of the training part too that are held back afterwards."""
    trimmed: int = 0
    """Spans that are kept without the blanks at their ends."""
    labels: dict[str, int]
    """How many rows have each label; for tagging how many spans have each type."""
    duplicates: int
    """Rows whose text stands in the part before, apart from case, blanks and letter forms."""
    tokens: TokenReport | None = None
    """None where no encoder could be opened."""


class ProbeScore(_Frozen):
    """The scores on a set, of which `rows` were scored: of a classification the forced choice on its rows in scope, of several
    labels both F1 at one threshold, of tags the F1 of whole spans.
    """

    rows: int
    accuracy: float | None = None
    micro_f1: float | None = None
    macro_f1: float | None = None
    f1: float | None = None
    sha256: str
    """Of the set's texts and labels: the score belongs to no other rows."""

    @property
    def main(self) -> tuple[str, float]:
        """The name of the figure that the task is judged by, as the model's scores call it, and its value."""
        names = ("accuracy", "micro_f1", "f1")
        return next((name, value) for name in names if (value := getattr(self, name)) is not None)


class ProbeReport(_Frozen):
    """Logistic regression on the frozen encoder and the same training rows."""

    rows: int = 0
    """Training rows that it was fitted on."""
    scores: dict[str, ProbeScore] = {}
    """By set: `test` and the names of further reports."""
    begins: bool = False
    """The rows are few: the task's head began from it, and the names of its labels were training rows, too."""
    reason: str = ""
    """Why there is none."""


class Confusion(_Frozen):
    """Rows of a label that got another one."""

    label: str
    answered: str
    rows: int


class CrossValidation(_Frozen):
    """How the rows are answered by heads that have not learned them, of five folds."""

    rows: int
    accuracy: float
    """Of the best label in scope."""
    interval: tuple[float, float]
    """Of 95 %. It covers the choice of rows."""
    withheld: float = 0.0
    """The share that is taken to be out of scope."""
    confusions: list[Confusion] = []
    """The most frequent ones."""


class TaskReport(_Frozen):
    """One task's data. Parts are `train`, `validation`, `calibration`, `test`, `thresholds` and the names of further reports."""

    kind: str
    parts: dict[str, PartReport]
    overlap: dict[str, dict[str, Overlap]] = {}
    """By part, and the earlier part in which its texts stand, too."""
    notes: list[str] = []
    """What may be a mistake."""
    probe: ProbeReport | None = None
    """None before training, and in records of earlier versions."""
    learned_validation: int = 0
    """Held-back rows that the head learned at the end, or the head of a model before that goes on."""
    cross_validated: CrossValidation | None = None
    """Of a head of few rows that was fitted at the end."""


def describe(reports: Mapping[str, TaskReport], max_tokens: int) -> list[str]:
    """Return one line for each task, and one for each note."""
    lines = []
    for name, report in reports.items():
        lines.append(describe_task(name, report, max_tokens))
        lines += [f"{name}: note: {note}" for note in report.notes]
    return lines


def describe_skipped(names: Iterable[str]) -> list[str]:
    """Return one line for each task that the recipe leaves out."""
    return [f"{name}: left out, by its `skip`" for name in names]


def describe_task(name: str, report: TaskReport, max_tokens: int) -> str:
    """Return all counts of a task in one line; counts of nothing are left out."""
    train = report.parts[TRAIN]
    facts = [
        _by_part(report, "rows", lambda part: part.rows),
        _left_out(report),
        _trimmed(report),
        _labels(train, _counted(report)),
        _by_part(report, "duplicate texts", lambda part: part.duplicates),
        _by_part(report, "empty texts", lambda part: part.tokens.empty if part.tokens else 0),
        _by_part(report, f"texts cut at {max_tokens} tokens", lambda part: part.tokens.cut if part.tokens else 0),
        _by_part(report, "unknown tokens", lambda part: (part.tokens and part.tokens.unknown) or 0.0, share=True),
        *(_overlap(part, others) for part, others in report.overlap.items()),
    ]
    return f"{name}: {'; '.join(fact for fact in facts if fact)}"


def describe_probes(reports: Mapping[str, TaskReport]) -> list[str]:
    """Return one line for each task that has a probe."""
    probes = {name: report.probe for name, report in reports.items() if report.probe is not None}
    return [f"{name}: {describe_probe(probe)}" for name, probe in probes.items() if not probe.reason]


def _describe_score(score: ProbeScore) -> str:
    name, value = score.main
    return f"{value:.1%}" if name == "accuracy" else f"{name} {value:.4f}"


def describe_probe(probe: ProbeReport) -> str:
    """Return the scores of a probe, or why there is none, in one line."""
    if probe.reason:
        return f"{PROBE}: none, {probe.reason}"
    scores = ", ".join(f"{name} {_describe_score(score)}" for name, score in probe.scores.items())
    begins = "; few rows: the head begins from it, and the labels' names are learned" if probe.begins else ""
    return f"{PROBE} on {probe.rows:,} training rows: {scores or 'no set to score'}{begins}"


def data_table(report: TaskReport) -> list[str]:
    """Return the counts of a task as Markdown."""
    lines = ["| part | rows | left out | duplicates | empty | cut | unknown tokens |", "| --- |" + " --- |" * 6]
    for name, part in report.parts.items():
        tokens = part.tokens
        known = (
            [tokens.empty, tokens.cut, "-" if tokens.unknown is None else f"{tokens.unknown:.2%}"]
            if tokens
            else ["-"] * 3
        )
        cells = [name, part.rows, sum(part.left_out.values()), part.duplicates, *known]
        lines.append(f"| {' | '.join(f'{cell:,}' if isinstance(cell, int) else cell for cell in cells)} |")
    counts = ", ".join(f"{label} {count:,}" for label, count in report.parts[TRAIN].labels.items())
    lines += ["", f"{_counted(report).capitalize()} in training: {counts}.", ""] if counts else [""]
    facts = describe_facts(report)
    facts += [describe_probe(report.probe)] if report.probe is not None else []
    notes = [*facts, *(f"note: {note}" for note in report.notes)]
    return lines + [f"- {note}" for note in notes]


def describe_facts(report: TaskReport) -> list[str]:
    """Return what was left out, trimmed and found in two parts, a line each; counts of nothing are left out."""
    facts = [_left_out(report), _trimmed(report), *(_overlap(part, others) for part, others in report.overlap.items())]
    if report.cross_validated is not None:
        facts += describe_cross_validation(report.cross_validated)
    return [fact for fact in facts if fact]


def describe_cross_validation(found: CrossValidation) -> list[str]:
    """Return the score out of fold, and what is confused most."""
    low, high = found.interval
    withheld = f"; {found.withheld:.1%} taken to be out of scope" if found.withheld else ""
    lines = [f"cross-validated on {found.rows:,} rows: {found.accuracy:.1%} right [{low:.1%}, {high:.1%}]{withheld}"]
    pairs = ", ".join(f"{each.label} as {each.answered} ({each.rows})" for each in found.confusions)
    return [*lines, f"most confused: {pairs}"] if pairs else lines


def _by_part(report: TaskReport, what: str, count: Callable[[PartReport], float], *, share: bool = False) -> str:
    found = {name: count(part) for name, part in report.parts.items()}
    shown = [f"{name} {f'{value:.1%}' if share else f'{value:,}'}" for name, value in found.items() if value]
    return f"{what}: {', '.join(shown)}" if shown else ""


def _left_out(report: TaskReport) -> str:
    reasons: dict[str, int] = {}
    for part in report.parts.values():
        for reason, count in part.left_out.items():
            reasons[reason] = reasons.get(reason, 0) + count
    return f"left out: {', '.join(f'{count:,} {reason}' for reason, count in reasons.items())}" if reasons else ""


def _trimmed(report: TaskReport) -> str:
    return _by_part(report, "spans without the blanks at their ends", lambda part: part.trimmed)


def _counted(report: TaskReport) -> str:
    """Return what has the labels. A manifest may name a kind that is not installed."""
    kind = KINDS.find(report.kind)
    return kind.counted if kind is not None else "labels"


def _labels(part: PartReport, counted: str) -> str:
    counts = part.labels
    if not counts:
        return ""
    what, unit = f"{len(counts)} labels", "row"
    if counted != "labels":
        what = f"{sum(counts.values()):,} {counted} of {len(counts)} type{'' if len(counts) == 1 else 's'}"
        unit = counted.removesuffix("s")
    if len(counts) <= NAMED_LABELS:
        return f"{what}: {', '.join(f'{label} {count:,}' for label, count in counts.items())}"
    least, most = min(counts, key=counts.__getitem__), max(counts, key=counts.__getitem__)
    return f"{what} of {counts[least]:,} ({least}) to {counts[most]:,} ({most}) {unit}s"


def _overlap(part: str, others: Mapping[str, Overlap]) -> str:
    shown = [
        f"{found.exact + found.near:,} also in {other} ({found.exact:,} exactly)"
        for other, found in others.items()
        if found.exact or found.near
    ]
    return f"of {part} {', '.join(shown)}" if shown else ""
