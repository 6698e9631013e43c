"""What the report shows of spans: intervals of their figures, counts by label, labels that are confused. Pure."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

from .calibration_error import sample_calibration_error
from .findings import Details, Events
from .intervals import Sampled, sample_outcome, sample_shares
from .label_counts import count_label_sets
from .outcome import of_f1, of_ratio
from .span_scores import Located

Pairs = Sequence[tuple[Located, Located]]
"""By text the spans that there are, and those that were found."""


def detail_spans(pairs: Pairs, exactly: Pairs, events: Events | None) -> Details:
    """Return the details of spans by words; `exactly` are the same by characters."""
    figures = {"exact": sample_shares([truth == guess for truth, guess in pairs]), **_ratios(pairs)}
    if any(truth or guess for truth, guess in exactly):
        figures["f1_exact"] = _f1(exactly)
    if events is not None:
        figures["ece"] = sample_calibration_error(*events)
    return Details(
        figures=figures,
        labels=count_label_sets(pairs, label_of=lambda span: span[2]),
        confusions=Counter(_confused(pairs)),
        events=events,
    )


def _ratios(pairs: Pairs) -> Mapping[str, Sampled]:
    right = [(truth & guess).total() for truth, guess in pairs]
    found: dict[str, Sampled] = {}
    sides: dict[str, Callable[[Located, Located], Located]] = {
        "precision": lambda _, guess: guess,
        "recall": lambda t, _: t,
    }
    for name, side in sides.items():
        below = [side(truth, guess).total() for truth, guess in pairs]
        if any(below):
            found[name] = sample_outcome(of_ratio(right, below))
    return found | ({"f1": _f1(pairs)} if found else {})


def _f1(pairs: Pairs) -> Sampled:
    counts = [(truth & guess, guess - truth, truth - guess) for truth, guess in pairs]
    return sample_outcome(of_f1(*([each.total() for each in part] for part in zip(*counts, strict=True))))


def _confused(pairs: Pairs) -> Iterator[tuple[str, str]]:
    """Yield the label of each missed span and that of the span that was found on the same words instead."""
    for truth, guess in pairs:
        instead = {(first, last): label for first, last, label in guess - truth}
        for first, last, label in truth - guess:
            if (first, last) in instead:
                yield label, instead[first, last]
