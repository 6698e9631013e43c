"""At the end: what the model cost, the recipe, and the versions and data that it was made with."""

from collections.abc import Iterator

from ...run_folders.curves import SECONDS
from ..page_data import PageData
from ..section import Section, render


def make_cost(page: PageData) -> Section | None:
    return Section("cost", "Cost", render("facts.html", facts=[*_cost(page)]))


def make_recipe(page: PageData) -> Section | None:
    if not page.recipe:
        return None
    return Section("recipe", "Recipe", render("recipe.html", recipe=page.recipe))


def make_versions(page: PageData) -> Section | None:
    files = page.record.data_files if page.record is not None else {}
    return Section("versions", "Versions", render("versions.html", facts=[*_versions(page)], files=files))


def _cost(page: PageData) -> Iterator[tuple[str, str]]:
    if (record := page.record) is not None:
        yield "training, CPU time", _duration(record.cpu_seconds)
        if seconds := max((entry.get(SECONDS, 0.0) for entry in page.curves), default=0.0):
            yield "training, wall time", _duration(seconds)
        yield "steps", f"{record.steps:,}"
    speed = [entry["speed/tokens_per_second"] for entry in page.curves if "speed/tokens_per_second" in entry]
    if speed:
        yield "tokens per second of training", f"{sum(speed) / len(speed):,.0f}"
    if memory := max((entry.get("memory/gigabytes", 0.0) for entry in page.curves), default=0.0):
        yield "memory of training, peak", f"{memory:.2f} GB"
    if page.parameters is not None:
        yield "parameters", f"{page.parameters:,}"
    if page.trained is not None and page.trained != page.parameters:
        yield "parameters that training changed", f"{page.trained:,}"
    for entry in page.manifest.files:
        if entry.role not in {"report", "recipe", "attribution"}:
            yield entry.path, f"{entry.bytes / 1e6:,.2f} MB"


def _versions(page: PageData) -> Iterator[tuple[str, str]]:
    encoder = page.manifest.encoder
    yield "model", f"{page.manifest.name} {page.manifest.version}"
    yield "encoder", f"{encoder.source}, {encoder.layers} layers of {encoder.hidden_size}, SHA-256 {encoder.sha256}"
    if page.manifest.recipe:
        yield "recipe", f"SHA-256 {page.manifest.recipe}"
    if (record := page.record) is None:
        return
    yield "seed", str(record.seed)
    for task, teacher in record.teachers.items():
        yield f"teacher of {task}", f"{teacher.folder}, SHA-256 {teacher.sha256}"
    if (made := record.environment) is not None:
        processes = f", {made.processes} processes" if made.processes > 1 else ""
        threads = f"{made.threads} thread{'' if made.threads == 1 else 's'}"
        yield "device", f"{made.device}, {made.precision}, {threads}{processes}"
        yield "Python", made.python
        yield from made.libraries.items()


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
