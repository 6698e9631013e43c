"""What goes into a run beside the feedback: nothing that contradicts it, and nothing that it is judged on."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from tiny_loop import mix_of, write_corrections, write_job
from tiny_training import rows, write_jsonl

from murmura.runtime.agent.default_agents import listed_agents
from murmura.runtime.errors import SetupError
from murmura.runtime.model.model import Model
from murmura.training.gate.held_out import held_out_sets, texts_to_agree_on
from murmura.training.gate.judged_versions import count_versions, write_versions
from murmura.training.mix.hold_texts import CurrentAnswers, is_kept_apart
from murmura.training.mix.plan import Mix, plan_mix
from murmura.training.mix.write import write_mix
from murmura.training.prepare.tasks import read_tasks
from murmura.training.recipe.job import read_job
from murmura.training.recipe.recipe import load_recipe
from murmura.training.retrain.job_files import digest_files, refuse_changed_files
from murmura.training.retrain.sibling_runs import find_judged_candidates


@pytest.fixture(scope="module")
def current(desk_base: Path) -> Model:
    return Model.load(desk_base / "desk")


def spelled_otherwise(text: str) -> str:
    return f"  {text.upper()} "


@pytest.mark.parametrize("part", ["train", "heldout"])
def test_old_rows_whose_texts_people_judged_leave_every_part_of_every_task(desk_base, current, tmp_path, part):
    folder = write_corrections(tmp_path / "corrections")
    judged = [row["text"] for row in (*rows(360, 1)[:40], *rows(90, 2)[:40])]
    file = folder / f"intent.{part}.jsonl"
    lines = [json.dumps({"text": spelled_otherwise(text), "label": "lost"}) + "\n" for text in judged]
    file.write_text(file.read_text() + "".join(lines))
    mix = mix_of(
        write_job(tmp_path, desk_base, old={"recipe": str(desk_base / "base.yaml"), "data": str(desk_base)}), current
    )
    kept = {
        example.text
        for name, data in mix.old.items()
        for examples in (mix.replayed(name), data.validation, data.test, data.outside)
        for example in examples
    }
    kept |= {e.text for held in held_out_sets(mix) if not held.name.startswith("feedback") for e in held.examples}
    assert kept
    assert not kept & set(judged)


def test_an_unlearned_out_of_scope_label_that_only_reports_have_does_not_stop_a_retraining(
    desk_base, current, tmp_path
):
    recipe = yaml.safe_load((desk_base / "base.yaml").read_text())
    write_jsonl(tmp_path / "scope.jsonl", [{"text": "tell me a riddle", "label": "nothing"}, *rows(9, 5)])
    scope = {"out_of_scope": {"label": "nothing", "learn": False}, "reports": {"off topic": "./scope.jsonl"}}
    recipe["tasks"]["intent"] |= scope
    (tmp_path / "old.yaml").write_text(yaml.safe_dump(recipe))
    write_corrections(tmp_path / "corrections")
    old = {"recipe": str(tmp_path / "old.yaml"), "data": str(desk_base)}
    (tmp_path / "mix").mkdir()
    write_mix(mix_of(write_job(tmp_path, desk_base, old=old), current), desk_base / "desk", tmp_path / "mix")
    read = read_tasks(load_recipe(tmp_path / "mix" / "recipe.yaml"), tmp_path / "mix")
    assert [data.task.out_of_scope for data in read if data.name == "intent"] == [None]


def test_every_key_of_the_recipe_before_is_carried_on_but_those_that_a_job_decides(desk_base, current, tmp_path):
    recipe = yaml.safe_load((desk_base / "base.yaml").read_text())
    of_recipe = {"description": "A desk.", "data_seed": 7, "word_dropout": 0.03, "normalise": True}
    of_task = {"loss_weight": 3.0, "sampling_weight": 2.0, "label_smoothing": 0.2}
    recipe |= {
        **of_recipe,
        "temperature": 3.0,
        "weights": "dwa",
        "lora": {"rank": 3},
        "optimiser": {"weight_decay": 0.2, "schedule": "constant", "head_lr": 0.5},
        "budget": {"steps": 5, "evaluations": 9, "patience": 2, "validation_rows": 50},
    }
    recipe["tasks"]["intent"] |= {**of_task, "epochs": 9}
    (tmp_path / "old.yaml").write_text(yaml.safe_dump(recipe))
    write_corrections(tmp_path / "corrections")
    (tmp_path / "mix").mkdir()
    old = {"recipe": str(tmp_path / "old.yaml"), "data": str(desk_base)}
    mix = mix_of(write_job(tmp_path, desk_base, old=old), current)
    mix = replace(mix, manifest=mix.manifest.model_copy(update={"pooled": True}))
    write_mix(mix, desk_base / "desk", tmp_path / "mix")
    mixed = load_recipe(tmp_path / "mix" / "recipe.yaml")
    assert mixed.pooled
    task = mixed.tasks["intent"]
    assert {key: getattr(mixed, key) for key in of_recipe} == of_recipe
    assert {key: getattr(task, key) for key in of_task} == of_task
    assert (mixed.sampling.method, mixed.sampling.temperature) == ("temperature", 3.0)
    assert mixed.weights.method == "static"
    assert (mixed.lora, task.epochs) == (None, None)
    assert (mixed.optimiser.weight_decay, mixed.optimiser.schedule) == (0.2, "constant")
    assert mixed.optimiser.head_lr != 0.5
    assert (mixed.budget.patience, mixed.budget.validation_rows, mixed.budget.steps) == (None, 50, None)
    assert mixed.budget.evaluations != 9


def test_what_earlier_feedback_judged_leaves_the_old_rows_too(desk_base, current, tmp_path):
    write_corrections(tmp_path / "corrections")
    judged = rows(360, 1)[0]["text"]
    (tmp_path / "before").mkdir()
    write_jsonl(tmp_path / "before" / "intent.train.jsonl", [{"text": judged, "label": "transfer"}])
    old = {"recipe": str(desk_base / "base.yaml"), "data": str(desk_base), "feedback": ["before"]}
    mix = mix_of(write_job(tmp_path, desk_base, old=old), current)
    assert [e.labels for e in mix.replayed("intent") if e.text == judged] == [("transfer",)]
    assert judged not in {e.text for e in mix.replayed("topics")}


def test_texts_that_the_feedback_holds_out_are_not_held_on_to(desk_base, current, tmp_path):
    """Yesterday's requests hold them, too: their answers are what people called wrong."""
    write_corrections(tmp_path / "corrections")
    held_out = [json.loads(line)["text"] for line in (tmp_path / "corrections/intent.heldout.jsonl").open()]
    requests = [{"text": spelled_otherwise(text)} for text in held_out] + [{"text": f"other {n}"} for n in range(60)]
    write_jsonl(tmp_path / "requests.jsonl", requests)
    mix = mix_of(write_job(tmp_path, desk_base, old=None, hold={"texts": ["requests.jsonl"]}), current)
    answers = CurrentAnswers(desk_base / "desk", [current.tasks["intent"]], mix.texts())
    parts = answers.to_hold(current.tasks["intent"], mix.corrections["intent"])
    texts = {row["text"] for part in parts.values() for row in part}
    assert not texts & {row["text"] for row in requests[: len(held_out)]}
    assert len(texts & {row["text"] for row in requests[len(held_out) :]}) > 30
    assert not set(texts_to_agree_on(mix).get("intent", ())) & {row["text"] for row in requests[: len(held_out)]}


def test_an_answer_that_people_corrected_is_not_held_on_to_in_another_spelling(desk_base, current, tmp_path):
    """Neither today's correction nor an earlier one; answers to texts with a new label are held on to as uncertain."""
    for name, label, texts in (("corrections", "transfer", ["Move it"]), ("before", "lost", ["My Card"])):
        (tmp_path / name).mkdir()
        more = [{"text": f"{name} {label} {n}", "label": label} for n in range(5)]
        write_jsonl(tmp_path / name / "intent.train.jsonl", [*({"text": t, "label": label} for t in texts), *more])
    write_jsonl(
        tmp_path / "usual.jsonl", [{"text": text} for text in ("move  IT", "my card ", "hello", "HELLO", "you")]
    )
    old = {"feedback": ["before"]}
    mix = mix_of(write_job(tmp_path, desk_base, old=old, hold={"texts": ["usual.jsonl"]}), current)
    assert {"hello", "HELLO"} & {*mix.texts()} == {"hello"}
    parts = CurrentAnswers(desk_base / "desk", [current.tasks["intent"]], mix.texts()).to_hold(
        current.tasks["intent"], mix.corrections["intent"], mix.earlier["intent"]
    )
    held = {row["text"] for part in parts.values() for row in part}
    assert held <= {"hello", "you"}
    assert not {*texts_to_agree_on(mix).get("intent", ())} - {"hello", "you"}


@pytest.mark.parametrize("with_old_data", [True, False])
def test_a_retraining_keeps_the_agents_that_answer_a_task_by_default(desk_base, current, tmp_path, with_old_data):
    """Also of a manifest of an earlier version, which lists none and means the analysis of a task called sentiment."""
    write_corrections(tmp_path / "corrections")
    write_jsonl(tmp_path / "usual.jsonl", [{"text": f"usual {n}"} for n in range(20)])
    old = {"recipe": str(desk_base / "base.yaml"), "data": str(desk_base)} if with_old_data else None
    mix = mix_of(write_job(tmp_path, desk_base, old=old, hold={"texts": ["usual.jsonl"]}), current)
    listing = {"intent": None, "places": ["triage"], "topics": ["classification", "analysis"]}
    tasks = [spec.model_copy(update={"default_for": listing[spec.name]}) for spec in mix.manifest.tasks]
    (tmp_path / "mixed").mkdir()
    mix = replace(mix, manifest=mix.manifest.model_copy(update={"tasks": tasks}))
    write_mix(mix, desk_base / "desk", tmp_path / "mixed")
    written = load_recipe(tmp_path / "mixed" / "recipe.yaml").tasks
    assert {name: task.default_for for name, task in written.items()} == {**listing, "intent": ["classification"]}
    sentiment = tasks[0].model_copy(update={"name": "sentiment", "default_for": None, "kind": "classification"})
    assert listed_agents(sentiment) == ["classification", "analysis"]


@pytest.mark.parametrize("text", [f"Text {n}" for n in range(20)])
def test_a_text_is_kept_apart_in_every_spelling_or_in_none(text):
    assert is_kept_apart(text) == is_kept_apart(spelled_otherwise(text)) == is_kept_apart(f" {text} ")


def test_each_feedback_and_each_version_replays_other_old_rows_and_a_resumed_run_the_same(desk_base, current, tmp_path):
    write_corrections(tmp_path / "corrections")
    job = write_job(tmp_path, desk_base)

    def drawn(mix: Mix) -> set[str]:
        return {example.place for example in mix.replayed("places")}

    first, again = mix_of(job, current), mix_of(job, current)
    assert drawn(first) == drawn(again)
    version = current.manifest.model_copy(update={"version": 2})
    value = read_job(job).value
    later = plan_mix(value, version, first.corrections)
    assert drawn(later) != drawn(first)
    write_corrections(tmp_path / "corrections", train=61)
    assert drawn(mix_of(job, current)) != drawn(first)


def test_files_that_changed_since_a_run_began_are_named(desk_base, tmp_path):
    write_corrections(tmp_path / "corrections")
    write_corrections(tmp_path / "before")
    write_jsonl(tmp_path / "usual.jsonl", [{"text": "hello"}])
    write_jsonl(tmp_path / "own.jsonl", [{"text": "hello", "label": "lost"}])
    for name in ("train.jsonl", "test.jsonl", "base.yaml"):
        (tmp_path / name).write_bytes((desk_base / name).read_bytes())
    old = {"recipe": "base.yaml", "feedback": ["before"]}
    gate = {"reports": {"intent": {"own": {"rows": "own.jsonl"}}}}
    job = write_job(tmp_path, desk_base, old=old, hold={"texts": ["usual.jsonl"]}, gate=gate)
    before = digest_files(read_job(job).value)
    refuse_changed_files(tmp_path, before, digest_files(read_job(job).value))
    named = ["train.jsonl", "test.jsonl", "base.yaml", "before/intent.train.jsonl", "before/intent.heldout.jsonl"]
    for name in (*named, "usual.jsonl", "own.jsonl"):
        content = (tmp_path / name).read_text()
        (tmp_path / name).write_text(content + "\n")
        with pytest.raises(SetupError, match=rf"{name}: changed since the run in .* began, .* --work"):
            refuse_changed_files(tmp_path, before, digest_files(read_job(job).value))
        (tmp_path / name).write_text(content)


def test_a_candidate_of_another_run_from_the_same_version_is_counted_where_a_gate_has_judged_it(
    desk_base, current, tmp_path
):
    write_corrections(tmp_path / "corrections")
    sets = [held for held in held_out_sets(mix_of(write_job(tmp_path, desk_base), current)) if held.name == "test"]
    facts = {
        "refused": "this version",
        "earlier": "another version",
        "unfinished": "this version",
        "own": "this version",
    }
    for run, identity in facts.items():
        for stage in ("current", "gate", "evaluate"):
            (tmp_path / "runs" / run / stage).mkdir(parents=True)
        (tmp_path / "runs" / run / "current" / "done.json").write_text(json.dumps({"identity": identity}))
        if run != "unfinished":
            (tmp_path / "runs" / run / "gate" / "done.json").write_text('{"passed": false}')
        shutil.copytree(desk_base / "desk", tmp_path / "runs" / run / "evaluate" / "model")
        write_versions(tmp_path / "runs" / run / "evaluate" / "model", count_versions(desk_base / "desk", sets))
    found = find_judged_candidates(tmp_path / "runs" / "own", "this version")
    assert found == [tmp_path / "runs" / "refused" / "evaluate" / "model"]
    assert {each.versions for each in count_versions(desk_base / "desk", sets, others=found).values()} == {2}
    other = [replace(held, examples=[replace(e, text=f"other {e.text}") for e in held.examples]) for held in sets]
    assert {each.versions for each in count_versions(desk_base / "desk", other, others=found).values()} == {1}


def test_a_set_goes_on_counting_versions_when_some_of_its_rows_leave_and_begins_anew_with_other_rows(
    desk_base, current, tmp_path
):
    write_corrections(tmp_path / "corrections")
    sets = [held for held in held_out_sets(mix_of(write_job(tmp_path, desk_base), current)) if held.name == "test"]
    shutil.copytree(desk_base / "desk", tmp_path / "model")
    assert {each.versions for each in count_versions(tmp_path / "model", sets).values()} == {1}
    write_versions(tmp_path / "model", count_versions(tmp_path / "model", sets))
    fewer = [replace(held, examples=held.examples[20:]) for held in sets]
    assert {each.versions for each in count_versions(tmp_path / "model", fewer).values()} == {2}
    other = [
        replace(held, examples=[replace(e, text=f"{e.text} {n}") for n, e in enumerate(held.examples)]) for held in sets
    ]
    assert {each.versions for each in count_versions(tmp_path / "model", other).values()} == {1}
