"""A joint model distilled to half its layers, or half their width: its mean score as a share of the teacher's, and how many times as fast it is.

python benchmarks/smaller.py                                  # recipes/joint.yaml, MiniLM-L6, all rows, three seeds (hours on one core)
python benchmarks/smaller.py --part 0.1 --seeds 0             # a tenth of the rows: ten minutes
python benchmarks/smaller.py --short                          # a twentieth of the rows, one keep
python benchmarks/smaller.py --keep even lowest --gold 0.5 0  # which layers stay, and the label's share of the target
python benchmarks/smaller.py --layers 6 4 3 --neurons 768      # all, 4 and 3 layers of half the feed-forward width, each

The teacher is trained by the recipe; a student reads each row twice as often, with half the layers for about the same cost.
`labels alone` begins as the same layers and has no teacher: what distillation brings is the difference. Scored are the test parts through the exported graphs; speed is CPU
time of ONNX Runtime on one thread, 512 test texts in batches of 32, tokenised before, the middle of five rounds in turns.
"""

import argparse
import os
import tempfile
from itertools import product
from pathlib import Path
from statistics import mean
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import yaml

from murmura.training.evaluate.evaluate import evaluate
from murmura.training.export.export import export
from murmura.training.fit.loop import fit
from murmura.training.recipe.keys.teachers import Teachers
from murmura.training.run_folders.smaller import Compared, read_comparison

ROOT = Path(__file__).resolve().parents[1]
ROWS = {"intent": 15000, "slots": 13084, "sentiment": 12000}
LABELS_ALONE = "labels alone"


def make_recipe(part: float, **keys: Any) -> dict[str, Any]:
    """Return `recipes/joint.yaml` with a part of its training rows and these keys."""
    recipe: dict[str, Any] = yaml.safe_load((ROOT / "recipes/joint.yaml").read_text(encoding="utf-8"))
    passes = 2 if "smaller" in keys else 1
    for name, task in recipe["tasks"].items():
        source = task["train"] if isinstance(task["train"], dict) else {"path": task["train"]}
        if part < 1:
            task["train"] = {**source, "rows": round(part * ROWS[name])}
        task["epochs"] *= passes
    plain = {"few_rows": 0, "probe": False, "trackers": [], "precision": "fp32", "report": {"texts": False}}
    changes = {**plain, **keys}
    return {key: value for key, value in {**recipe, **changes}.items() if not ("smaller" in keys and key == "encoder")}


def train(folder: Path, data: Path, seed: int, recipe: dict[str, Any]) -> float:
    """Train, export and score a model in `folder`; return the CPU-seconds of training."""
    path = folder.with_suffix(".yaml")
    path.write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    run = folder.with_name(f"{folder.name}.run")
    record = fit(path, data, run, seed=seed, quiet=True)
    export(run, folder)
    evaluate(folder, data, texts=False)
    return record.cpu_seconds


def distil(
    scratch: Path, data: Path, seed: int, part: float, keep: str, gold: float | None, layers: int, neurons: int | None
) -> str:
    """Train a student; return its line of the table. Without `gold` it learns the labels alone."""
    asked = {"teacher": str(scratch / "teacher"), "layers": layers, "keep": keep}
    asked |= {"intermediate_size": neurons} if neurons is not None else {}
    recipe = make_recipe(part, smaller=asked if gold is None else {**asked, "gold": gold})
    student = scratch / f"{layers}-{neurons}-{keep}-{gold}"
    if gold is None:
        taught, Teachers.gold_at = Teachers.gold_at, lambda *_: 1.0  # type: ignore[method-assign]
    try:
        seconds = train(student, data, seed, recipe)
    finally:
        if gold is None:
            Teachers.gold_at = taught  # type: ignore[method-assign]
    found = read_comparison(student.with_name(f"{student.name}.run"))
    assert found is not None, "it has a teacher"
    kept = f"{layers} ({keep})" if neurons is None else f"{layers} ({keep}), {neurons} neurons"
    return describe(kept, LABELS_ALONE if gold is None else f"{gold:g}", found, seconds)


def describe(kept: str, gold: str, found: Compared, seconds: float) -> str:
    tasks = ", ".join(f"{each.task} {100 * each.student:.1f} of {100 * each.teacher:.1f}" for each in found.tasks)
    student, teacher = (100 * mean(getattr(each, who) for each in found.tasks) for who in ("student", "teacher"))
    return (
        f"| {kept} | {gold} | {student:.2f} of {teacher:.2f} | {100 * found.quality:.1f} % | {found.speed:.2f} | {tasks} | "
        f"{seconds:.0f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shared = Path(os.environ.get("MURMURA_TEST_DATA", ROOT.parent / "shared/data"))
    parser.add_argument("--data", type=Path, default=shared)
    parser.add_argument("--part", type=float, default=1.0, help="of the training rows")
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--layers", nargs="+", type=int, default=[3])
    parser.add_argument("--neurons", type=int, help="of the feed-forward part of each layer; all without it")
    parser.add_argument("--keep", nargs="+", choices=["even", "ends", "lowest"], default=["even"])
    parser.add_argument("--gold", nargs="+", type=float, default=[0.5])
    parser.add_argument("--control", action="store_true", help="with a student that learns labels alone")
    parser.add_argument("--seeds", type=int, nargs="+")
    chosen = parser.parse_args()
    if not chosen.data.is_dir():
        raise SystemExit(f"no public data sets at {chosen.data}: --data or MURMURA_TEST_DATA names their folder")
    part = 0.05 if chosen.short else chosen.part
    for seed in chosen.seeds or ([0] if chosen.short else [0, 1, 2]):
        with tempfile.TemporaryDirectory() as scratch:
            began = train(Path(scratch) / "teacher", chosen.data, seed, make_recipe(part))
            print(f"seed {seed}, {part:g} of the training rows; the teacher took {began:.0f} CPU-s\n", flush=True)
            print(
                f"| layers kept | label's share | mean score | of the teacher's | speed | tasks | CPU-s |\n{'| --- ' * 7}|"
            )
            golds = [*chosen.gold, *([None] if chosen.control else [])]
            for layers, keep, gold in product(chosen.layers, chosen.keep, golds):
                print(distil(Path(scratch), chosen.data, seed, part, keep, gold, layers, chosen.neurons), flush=True)
        print()


if __name__ == "__main__":
    main()
