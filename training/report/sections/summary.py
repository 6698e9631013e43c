"""At the top: the main figure of each task, and what the model cost."""

from typing import Final, NamedTuple

from ...kinds.answers import Score
from ...kinds.figures.intervals import Interval
from ..figures import rounded, shown
from ..page_data import PageData
from ..section import Section, render, share

MAIN: Final = ("accuracy", "micro_f1", "f1", "bleu")
BESIDE: Final = ("served", "out_of_scope_recall", "macro_f1", "exact", "f1_exact", "rouge_l")
WORDS: Final = {
    "accuracy": "right",
    "micro_f1": "micro-F1",
    "f1": "span F1",
    "bleu": "BLEU",
    "served": "served right",
    "out_of_scope_recall": "out of scope caught",
    "macro_f1": "macro-F1",
    "exact": "all of a text right",
    "f1_exact": "F1 by characters",
    "rouge_l": "ROUGE-L",
}
_SHARES: Final = frozenset(WORDS) - {"bleu", "rouge_l"}


class Card(NamedTuple):
    """A task at a glance."""

    task: str
    set: str
    rows: str
    value: str
    words: str
    interval: str
    probe: str
    beside: list[tuple[str, str]]


def make_summary(page: PageData) -> Section | None:
    cards = [_make_card(task, *next(iter(by_set.items()))) for task, by_set in page.scores.items() if by_set]
    if not cards:
        return None
    return Section("summary", "At a glance", render("summary.html", cards=cards))


def _make_card(task: str, name: str, score: Score) -> Card:
    figures = score.figures
    main = next((each for each in (*MAIN, *figures) if figures.get(each) is not None and each != "rows"), "rows")
    probe, value = figures.get(f"probe_{main}"), figures[main]
    compared = ""
    if probe is not None and value is not None:
        points = f"{100 * (value - probe):+.1f}".replace("-", "−")
        compared = f"frozen probe {share(probe)}: {points} points"
    beside = [(WORDS[each], _say(each, figures[each])) for each in BESIDE if each != main and each in figures]
    rows = shown(rounded({"rows": figures.get("rows")})["rows"])
    interval = say_interval(main, score.interval(main))
    return Card(task, name, rows, _say(main, value), WORDS.get(main, main), interval, compared, beside)


def _say(figure: str, value: float | None) -> str:
    return share(value) if figure in _SHARES and value is not None else shown(rounded({"": value})[""])


def say_interval(figure: str, interval: Interval | None) -> str:
    """Return an interval in words; empty where there is none."""
    if interval is None:
        return ""
    if figure in _SHARES:
        return f"{100 * interval.low:.1f} to {100 * interval.high:.1f} %"
    return f"{interval.low:.4g} to {interval.high:.4g}"
