"""The trainings of `generation.py`: recipes for tasks alone and together, each in a folder of its own that goes on after an interruption."""

from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml
from reply_rows import SCORED, TASKS, dialogue_of, write_rows

from murmura.runtime.model.model import Model
from murmura.schemas.manifest import MANIFEST_NAME
from murmura.training.data.example import Example
from murmura.training.evaluate.evaluate import answers, sets_of
from murmura.training.export.export import export
from murmura.training.fit.loop import fit
from murmura.training.kinds.figures.outcome import Outcome
from murmura.training.kinds.registry import kind_of
from murmura.training.prepare.reading import read_part
from murmura.training.recipe.recipe import load_recipe

RECIPES: Final = Path(__file__).resolve().parents[1] / "recipes"
JOINT: Final = "joint"
OTHERS: Final = ("intent", "slots")
ALONE: Final = {"intent": "joint.yaml", "slots": "joint.yaml", **dict.fromkeys(TASKS, "generation.yaml")}
"""The recipe of each task where it is trained alone: the one that it is shipped with."""
REPLIES: Final = "train.jsonl"


class Trained(NamedTuple):
    """A model folder, its recipe, and the CPU-seconds of its training."""

    folder: Path
    recipe: Path
    cpu_seconds: float


class Scored(NamedTuple):
    """What a model scores on the rows of one set; rows of one conversation are drawn together."""

    outcome: Outcome
    conversations: Sequence[Hashable] | None


def make_recipe(what: str, most: int | None = None) -> dict[str, Any]:
    """Return the keys of the recipe of one task alone or of JOINT; `most`: at most so many rows of each file.

    Replies are learned from REPLIES beside the recipe.
    """
    recipe = yaml.safe_load((RECIPES / ALONE.get(what, "joint_replies.yaml")).read_text())
    if what in OTHERS:
        recipe["tasks"] = {what: recipe["tasks"][what]}
    for keys in recipe["tasks"].values():
        if keys["kind"] == "generation":
            keys.update(TASKS.get(what, TASKS["acts"]).model_dump(include={"context", "acts", "layers"}))
            keys["train"] = {"path": f"./{REPLIES}", "format": "jsonl"}
            keys.pop("test", None)
        if most is not None:
            keys.update({part: _cap(keys[part], most) for part in ("train", "validation", "test") if part in keys})
            keys.pop("epochs", None)  # few rows are read until they make enough steps
            if keys["kind"] != "generation":
                keys.update(
                    dict.fromkeys(("validation", "test"), keys["train"])
                )  # others have labels that few rows lack
                keys.pop("out_of_scope", None)
    return {**recipe, "threads": 1, "trackers": [], "allow_unknown": most is not None}


def _cap(source: str | dict[str, Any], most: int) -> dict[str, Any]:
    return {**({"path": source} if isinstance(source, str) else source), "rows": most}


def train(
    what: str, replies: Sequence[Example], data: Path, out: Path, *, seed: int = 0, most: int | None = None
) -> Trained:
    """Train one task alone, or JOINT, in the folder `out`, and export it, as far as an earlier call has not."""
    out.mkdir(parents=True, exist_ok=True)
    recipe = out / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(make_recipe(what, most)))
    if what not in OTHERS:
        write_rows(replies, out / REPLIES)
    print(f"  {out.name}: training", flush=True)
    record = fit(
        recipe, data, out / "run", seed=seed, quiet=True, resume=True, print_line=lambda line: print(f"    {line}")
    )
    if not (out / "model" / MANIFEST_NAME).is_file():
        export(out / "run", out / "model")
    print(f"  {out.name}: {record.steps} steps in {record.cpu_seconds:.0f} CPU-s", flush=True)
    return Trained(out / "model", recipe, record.cpu_seconds)


def score(trained: Trained, data: Path, parts: dict[str, list[Example]]) -> dict[str, Scored]:
    """Return what a model scores by set: intents in scope, slots, and replies to `seen` and `test` as far as it has the tasks."""
    model, recipe, found = Model.open(trained.folder, device="cpu"), load_recipe(trained.recipe), {}
    for spec in model.manifest.tasks:
        task = recipe.tasks[spec.name]
        sets = {name: read_part(sources, task, data, seed=recipe.data_seed) for name, sources in sets_of(task).items()}
        if spec.generation is not None:
            sets = {part: parts[part] for part in SCORED}
        scope = task.out_of_scope.label if task.out_of_scope else None
        for name, rows in sets.items():
            answered = list(answers(model, spec, [row for row in rows if scope not in row.labels]))
            replies = spec.generation is not None
            found[f"replies, {name}" if replies else spec.name] = Scored(
                kind_of(spec).outcome(answered, spec, scope),
                [dialogue_of(each.example) for each in answered] if replies else None,
            )
    return found
