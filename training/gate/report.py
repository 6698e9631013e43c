"""The gate's report as Markdown."""

from collections.abc import Iterator, Mapping, Sequence
from statistics import stdev
from typing import Final

from .statistics import RESAMPLES, SIGN_FLIPS, Difference
from .verdict import FAMILY_ERROR, ChangedAnswers, Comparison, GateResult, SeedFigures

NOTHING: Final = "–"


def to_markdown(result: GateResult, about: Mapping[str, str]) -> str:
    """Return the whole report: the decision, every set that must not become worse, and the targets."""
    lines = [f"# Gate: {'passed' if result.passed else 'refused'}", ""]
    lines += [f"- {name}: {value}" for name, value in about.items()]
    if result.reason:
        lines.append(f"- refused because {result.reason}")
    lines += [f"- {note}" for note in result.notes]
    lines += ["", *sets_section([each for each in result.comparisons if not each.target])]
    if result.changed:
        lines += ["", *_changed_section(result.changed)]
    lines += ["", *_seeds_section(result.seeds)]
    if drawn := [each for each in result.targets if each.drawn]:
        lines += ["", *_drawn_section(drawn)]
    if gained := [each for each in result.targets if each.unit]:
        lines += ["", *_gains_section(gained)]
    if corrected := [each for each in result.targets if not each.drawn and not each.unit]:
        lines += ["", *_targets_section(corrected)]
    return "\n".join(lines) + "\n"


def sets_section(sets: Sequence[Comparison]) -> Iterator[str]:
    """Yield the explanation and the table of the sets that must not become worse."""
    yield "## Nothing may become worse"
    yield ""
    yield "Points of a hundred; accuracy, for several labels and for spans F1, for replies BLEU. `slots named` and `slots not invented`: 100 less the"
    yield "slots that replies lack or add, for each slot of the rows. `sendable`: replies that have ended, with the slots of the row and no others, and a score that is sent."
    yield "`distinct`: different replies. `served`: answered and right, or rightly withheld as out of"
    yield "scope. `held answers`: agreement with the current version where that is sure of its answer (0.7); what is lost between labels"
    yield "that it hardly tells apart is seen only under `Changed answers by score`."
    yield ""
    yield f"- Interval: 95 % of {RESAMPLES:,} paired resamples of the conversations (else texts: equal ones count in one). It covers the choice"
    yield "  of rows, not the seed of training: the same data trained with another seed gives other answers, too."
    yield f"- p: of the loss, one-sided, corrected by Holm for all {len(sets)} sets together; at most {FAMILY_ERROR:g} is worse when more than allowed is lost."
    yield "  McNemar's exact test for accuracy where no conversation changes by more than one row, else the answers of the two versions"
    yield f"  exchanged by conversation {SIGN_FLIPS:,} times."
    yield "- Detectable: the smallest loss that would have been found here with a probability of 80 %. `held` says nothing of smaller ones."
    yield "- Judged: how many versions this set has judged, this one included. Refused ones are counted by a retraining alone, where their work folders lie beside its own. The more, the less it says."
    yield ""
    yield "| task | set | rows | differ | current | candidate | difference | interval | allowed | p | detectable | judged | |"
    yield "| --- | --- | ---: | ---: | ---: | ---: | ---: | --- | ---: | ---: | ---: | ---: | --- |"
    for c in sets:
        d = c.found
        detectable = NOTHING if c.detectable is None else f"-{100 * c.detectable:.1f}"
        yield (
            f"| {c.task} | {c.set} | {_found_cells(d)} | -{100 * c.allowance:g} "
            f"| {_probability(c.p)} | {detectable} | {c.versions} | {c.verdict.value} |"
        )


def _changed_section(changed: Sequence[ChangedAnswers]) -> Iterator[str]:
    yield "## Changed answers by score"
    yield ""
    yield "On the texts of `held answers`, here of every score: how many are answered otherwise than by the current version, withheld or not, and how"
    yield "many are withheld now and were not, or the reverse. Score: the probability of the current version's least sure decision in the text. Nobody"
    yield "says which answer is right, so this has no vote. Unsure answers change sides in any training; many changes above 0.5 are damage."
    yield ""
    yield "| task | score | texts | answered otherwise | withheld otherwise |"
    yield "| --- | --- | ---: | ---: | ---: |"
    for each in changed:
        cells = (f"{count} ({100 * count / each.texts:.0f} %)" for count in (each.changed, each.withheld))
        yield f"| {each.task} | {each.low:g} to {each.high:g} | {each.texts} | {' | '.join(cells)} |"


def _seeds_section(seeds: Sequence[SeedFigures]) -> Iterator[str]:
    yield "## Spread over seeds"
    yield ""
    if not seeds:
        yield "Not measured: the candidate was trained with one seed (`gate.seeds`)."
        return
    yield "The metric of candidates that differ in the seed of their training alone, the judged one first, and its standard deviation. A difference"
    yield "between versions that is not greater than this says little."
    yield ""
    yield "| task | set | metric by seed | deviation |"
    yield "| --- | --- | --- | ---: |"
    for each in seeds:
        figures = ", ".join(f"{100 * metric:.2f}" for metric in each.metrics)
        yield f"| {each.task} | {each.set} | {figures} | {100 * stdev(each.metrics):.2f} |"


def _drawn_section(targets: Sequence[Comparison]) -> Iterator[str]:
    yield "## Texts drawn at random"
    yield ""
    yield "Held-out feedback on predictions that were drawn at random, whatever the answer: the share that is right. p: of the gain, one-sided,"
    yield "at most 0.025 is proof. As many are drawn in a quiet minute as in a busy one, so texts of quiet hours weigh more than they do on traffic."
    yield "During an experiment one text of each unit (a customer, say) is drawn, so those of units with many requests weigh less."
    yield from _gain_rows(targets)


def _gain_rows(targets: Sequence[Comparison]) -> Iterator[str]:
    yield ""
    yield "| task | rows | differ | current | candidate | difference | interval | p | |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: | --- | ---: | --- |"
    for c in targets:
        yield f"| {c.task} | {_found_cells(c.found)} | {_probability(c.p)} | {c.verdict.value} |"


def _gains_section(targets: Sequence[Comparison]) -> Iterator[str]:
    yield "## Replies that people worded otherwise"
    yield ""
    yield "Held-out replies of people that the current version words otherwise: how near both versions come to them, by BLEU of all rows. p: of"
    yield "the gain, one-sided, at most 0.025 is proof."
    yield from _gain_rows(targets)


def _targets_section(targets: Sequence[Comparison]) -> Iterator[str]:
    yield "## Corrected rows now right"
    yield ""
    yield "Held-out feedback that the current version got wrong. This is no accuracy: the rows were chosen for being wrong, and any other"
    yield "model is right on some of them. `Without feedback`: the same share of wrong rows that nobody corrected, or (`placebo`) of these"
    yield "rows by a model that was trained in the same way without the corrections. New labels need no such comparison, because the"
    yield "current version cannot name them."
    yield ""
    yield "| task | set | rows | now right | p | without feedback | needed | |"
    yield "| --- | --- | ---: | ---: | ---: | ---: | ---: | --- |"
    for c in targets:
        d, lift = c.found, c.lift
        right = f"{round(d.candidate * d.rows)} ({100 * d.candidate:.0f} %)"
        other = f"{lift.flipped} of {lift.rows} ({100 * lift.rate:.0f} %)" if lift else NOTHING
        other += ", placebo" if lift and lift.placebo else ""
        needed = f"{100 * (lift.rate + lift.above):.0f} %" if lift else NOTHING
        yield f"| {c.task} | {c.set} | {d.rows} | {right} | {_probability(c.p)} | {other} | {needed} | {c.verdict.value} |"


def _found_cells(found: Difference) -> str:
    """Return rows, rows that differ, both metrics, their difference and its interval as cells."""
    rows = str(found.rows) if found.conversations == found.rows else f"{found.rows} in {found.conversations}"
    return (
        f"{rows} | {found.discordant} | {100 * found.current:.2f} | {100 * found.candidate:.2f} "
        f"| {100 * found.difference:+.2f} | {100 * found.low:+.2f} to {100 * found.high:+.2f}"
    )


def _probability(p: float | None) -> str:
    if p is None:
        return NOTHING
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
