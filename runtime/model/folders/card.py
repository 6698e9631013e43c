"""The card of a model folder: a README.md as model hubs read it, with the figures as `model-index`. Pure.

The front matter follows the metadata of model cards on the Hugging Face hub (version of 2024): `license`, `language`, `tags`,
`pipeline_tag`, `datasets`, and in `model-index` for each task and set its task, data set and metrics.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import yaml

from ....schemas.manifest import ModelManifest, TaskSpec
from ..kinds.forms import Reads
from ..kinds.registry import kind_of

MARK: Final = "# Written by `murmura models card`; what is changed by hand is lost when it is written again."
TEST: Final = "test"
HUB: Final = "hub:"
_NAMED_LABELS: Final = 60
_TYPES: Final = {
    "macro_f1": ("f1", "macro-F1"),
    "micro_f1": ("f1", "micro-F1"),
    "f1": ("f1", "F1 of spans"),
    "f1_exact": ("f1", "F1 of spans by characters"),
    "rouge_l": ("rouge", "ROUGE-L"),
    "bleu_cased": ("bleu", "BLEU with letter case"),
}
"""Figures by the name that hubs know them under, and what they are called."""
_NO_METRICS: Final = frozenset({"rows", "out_of_scope_rows", "spans"})
_OF_OTHERS: Final = ("probe_", "most_common_", "consensus_", "template_")
"""Figures of what the model is compared with begin so."""
Figures = Mapping[str, Any]


@dataclass(frozen=True)
class CardFacts:
    """What a card says beside the manifest."""

    license: str = ""
    """As the hub names it: `apache-2.0`. Nothing is assumed."""
    languages: Sequence[str] = ()
    datasets: Sequence[str] = ()
    """Names on the hub."""
    description: str = ""
    attribution: str = ""
    """Markdown."""


def write_card(manifest: ModelManifest, facts: CardFacts) -> str:
    """Return the card."""
    front = yaml.safe_dump(front_matter(manifest, facts), sort_keys=False, allow_unicode=True, width=1000)
    return f"---\n{MARK}\n{front}---\n\n" + "\n".join(_body(manifest, facts)).rstrip() + "\n"


def front_matter(manifest: ModelManifest, facts: CardFacts) -> dict[str, Any]:
    """Return the metadata; keys of which nothing is known are left out."""
    kinds = dict.fromkeys(spec.kind.replace("_", "-") for spec in manifest.tasks)
    encoder, results = manifest.encoder.source, [*_results(manifest)]
    found: dict[str, Any] = {
        "license": facts.license,
        "language": [*facts.languages],
        "library_name": "murmura",
        "pipeline_tag": pipeline_tag(manifest.tasks[0]),
        "tags": ["murmura", "onnx", "multitask", *kinds] if len(manifest.tasks) > 1 else ["murmura", "onnx", *kinds],
        "datasets": [*facts.datasets],
        "base_model": encoder.removeprefix(HUB) if encoder.startswith(HUB) else "",
        "model-index": [{"name": manifest.name, "results": results}] if results else [],
    }
    return {key: value for key, value in found.items() if value}


def pipeline_tag(spec: TaskSpec) -> str:
    """Return what hubs call a task of this kind."""
    kind = kind_of(spec)
    if kind.generates:
        return "text-generation"
    return "token-classification" if kind.reads is Reads.TOKENS else "text-classification"


def find_datasets(recipe: Any) -> list[str]:
    """Return the data sets of the hub that a recipe names, wherever in its tasks."""
    found: dict[str, None] = {}
    waiting = [recipe.get("tasks") if isinstance(recipe, dict) else None]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str) and value.startswith(HUB):
            found[value.removeprefix(HUB)] = None
        waiting += value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
    return sorted(found)


def sets_of(manifest: ModelManifest, task: str) -> Iterator[tuple[str, Figures]]:
    """Yield the measured sets of a task with their figures, the test part first."""
    metrics = manifest.metrics.get(task, {})
    own = {name: value for name, value in metrics.items() if name != "reports"}
    if own:
        yield TEST, own
    yield from metrics.get("reports", {}).items()


def _results(manifest: ModelManifest) -> Iterator[dict[str, Any]]:
    for spec in manifest.tasks:
        for name, figures in sets_of(manifest, spec.name):
            metrics = [_metric(figure, value) for figure, value in _numbers(figures) if _is_metric(figure)]
            if metrics:
                yield {
                    "task": {"type": pipeline_tag(spec), "name": spec.name},
                    "dataset": {
                        "type": f"{spec.name}-{name}".replace(" ", "-"),
                        "name": f"{spec.name}: {name}",
                        "split": TEST,
                    },
                    "metrics": metrics,
                }


def _is_metric(figure: str) -> bool:
    return figure not in _NO_METRICS and not figure.startswith(_OF_OTHERS)


def _metric(figure: str, value: float) -> dict[str, Any]:
    kind, said = _TYPES.get(figure, (figure, figure.replace("_", " ")))
    return {"type": kind, "value": value, "name": said}


def _numbers(figures: Figures) -> Iterator[tuple[str, float]]:
    return ((name, value) for name, value in figures.items() if isinstance(value, int | float))


def _body(manifest: ModelManifest, facts: CardFacts) -> Iterator[str]:
    yield from (f"# {manifest.name}", "")
    if facts.description:
        yield from (facts.description.strip(), "")
    encoder = manifest.encoder
    yield from (
        f"A model with {len(manifest.tasks)} task{'s' if len(manifest.tasks) > 1 else ''} on one encoder "
        f"({encoder.source.removeprefix(HUB)}, {encoder.layers} layers of {encoder.hidden_size}), as ONNX graphs.",
        "",
        *("## Tasks", "", "| task | kind | labels |", "| --- | --- | --- |"),
        *(f"| {spec.name} | {spec.kind} | {_labels(spec)} |" for spec in manifest.tasks),
        "",
    )
    yield from _figures(manifest)
    yield from (
        *("## Use", "", "In the folder of this repository:", ""),
        *(
            "```sh",
            "pip install 'murmura[cpu]'",
            'murmura predict --model . "a text"',
            "murmura serve --model .",
            "```",
            "",
        ),
        *("## Limits", "", *(f"- {line}" for line in _limits(manifest)), ""),
    )
    if facts.attribution:
        yield from ("## Attribution", "", _without_heading(facts.attribution))


def _without_heading(markdown: str) -> str:
    first, _, rest = markdown.strip().partition("\n")
    return rest.strip() if first.startswith("# ") else markdown.strip()


def _labels(spec: TaskSpec) -> str:
    kind = kind_of(spec)
    if kind.generates:
        return "replies"
    labels = sorted(kind.known_labels(spec))
    shown = ", ".join(label.replace("|", "\\|") for label in labels[:_NAMED_LABELS])
    return f"{len(labels)}: {shown}{', ...' if len(labels) > _NAMED_LABELS else ''}"


def _figures(manifest: ModelManifest) -> Iterator[str]:
    lines = [*_rows_of_figures(manifest)]
    if lines:
        yield from (
            *(
                "## Figures",
                "",
                "Measured on the exported model through the code that serves it, thresholds applied.",
                "",
            ),
            *("| task | set | figure | value | 95 % interval |", "| --- | --- | --- | --- | --- |"),
            *(*lines, ""),
        )


def _rows_of_figures(manifest: ModelManifest) -> Iterator[str]:
    for spec in manifest.tasks:
        for name, figures in sets_of(manifest, spec.name):
            intervals = figures.get("intervals", {})
            for figure, value in _numbers(figures):
                low, high = intervals.get(figure, (None, None))
                interval = f"{low:g} to {high:g}" if low is not None else ""
                yield f"| {spec.name} | {name} | {figure} | {value:g} | {interval} |"


def _limits(manifest: ModelManifest) -> Iterator[str]:
    yield f"Texts are read up to {manifest.limits.max_tokens} tokens; longer ones are cut and marked `truncated`."
    for spec in manifest.tasks:
        report = manifest.data.get(spec.name, {}).get("parts", {})
        if rows := report.get("train", {}).get("rows"):
            yield f"`{spec.name}` was learned from {rows:,} rows: what they do not show, it does not know."
        if spec.generation is not None and spec.thresholds.accept is not None:
            yield f"`{spec.name}` words replies; those with a score below {spec.thresholds.accept:g} are not to be sent."
        elif spec.out_of_scope is not None or spec.thresholds.accept is not None:
            yield f"`{spec.name}` withholds answers that it is not sure of: `abstained` is true then."
    yield "Intervals cover the choice of the test rows, not the seed of training nor texts of another kind."
