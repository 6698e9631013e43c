"""A retraining whose gate needs more than the candidate: a placebo, and candidates of other seeds."""

import json
from contextlib import suppress

import pytest
import yaml
from tiny_loop import relabelled, write_corrections, write_job

from murmura.runtime.errors import SetupError
from murmura.training.retrain import stages
from murmura.training.retrain.preview import preview
from murmura.training.retrain.refits import Trainings
from murmura.training.retrain.run import GateRefused, retrain


def test_corrections_without_other_wrong_rows_are_judged_by_a_placebo_and_seeds_show_their_spread(desk_base, tmp_path):
    folder = write_corrections(tmp_path / "corrections")
    relabelled(folder, 50, train=60)
    fit = {"epochs": 2, "evaluations": 1, "encoder_lr": 1e-3, "head_lr": 5e-3, "dropout": 0.0, "threads": 1}
    job = write_job(tmp_path, desk_base, gate={"seeds": 2, "allowance": 1.0, "served_allowance": 1.0}, fit=fit)
    said = list(preview(job))
    assert (
        "train a placebo without the corrections of intent, as fewer than 30 other rows are wrong: one more training"
        in said
    )
    assert "train the candidate with 1 more seeds" in said
    work = tmp_path / "work"
    with suppress(GateRefused):
        retrain(job, work, quiet=True)
    rows = (work / "refits" / "placebo" / "mix").glob("intent.*.jsonl")
    corrected = {json.loads(line)["text"] for line in (folder / "intent.train.jsonl").read_text().splitlines()}
    assert not {json.loads(line)["text"] for path in rows for line in path.read_text().splitlines()} & corrected
    candidate, placebo = (
        json.loads((work / where / "run" / "run.json").read_text()) for where in ("fit", "refits/placebo")
    )
    assert candidate["planned_steps"] == placebo["planned_steps"]
    recipe = yaml.safe_load((work / "refits" / "seed-1" / "recipe.yaml").read_text())
    mixed = yaml.safe_load((work / "mix" / "recipe.yaml").read_text()) | {"seed": 1}
    assert recipe == {key: value for key, value in mixed.items() if key != "report"}
    gate = json.loads((work / "gate" / "gate.json").read_text())
    (target,) = [each for each in gate["comparisons"] if each["target"]]
    assert target["lift"]["placebo"]
    assert target["lift"]["rows"] == 50
    spread = {(each["task"], each["set"]): each["metrics"] for each in gate["seeds"]}
    assert len(spread["intent", "test"]) == 2
    assert "## Spread over seeds" in (work / "gate" / "gate.md").read_text()


def test_what_was_trained_beside_the_candidate_is_not_trained_again(tmp_path, monkeypatch):
    trained = []

    def export(run, model):
        if len(trained) == 2:
            raise SetupError("killed")
        model.mkdir()

    monkeypatch.setattr("murmura.training.retrain.refits.export", export)
    (tmp_path / "recipe.yaml").write_text("seed: 0\nname: desk\nreport: {label_errors: true}\n")

    def run() -> list[str]:
        found = Trainings(tmp_path, lambda recipe, data, out: trained.append(recipe.parent.name))
        found.add_placebo(lambda rows: (rows / "recipe.yaml").write_text("seed: 0\n"))
        found.add_seed(tmp_path / "recipe.yaml", tmp_path, 1)
        return found.made

    with pytest.raises(SetupError, match="killed"):
        run()
    assert run() == ["a placebo without the corrections", "the candidate with seed 1"]
    assert trained == ["mix", "seed-1", "seed-1"]
    assert yaml.safe_load((tmp_path / "seed-1" / "recipe.yaml").read_text()) == {"seed": 1, "name": "desk"}
    assert "refits" in stages.RESUMABLE
