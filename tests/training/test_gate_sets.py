"""Which rows the gate compares on, and what of the answers counts."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from tiny_loop import damaged, loans, mix_of, relabelled, usual, write_corrections, write_job
from tiny_training import rows, write_jsonl
from tokenizers import Encoding

from murmura.runtime.errors import SetupError
from murmura.runtime.model.decoding import Rows
from murmura.runtime.model.kinds.multi_label import MultiLabelDecoder
from murmura.runtime.model.model import Model
from murmura.schemas.manifest import TaskSpec, Thresholds
from murmura.training.data.example import Example
from murmura.training.gate.held_out import held_answers, held_out_sets, texts_to_agree_on, unmeasured, with_targets
from murmura.training.gate.targets import Targets, find_targets
from murmura.training.gate.verdict import Verdict
from murmura.training.gate.weigh import weigh
from murmura.training.kinds.answers import Answer
from murmura.training.kinds.registry import KINDS
from murmura.training.mix.corrections import TooLittleFeedback
from murmura.training.mix.hold_texts import CurrentAnswers, is_kept_apart
from murmura.training.recipe.job import Gate, read_job
from murmura.training.retrain.checks import check_job
from murmura.training.retrain.job_files import digest_files
from murmura.training.retrain.run import retrain


@pytest.fixture(scope="module")
def current(desk_base: Path) -> Model:
    return Model.load(desk_base / "desk")


def held_on(folder: Path, base: Path, **changes) -> Path:
    """A job without old data, which holds on to the answers on two hundred usual texts."""
    write_corrections(folder / "corrections")
    write_jsonl(folder / "usual.jsonl", usual(200))
    return write_job(folder, base, **{"old": None, "hold": {"texts": ["usual.jsonl"]}} | changes)


def withholding(base: Path, folder: Path) -> Model:
    """The same weights, with thresholds at which nothing is answered."""
    shutil.copytree(base / "desk", folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    for task in manifest["tasks"]:
        if task["name"] == "intent":
            task["thresholds"] = {"accept": 1.0, "out_of_scope": 0.0}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return Model.load(folder, verify=False)


def test_a_candidate_that_withholds_everything_is_worse_as_served(desk_base, current, tmp_path):
    write_corrections(tmp_path / "corrections")
    mix = mix_of(write_job(tmp_path, desk_base), current)
    result = weigh(current, withholding(desk_base, tmp_path / "mute"), held_out_sets(mix), Gate())
    verdicts = {(each.task, each.set): each.verdict for each in result.comparisons}
    assert verdicts["intent", "test"] is Verdict.HELD
    assert verdicts["intent", "test, served"] is Verdict.WORSE
    assert "intent (test, served) is worse" in result.reason


def test_a_row_out_of_scope_is_served_right_when_it_is_withheld_as_such(desk_base, current, tmp_path):
    write_corrections(tmp_path / "corrections")
    write_jsonl(tmp_path / "out.jsonl", [row for row in rows(60, 8) if row["label"] == "other"])
    gate = {"reports": {"intent": {"out": {"rows": "out.jsonl"}}}}
    mix = mix_of(write_job(tmp_path, desk_base, gate=gate), current)
    result = weigh(current, withholding(desk_base, tmp_path / "mute"), held_out_sets(mix), Gate())
    found = {each.set: each.found for each in result.comparisons if each.task == "intent"}
    assert found["out, served"].current == pytest.approx(found["out"].current)
    assert found["out, served"].candidate == 1.0


def test_a_fifth_of_the_texts_is_kept_apart_and_never_held_on_to(desk_base, current, tmp_path):
    mix = mix_of(held_on(tmp_path, desk_base), current)
    apart = texts_to_agree_on(mix)
    assert 25 <= len(apart["intent"]) <= 60  # of 200; the corrected ones have a label of their own
    assert 35 <= len(apart["topics"]) <= 75  # of 260
    assert not {row["text"] for row in loans(60, 3)} & set(apart["intent"])
    answers = CurrentAnswers(desk_base / "desk", [current.tasks["topics"]], mix.texts())
    held = answers.to_hold(current.tasks["topics"], None)
    trained = {row["text"] for part in held.values() for row in part}
    assert not trained & set(apart["topics"])
    assert trained | set(apart["topics"]) == set(mix.texts())


def test_the_same_text_is_kept_apart_in_every_run():
    assert [text for text in ("a", "b", "c", "d", "e", "f", "g", "h") if is_kept_apart(text)] == ["e"]


def test_the_current_version_agrees_with_itself_whatever_the_kind_of_task(desk_base, current, tmp_path):
    mix = mix_of(held_on(tmp_path, desk_base), current)
    result = weigh(current, current, held_answers(current, mix), Gate())
    assert {(each.task, each.set) for each in result.comparisons} >= {
        (task, "held answers") for task in ("intent", "topics", "places")
    }
    assert {(each.found.current, each.found.candidate) for each in result.comparisons} == {(1.0, 1.0)}


def test_what_the_current_version_is_not_sure_of_is_not_agreed_on(desk_base, current, tmp_path, monkeypatch):
    mix = mix_of(held_on(tmp_path, desk_base), current)
    usual_rows = {held.task: len(held.examples) for held in held_answers(current, mix)}
    monkeypatch.setattr("murmura.training.kinds.kind.SURE_ENOUGH", 0.0)
    every = {held.task: len(held.examples) for held in held_answers(current, mix)}
    assert every == {task: len(texts) for task, texts in texts_to_agree_on(mix).items()}
    monkeypatch.setattr("murmura.training.kinds.kind.SURE_ENOUGH", 1.1)
    assert held_answers(current, mix) == []
    assert all(usual_rows[task] <= every[task] for task in every)


@pytest.mark.parametrize(("threshold", "sure"), [(0.25, False), (0.9, False), (0.5, True)])
def test_of_several_labels_an_answer_is_sure_when_what_it_names_is_likely_and_the_rest_is_not(threshold, sure):
    """At 0.25 it names what has 0.26, at 0.9 it leaves out what has 0.8: both contradict the probabilities."""
    scores = np.array([0.26 if threshold == 0.25 else 0.8, 0.01])
    spec = TaskSpec(name="topics", kind="multi_label", labels=["a", "b"], thresholds=Thresholds(label=threshold))
    logits = np.log(scores / (1 - scores))
    (output,) = MultiLabelDecoder(spec)(Rows(logits[None], np.array([0]), [], ["x"]), spec.thresholds)
    assert KINDS.get("multi_label").is_sure(Answer(Example("x"), Encoding(), output, logits), spec) == sure


def test_targets_are_marked_on_this_feedback_alone(desk_base, current, tmp_path):
    write_corrections(tmp_path / "corrections")
    sets = held_out_sets(mix_of(write_job(tmp_path, desk_base), current))

    def marked(targets):
        return [(held.task, held.name) for held in with_targets(sets, targets) if held.target]

    assert marked({"intent": ["feedback, new labels"]}) == [("intent", "feedback, new labels")]
    assert marked({"intent": ["feedback, corrected"]}) == [("intent", "feedback")]
    assert marked({}) == []


@pytest.mark.parametrize("task", ["intent", "topics", "places"])
def test_without_old_data_a_damaged_model_is_refused(task, desk_base, current, tmp_path):
    mix = mix_of(held_on(tmp_path, desk_base), current)
    result = weigh(current, damaged(desk_base, tmp_path, task), held_answers(current, mix), Gate())
    assert f"{task} (held answers) is worse" in result.reason


def test_without_old_data_a_usual_retraining_passes(desk_base, tmp_path):
    fit = {"epochs": 8, "evaluations": 1, "encoder_lr": 1e-3, "head_lr": 5e-3, "dropout": 0.0, "threads": 1}
    done = retrain(held_on(tmp_path, desk_base, fit=fit), tmp_path / "work", quiet=True)
    held = {each.task: each.found.candidate for each in done.gate.comparisons if each.set == "held answers"}
    assert held.keys() == {"intent", "topics", "places"}
    assert min(held.values()) >= 0.95
    assert "held answers" in done.report.read_text()


def test_a_task_of_the_old_recipe_without_a_test_part_is_measured_by_agreement(desk_base, current, tmp_path):
    recipe = (desk_base / "base.yaml").read_text().replace("test: test.jsonl", "test: null")
    (tmp_path / "base.yaml").write_text(recipe)
    write_corrections(tmp_path / "corrections")
    mix = mix_of(write_job(tmp_path, desk_base, old={"recipe": "base.yaml", "data": str(desk_base)}), current)
    assert held_out_sets(mix) == [held for held in held_out_sets(mix) if held.name.startswith("feedback")]
    assert {held.task for held in held_answers(current, mix)} == {"intent", "topics", "places"}


def test_a_task_that_no_row_measures_is_named(desk_base, current, tmp_path):
    write_corrections(tmp_path / "corrections")
    mix = mix_of(write_job(tmp_path, desk_base, old=None), current)
    notes = unmeasured(mix, held_out_sets(mix))
    assert [note.split(":")[0] for note in notes] == [
        "intent is compared on this feedback alone, which says little of what it knew before; gate.reports or "
        "hold.texts can name more",
        "topics is not compared",
        "places is not compared",
    ]


NEW = {"intent": ["feedback, new labels"]}


def found_targets(job: Path, current: Model) -> Targets:
    mix = mix_of(job, current)
    return find_targets(read_job(job), current, mix, [*held_out_sets(mix), *held_answers(current, mix)])


def targets(job: Path, current: Model) -> dict[str, list[str]]:
    return found_targets(job, current).sets


def confirmed(folder: Path, heldout: int) -> None:
    """Feedback on topics that only says yes, so far as the model is right."""
    for part, count, seed in (("train", 30, 5), ("heldout", heldout, 6)):
        lines = [{"text": f"{row['text']} {n}", "label": row["topics"]} for n, row in enumerate(rows(count, seed))]
        write_jsonl(folder / f"topics.{part}.jsonl", lines)


def test_confirmations_and_a_stray_row_make_no_target(desk_base, current, tmp_path):
    folder = write_corrections(tmp_path / "corrections")
    confirmed(folder, 30)
    write_jsonl(folder / "places.train.jsonl", [{"text": "gold card", "spans": []}])
    write_jsonl(folder / "places.heldout.jsonl", [{"text": "to rome", "spans": []}])
    assert targets(write_job(tmp_path, desk_base), current) == NEW


def test_without_ten_held_out_corrections_of_any_task_nothing_is_trained(desk_base, current, tmp_path):
    folder = write_corrections(tmp_path / "corrections", heldout=9)
    confirmed(folder, 30)
    job = write_job(tmp_path, desk_base)
    with pytest.raises(
        TooLittleFeedback, match=r"job\.yaml:\d+: feedback: no task could .* intent: 9 held-out texts with new"
    ):
        retrain(job, tmp_path / "work", quiet=True)
    assert not (tmp_path / "work").exists()
    named = write_job(tmp_path, desk_base, gate={"target": ["intent"], "least_new_rows": 9})
    assert targets(named, current) == NEW


def test_fifty_corrections_to_known_labels_are_a_target_beside_thirty_wrong_rows_without_feedback(
    desk_base, current, tmp_path
):
    write_corrections(tmp_path / "corrections")
    relabelled(tmp_path / "corrections", 50)
    old = {"recipe": str(desk_base / "base.yaml"), "data": str(desk_base), "replay": 0}
    with pytest.raises(
        SetupError, match=r"feedback: no task .* \d+ texts without feedback .* 30 are needed .* gate\.reports"
    ) as e:
        targets(write_job(tmp_path, desk_base, old=old), current)
    assert not isinstance(e.value, TooLittleFeedback)
    found = found_targets(write_job(tmp_path, desk_base), current)
    assert (found.sets, found.placebo) == ({"intent": ["feedback, corrected"]}, ["intent"])
    wrong = [
        {"text": f"{row['text']} {n}", "label": "lost"} for n, row in enumerate(rows(90, 8)) if row["label"] != "lost"
    ]
    write_jsonl(tmp_path / "wrong.jsonl", wrong)
    reports = {"intent": {"wrong": {"rows": "wrong.jsonl"}}}
    job = write_job(tmp_path, desk_base, gate={"reports": reports})
    found = found_targets(job, current)
    assert (found.sets, found.placebo) == ({"intent": ["feedback, corrected"]}, [])
    relabelled(tmp_path / "corrections", 49)
    with pytest.raises(TooLittleFeedback, match="intent: 49 held-out corrections to known labels, 50 are needed"):
        targets(job, current)


def test_corrections_that_cannot_be_judged_beside_a_new_label_are_noted(desk_base, current, tmp_path):
    folder = write_corrections(tmp_path / "corrections")
    relabelled(folder, 20)
    lines = (folder / "intent.heldout.jsonl").read_text()
    write_corrections(folder)
    (folder / "intent.heldout.jsonl").write_text(lines + (folder / "intent.heldout.jsonl").read_text())
    found = found_targets(write_job(tmp_path, desk_base), current)
    assert found.sets == NEW
    assert found.notes == ["intent: 20 held-out corrections to known labels, 50 are needed: not judged"]


def test_the_candidate_that_only_guesses_otherwise_is_refused_and_one_that_learned_passes(desk_base, current, tmp_path):
    """The current version is wrong on all corrected rows; a model with a turned head is right on some everywhere."""
    folder = write_corrections(tmp_path / "corrections")
    relabelled(folder, 60)
    texts = [json.loads(line) for line in (folder / "intent.heldout.jsonl").read_text().splitlines()]
    write_jsonl(tmp_path / "wrong.jsonl", [{**row, "text": f"please, {row['text']}"} for row in texts])
    gate = {"reports": {"intent": {"wrong": {"rows": "wrong.jsonl"}}}}
    mix = mix_of(write_job(tmp_path, desk_base, gate=gate), current)
    sets = with_targets(held_out_sets(mix), {"intent": ["feedback, corrected"]})
    (found,) = weigh(current, damaged(desk_base, tmp_path, "intent"), sets, Gate()).targets
    assert found.found.current == 0
    assert found.found.candidate > 0.3
    assert found.verdict is Verdict.UNPROVEN
    without = [held for held in sets if held.name != "wrong"]
    (found,) = weigh(current, damaged(desk_base, tmp_path / "b", "intent"), without, Gate(least_lift=0)).targets
    assert found.lift.rows < 60


def test_a_named_target_without_rows_is_refused_before_training(desk_base, current, tmp_path):
    write_corrections(tmp_path / "corrections")
    job = write_job(tmp_path, desk_base, gate={"target": ["intent", "topics"]})
    with pytest.raises(SetupError, match=r"job\.yaml:\d+: gate\.target: task topics could not .* of 0 held-out texts"):
        targets(job, current)


def test_a_task_whose_forgetting_nothing_would_show_is_not_trained_unless_the_job_says_so(desk_base, current, tmp_path):
    write_corrections(tmp_path / "corrections")
    with pytest.raises(SetupError, match=r"nothing would show what task intent forgets: 0 texts .*gate\.allow_unmeas"):
        targets(write_job(tmp_path, desk_base, old=None), current)
    assert targets(write_job(tmp_path, desk_base, old=None, gate={"allow_unmeasured": True}), current) == NEW


def test_rows_of_one_conversation_are_compared_together(desk_base, current, tmp_path):
    write_corrections(tmp_path / "corrections")
    lines = [{**row, "text": f"{row['text']} {n}", "conversation": f"c{n // 5}"} for n, row in enumerate(rows(60, 8))]
    write_jsonl(tmp_path / "talks.jsonl", lines)
    gate = {"reports": {"intent": {"talks": {"rows": "talks.jsonl"}}}}
    mix = mix_of(write_job(tmp_path, desk_base, gate=gate), current)
    result = weigh(current, damaged(desk_base, tmp_path, "intent"), held_out_sets(mix), Gate())
    found = {each.set: each.found for each in result.comparisons if each.task == "intent"}
    assert (found["talks"].rows, found["talks"].conversations, found["talks"].exact) == (60, 12, False)
    assert (found["test"].rows, found["test"].conversations) == (90, 85)  # of its texts five stand twice


def test_a_recipe_or_a_job_names_the_column_of_the_conversations(desk_base, current, tmp_path):
    write_corrections(tmp_path / "corrections")
    lines = [{**row, "text": f"{row['text']} {n}", "talk": n // 5} for n, row in enumerate(rows(60, 8))]
    write_jsonl(tmp_path / "talks.jsonl", lines)
    recipe = yaml.safe_load((desk_base / "base.yaml").read_text())
    recipe["tasks"]["intent"] |= {"test": str(tmp_path / "talks.jsonl"), "group": "talk", "validation": "test.jsonl"}
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(recipe))
    reports = {"intent": {"own": {"rows": "talks.jsonl", "group": "talk"}, "plain": {"rows": "talks.jsonl"}}}
    old = {"recipe": "base.yaml", "data": str(desk_base)}
    mix = mix_of(write_job(tmp_path, desk_base, old=old, gate={"reports": reports}), current)
    result = weigh(current, current, held_out_sets(mix), Gate())
    found = {each.set: each.found.conversations for each in result.comparisons if each.task == "intent"}
    assert (found["test"], found["own"], found["plain"]) == (12, 12, 60)
    write_jsonl(tmp_path / "talks.jsonl", [*lines, {"text": "no talk", "label": "lost"}])
    with pytest.raises(SetupError, match=r"talks\.jsonl:61: column 'talk', the group of a row, is missing or empty"):
        held_out_sets(mix)


def test_rows_of_a_report_may_be_a_data_set_in_a_folder(desk_base, current, tmp_path):
    datasets = pytest.importorskip("datasets", reason="needs the extra data")
    write_corrections(tmp_path / "corrections")
    given = [{"text": row["text"], "label": row["label"]} for row in rows(20, 8)]
    datasets.Dataset.from_list(given).save_to_disk(tmp_path / "saved")
    job = write_job(tmp_path, desk_base, gate={"reports": {"intent": {"own": {"rows": "saved"}}}})
    mix = check_job(read_job(job)).mix
    (own,) = [held for held in held_out_sets(mix) if held.name == "own"]
    assert [(example.text, *example.labels) for example in own.examples] == [(r["text"], r["label"]) for r in given]
    before = digest_files(mix.job)
    datasets.Dataset.from_list(given[1:]).save_to_disk(tmp_path / "saved")
    changed = {path for path, digest in digest_files(mix.job).items() if before[path] != digest}
    assert changed == {str(tmp_path / "saved")}
