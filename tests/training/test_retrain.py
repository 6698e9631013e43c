"""Retraining from a data set folder to a version in the store, without a broker."""

import json
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import yaml
from tiny_loop import loans, savings, usual, write_corrections, write_job
from tiny_training import write_jsonl

from murmura.runtime.errors import SetupError
from murmura.runtime.model.model import Model
from murmura.runtime.release.store import ModelStore
from murmura.schemas.manifest import POOLED
from murmura.training.retrain.preview import preview
from murmura.training.retrain.run import STAGES, GateRefused, Retraining, retrain


@pytest.fixture
def base(desk_base: Path) -> Path:
    return desk_base


@pytest.fixture
def job(base: Path, tmp_path: Path) -> Path:
    write_corrections(tmp_path / "corrections")
    return write_job(tmp_path, base)


LONGER = {"epochs": 8, "evaluations": 1, "encoder_lr": 1e-3, "head_lr": 5e-3, "dropout": 0.0, "threads": 1}


def figures(work: Path) -> dict[str, dict]:
    found = json.loads((work / "gate" / "gate.json").read_text())["figures"]
    return {f"{each['task']}/{each['set']}": each for each in found}


@pytest.mark.usefixtures("drawings")
def test_a_new_label_is_learned_nothing_is_forgotten_and_the_version_lies_in_the_store(job: Path, tmp_path: Path):
    done = retrain(job, tmp_path / "work", quiet=True)
    assert (done.name, done.version, done.generation) == ("desk", 1, None)
    page, shared = (tmp_path / "work/evaluate" / each for each in ("report.html", "model/report.html"))
    assert "shows texts of rows" in page.read_text()
    assert "curve-loss" in shared.read_text()
    assert "shows texts of rows" not in shared.read_text()
    found = figures(tmp_path / "work")
    assert found["intent/feedback"]["current"] == 0
    assert found["intent/feedback"]["candidate"] >= 0.9
    assert found["intent/feedback, new labels"]["target"]
    assert found["intent/feedback, new labels"]["verdict"] == "better"
    assert {"intent/test", "topics/test", "places/test"} < set(found)
    assert all(found[f"{task}/test"]["verdict"] != "worse" for task in ("intent", "topics", "places"))
    manifest = ModelStore(tmp_path / "store").describe("desk", 1)
    assert manifest.task("intent").labels == ["lost", "other", "transfer", "loan"]
    assert manifest.task("intent").open
    assert manifest.metrics["intent"]["reports"]["feedback"]["accuracy"] >= 0.9
    assert "# Gate: passed" in done.report.read_text()


def test_of_tasks_that_nobody_corrected_the_answers_are_kept_on_the_old_rows(job: Path, tmp_path: Path, monkeypatch):
    def stop(self, folder: Path):
        raise Gone

    monkeypatch.setattr(Retraining, "_fit", stop)  # the rows are mixed by then
    with pytest.raises(Gone):
        retrain(job, tmp_path / "work", quiet=True)
    recipe = yaml.safe_load((tmp_path / "work" / "mix" / "recipe.yaml").read_text())
    replayed = {name: task["train"][0] for name, task in recipe["tasks"].items()}
    assert all(source["path"] == f"{name}.replay.jsonl" for name, source in replayed.items())
    assert {name: source.get("soft") for name, source in replayed.items()} == {
        "intent": None,
        "topics": "all",
        "places": "all",
    }


def test_without_old_data_the_current_answers_are_held_on_to(base: Path, tmp_path: Path):
    write_corrections(tmp_path / "corrections")
    write_jsonl(tmp_path / "usual.jsonl", usual(200))
    gate = {"reports": {task: {"old": {"rows": str(base / "test.jsonl")}} for task in ("intent", "places")}}
    job = write_job(tmp_path, base, old=None, hold={"texts": ["usual.jsonl"]}, gate=gate, fit=LONGER)
    retrain(job, tmp_path / "work", quiet=True)
    found = figures(tmp_path / "work")
    assert found["intent/feedback"]["candidate"] >= 0.9
    assert found["intent/old"]["candidate"] >= found["intent/old"]["current"] - 0.02
    assert found["places/old"]["candidate"] >= found["places/old"]["current"] - 0.02
    before, after = Model.load(base / "desk").manifest, ModelStore(tmp_path / "store").describe("desk", 1)
    assert after.task("intent").thresholds == before.task("intent").thresholds
    assert after.task("topics") == before.task("topics")


def test_a_candidate_that_forgets_is_refused_and_not_pushed(base: Path, tmp_path: Path):
    """Held-out rows on which the old labels are called wrong: whatever is right before is wrong now."""
    write_corrections(tmp_path / "corrections")
    moved = [{"text": row["text"], "label": "lost"} for row in loans(40, 9)]
    gate = {"reports": {"intent": {"own": {"rows": "own.jsonl"}}}}
    current = Model.load(base / "desk").predict([row["text"] for row in moved], ["intent"])
    kept = [
        {**row, "label": next(a["label"] for a in out["intent"]["alternatives"] if a["label"] != "other")}
        for row, out in zip(moved, current, strict=True)
    ]
    write_jsonl(tmp_path / "own.jsonl", kept)
    job = write_job(tmp_path, base, gate=gate)
    with pytest.raises(GateRefused, match=r"intent \(own\) is worse: .*; report: .*gate\.md") as refused:
        retrain(job, tmp_path / "work", quiet=True)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "store").exists()
    with pytest.raises(GateRefused):  # and once more, without training again
        retrain(job, tmp_path / "work", quiet=True)
    with pytest.raises(GateRefused):
        retrain(job, tmp_path / "another", quiet=True)
    judged = [
        {
            line.split(" | ")[-2]
            for line in (tmp_path / run / "gate" / "gate.md").read_text().splitlines()
            if "| own |" in line
        }
        for run in ("work", "another")
    ]
    assert judged == [{"1"}, {"2"}]


def test_killed_while_it_trains_the_same_command_goes_on(job: Path, tmp_path: Path):
    text = job.read_text().replace("epochs: 3", "epochs: 400")
    job.write_text(text)
    command = "from murmura.training.retrain.run import retrain; from pathlib import Path; import sys\n"
    command += "retrain(Path(sys.argv[1]), Path(sys.argv[2]), quiet=True, say=lambda line: print(line, flush=True))"
    with subprocess.Popen(
        [sys.executable, "-c", command, str(job), str(tmp_path / "work")], stdout=subprocess.PIPE, text=True
    ) as process:
        while not (process.stdout.readline() or "mix:").startswith("mix:"):
            pass
        time.sleep(0.5)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    run = json.loads((tmp_path / "work" / "job.json").read_text())["run"]
    # The long training is cut short by hand: only the stage that was interrupted reads this.
    recipe = tmp_path / "work" / "mix" / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("epochs: 400", "epochs: 3"))
    said: list[str] = []
    assert retrain(job, tmp_path / "work", quiet=True, say=said.append).version == 1
    assert [line.split(":")[0] for line in said if line.endswith("(done before)")] == ["current", "data", "mix"]
    assert json.loads((tmp_path / "work" / "job.json").read_text())["run"] == run


class Gone(BaseException):
    """Ends a run as a kill does: nothing catches it."""


def test_interrupted_after_any_stage_nothing_is_done_or_pushed_twice(job: Path, tmp_path: Path, monkeypatch):
    made: list[str] = []
    for stage in STAGES:
        real = getattr(Retraining, f"_{stage}")

        def once(self, folder: Path, stage: str = stage, real=real):
            facts = real(self, folder)
            made.append(stage)
            if made.count(stage) == 1 and stage in {"gate", "push"}:  # the marker is not written any more
                raise Gone
            return facts

        monkeypatch.setattr(Retraining, f"_{stage}", once)
    for _ in range(2):
        with pytest.raises(Gone):
            retrain(job, tmp_path / "work", quiet=True)
    assert retrain(job, tmp_path / "work", quiet=True).version == 1
    assert retrain(job, tmp_path / "work", quiet=True).version == 1
    assert made == [*STAGES[:8], "gate", "push", "push", "release"]
    assert ModelStore(tmp_path / "store").versions("desk") == [1]


def test_the_next_retraining_starts_from_the_version_in_the_store(job: Path, base: Path, tmp_path: Path):
    store = ModelStore(tmp_path / "store")
    store.push(base / "desk")
    again = write_job(tmp_path, base, model={"store": str(tmp_path / "store"), "name": "desk"})
    assert retrain(again, tmp_path / "work", quiet=True).version == 2
    assert (tmp_path / "work" / "current" / "desk-1" / "model.safetensors").is_file()
    assert figures(tmp_path / "work")["intent/test"]["versions"] == 1


def test_the_next_gate_counts_how_many_versions_a_set_has_judged(base: Path, tmp_path: Path):
    ModelStore(tmp_path / "store").push(base / "desk")
    model = {"store": str(tmp_path / "store"), "name": "desk"}
    write_corrections(tmp_path / "corrections")
    retrain(write_job(tmp_path, base, model=model), tmp_path / "one", quiet=True)
    (tmp_path / "more").mkdir()
    for part, count, seed in (("train", 60, 5), ("heldout", 30, 6)):
        write_jsonl(tmp_path / "more" / f"intent.{part}.jsonl", savings(count, seed))
    old = {"recipe": str(base / "base.yaml"), "data": str(base), "feedback": ["corrections"]}
    job = write_job(tmp_path, base, model=model, old=old, feedback={"data": "more"})
    with suppress(GateRefused):
        retrain(job, tmp_path / "two", quiet=True)
    versions = {name: each["versions"] for name, each in figures(tmp_path / "two").items()}
    assert (versions["intent/test"], versions["places/test"], versions["intent/feedback"]) == (2, 2, 1)


def test_a_delta_is_assembled_and_trained_further_and_its_vectors_stay_near_those_before(
    desk_base: Path, tmp_path: Path
):
    from murmura.training.export.export import export
    from murmura.training.export.parity import torch_logits
    from murmura.training.fit.loop import fit
    from murmura.training.model.encoders import load

    recipe = yaml.safe_load((desk_base / "base.yaml").read_text())
    recipe |= {"encoder": str(desk_base / "desk"), "lora": {"rank": 4}, "budget": {"epochs": 1, "evaluations": 1}}
    recipe["pooled"] = "distilled"
    (tmp_path / "delta.yaml").write_text(yaml.safe_dump(recipe))
    fit(tmp_path / "delta.yaml", desk_base, tmp_path / "run", quiet=True)
    export(tmp_path / "run", tmp_path / "delta", delta=True)
    ModelStore(tmp_path / "store").push(tmp_path / "delta")
    write_corrections(tmp_path / "corrections")
    model = {"store": "store", "name": "desk", "base": str(desk_base / "desk")}
    job = write_job(tmp_path, desk_base, model=model)
    assert "start from desk 1: intent (3 labels, open)" in "\n".join(preview(job))
    assert retrain(job, tmp_path / "work", quiet=True).version == 2
    assert [each.name for each in (tmp_path / "work" / "current").iterdir() if each.is_dir()] == ["desk-1"]
    assert yaml.safe_load((tmp_path / "work/mix/recipe.yaml").read_text())["pooled"] == "distilled"
    before, after = (Model.load(tmp_path / "work" / each) for each in ("current/desk-1", "evaluate/model"))
    assert (before.manifest.pooled_layers, after.manifest.pooled_layers) == ([1, 2], [1, 2])
    texts = [row["text"] for row in loans(30, 5)]
    plain = after.manifest.model_copy(update={"tasks": [], "pooled_layers": []})
    tokens = [encoded.rows[0].ids for encoded in after.encode(texts)]
    unmapped = np.stack(torch_logits(plain, load(str(tmp_path / "work/evaluate/model")).weights, tokens)[POOLED])
    near, far = ((before.embed(texts) * vectors).sum(1).mean() for vectors in (after.embed(texts), unmapped))
    assert near > max(0.9, far)


def test_the_gate_of_a_job_has_its_allowances_its_target_and_its_strictness(base: Path, tmp_path: Path):
    write_corrections(tmp_path / "corrections")
    gate = {"allowance": 0.01, "allowances": {"places": 0.2}, "target": ["intent"], "strict": True}
    job = write_job(tmp_path, base, gate=gate, fit=LONGER)
    with suppress(GateRefused):  # strictness asks for more than thirty rows can prove, now and then
        retrain(job, tmp_path / "work", quiet=True)
    found = figures(tmp_path / "work")
    assert (found["topics/test"]["allowance"], found["places/test"]["allowance"]) == (0.01, 0.2)
    assert found["intent/test, served"]["allowance"] == 0.05
    assert [name for name, each in found.items() if each["target"]] == ["intent/feedback, new labels"]
    sets = {name: each for name, each in found.items() if not each["target"]}
    loose = [name for name, each in sets.items() if each["low"] < -each["allowance"] and each["verdict"] != "worse"]
    assert loose == []


def test_feedback_that_is_not_enough_is_fetched_anew_by_the_next_run(job: Path, tmp_path: Path, monkeypatch):
    """What topics hold is known only behind the stage `data`; the same job has to see what came in since."""
    from murmura.training.retrain import stages

    def not_enough(file, current, mix, sets):
        raise SetupError("not enough")

    monkeypatch.setattr(stages, "find_targets", not_enough)
    with pytest.raises(SetupError, match="not enough"):
        retrain(job, tmp_path / "work", quiet=True)
    monkeypatch.undo()
    said: list[str] = []
    assert retrain(job, tmp_path / "work", quiet=True, say=said.append).version == 1
    assert not [line for line in said if line.endswith("(done before)")]


def test_a_resumed_run_whose_feedback_is_gone_says_so_in_a_line(job: Path, tmp_path: Path, monkeypatch):
    def killed(self, folder: Path):
        raise Gone

    with monkeypatch.context() as patched:
        patched.setattr(Retraining, "_data", killed)
        with pytest.raises(Gone):
            retrain(job, tmp_path / "work", quiet=True)
    (tmp_path / "corrections").rename(tmp_path / "elsewhere")
    with pytest.raises(SetupError, match=r"job\.yaml:\d+: feedback\.data: .*corrections: no such folder"):
        retrain(job, tmp_path / "work", quiet=True)


def test_a_dry_run_says_what_would_be_done_and_writes_nothing(job: Path, tmp_path: Path):
    before = sorted(tmp_path.rglob("*"))
    said = "\n".join(preview(job))
    assert sorted(tmp_path.rglob("*")) == before
    for part in (
        "start from desk 0: intent (3 labels, open)",
        "learn intent: 60 rows, 30 held out, new labels: loan",
        "replay places: 162 of 324 old rows",
        "compare intent (feedback): 30 rows\ncompare intent (feedback, new labels): 30 rows, of which all have to become right",
        "release nothing",
    ):
        assert part in said


def test_a_rare_new_label_and_one_of_a_closed_task_are_left_out(base: Path, tmp_path: Path):
    folder = write_corrections(tmp_path / "corrections")
    with (folder / "intent.train.jsonl").open("a") as file:
        file.write('{"text": "lown please", "label": "laon"}\n')
    write_jsonl(folder / "topics.train.jsonl", [{"text": f"gold {n}", "label": ["gold"]} for n in range(20)])
    said = "\n".join(preview(write_job(tmp_path, base)))
    assert "left out intent: 1 rows of 'laon'" in said
    assert "left out topics: 20 rows of 'gold'" in said


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"feedbck": {}}, r"job\.yaml:\d+: feedbck: unknown key; expected one of "),
        ({"feedback": {"data": "x", "manifest": "y"}}, r"job\.yaml:\d+: feedback: expected one of `data`, `manifest`"),
        ({"feedback": {"manifest": "y"}}, r"feedback can only be read from topics with `kafka`"),
        ({"model": {}}, r"job\.yaml:\d+: model: expected `folder`, or `store` and `name`"),
        ({"gate": {"allowances": {"mood": 0.1}}}, r"job\.yaml:\d+: gate\.allowances\.mood: the model has no task mood"),
        ({"gate": {"target": ["mood"]}}, r"job\.yaml:\d+: gate\.target: the model has no task mood; it has intent, "),
        ({"old": {"recipe": "nowhere.yaml"}}, r"nowhere\.yaml: cannot read the recipe"),
        ({"feedback": {"data": "nowhere"}}, r"nowhere: no such folder; expected one that `murmura ingest` made"),
    ],
)
def test_a_mistake_is_one_line_before_anything_is_trained(job, base, tmp_path, changes, message):
    with pytest.raises(SetupError, match=message) as refused:
        retrain(write_job(tmp_path, base, **changes), tmp_path / "work", quiet=True)
    assert "\n" not in str(refused.value)


def test_a_run_that_goes_on_after_its_old_data_changed_is_refused(base: Path, tmp_path: Path, monkeypatch):
    write_corrections(tmp_path / "corrections")
    for name in ("train.jsonl", "test.jsonl", "base.yaml"):
        (tmp_path / name).write_bytes((base / name).read_bytes())
    job = write_job(tmp_path, base, old={"recipe": "base.yaml"}, fit={"steps": 1, "evaluations": 1, "threads": 1})

    def killed(self, folder: Path):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Retraining, "_gate", killed)
        with pytest.raises(KeyboardInterrupt):
            retrain(job, tmp_path / "work", quiet=True)
    lines = (tmp_path / "test.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "test.jsonl").write_text("".join(lines[:-1]))
    with pytest.raises(SetupError, match=r"test\.jsonl: changed since the run in .*work began"):
        retrain(job, tmp_path / "work", quiet=True)
