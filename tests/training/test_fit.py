import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from tiny_training import RECIPE, rows, write_jsonl

from murmura.runtime.errors import SetupError
from murmura.schemas.manifest import Calibration, ThresholdRows
from murmura.training.fit.loop import Progress, fit
from murmura.training.model.encoders import load
from murmura.training.run_folders.run_folder import RunFolder

WriteRecipe = Callable[..., Path]
INTENT = {"intent": RECIPE["tasks"]["intent"]}


def test_all_three_kinds_are_learned_together(run: Path) -> None:
    record = RunFolder(run).record()
    assert {name: score["main"] > 0.95 for name, score in record.validation.items()} == dict.fromkeys(
        RECIPE["tasks"], True
    )
    assert record.best_step > 0
    trained_on = {name: report.parts["train"].tokens for name, report in record.data.items()}
    assert {name: tokens.unknown for name, tokens in trained_on.items() if tokens} == dict.fromkeys(
        RECIPE["tasks"], 0.0
    )
    assert record.data["intent"].overlap["test"]["train"].exact > 0


def test_thresholds_are_chosen_where_there_is_something_to_choose_on(run: Path) -> None:
    specs = {spec.name: spec for spec in RunFolder(run).record().tasks}
    assert specs["intent"].out_of_scope == "other"
    assert specs["intent"].thresholds.out_of_scope is not None
    assert specs["intent"].thresholds.accept is None
    assert 0 < specs["topics"].thresholds.label < 1


def test_the_rows_that_a_threshold_was_chosen_on_are_counted(run: Path) -> None:
    record = RunFolder(run).record()
    parts = {name: report.parts["validation"] for name, report in record.data.items()}
    rows = {spec.name: spec.threshold_rows for spec in record.tasks}
    assert rows["places"] is None
    assert rows["intent"] == ThresholdRows(
        genuine=parts["intent"].labels["lost"] + parts["intent"].labels["transfer"],
        others=parts["intent"].labels["other"],
    )
    assert rows["topics"] is not None
    assert rows["topics"].genuine + rows["topics"].others == parts["topics"].rows
    assert min(rows["topics"].genuine, rows["topics"].others) > 0


def test_every_kind_is_calibrated_and_the_rows_for_it_are_counted(run: Path) -> None:
    for spec in RunFolder(run).record().tasks:
        assert spec.calibration_rows in range(34, 39)
        assert spec.calibration != Calibration()


def test_validation_rows_without_spans_have_no_vote(data: Path, tmp_path: Path, write_recipe: WriteRecipe) -> None:
    write_jsonl(tmp_path / "talk.jsonl", [{"text": "tell me a joke", "spans": []}] * 3)
    places = {**RECIPE["tasks"]["places"], "validation": "./talk.jsonl"}
    recipe = write_recipe(budget={"steps": 4, "evaluations": 2}, tasks={**INTENT, "places": places})
    record = fit(recipe, data, tmp_path / "run", quiet=True)
    assert record.validation["places"] == {}
    assert record.validation["intent"]["main"] > 0


def test_tensorboard_can_be_watched(run: Path) -> None:
    assert list((run / "tensorboard" / "tiny").glob("events.*"))


def test_the_same_seed_gives_the_same_weights(data: Path, tmp_path: Path, write_recipe: WriteRecipe) -> None:
    recipe = write_recipe(budget={"steps": 4, "evaluations": 1}, tasks=INTENT)
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        fit(recipe, data, tmp_path / name, seed=seed, quiet=True)
    a, b, c = (load_file(tmp_path / name / "checkpoint.safetensors") for name in "abc")
    assert all(np.array_equal(a[key], b[key]) for key in a)
    assert not all(np.array_equal(a[key], c[key]) for key in a)


def test_lora_trains_factors_and_heads_alone(data: Path, base: Path, tmp_path: Path, write_recipe: WriteRecipe) -> None:
    recipe = write_recipe(encoder=str(base), lora={"rank": 4}, budget={"steps": 6, "evaluations": 1}, tasks=INTENT)
    record = fit(recipe, data, tmp_path / "run", quiet=True)
    kept = load_file(tmp_path / "run" / "checkpoint.safetensors")
    assert record.low_rank
    assert {name.split("/")[0].split(".")[0] for name in kept} == {"low_rank", "heads"}
    linear_layers = 2 * 6
    assert sum(name.endswith("/a") for name in kept) == linear_layers
    assert kept["low_rank/encoder.layer.0.intermediate.dense.weight/a"].shape == (4, 32)
    assert np.abs(kept["low_rank/encoder.layer.0.intermediate.dense.weight/b"]).max() > 0


def test_a_run_ends_early_when_it_gets_no_better(data: Path, tmp_path: Path, write_recipe: WriteRecipe) -> None:
    still = {"encoder_lr": 1e-12, "head_lr": 1e-12}
    recipe = write_recipe(optimiser=still, budget={"steps": 40, "evaluations": 20, "patience": 2}, tasks=INTENT)
    record = fit(recipe, data, tmp_path / "run", quiet=True)
    assert (record.steps, record.planned_steps, record.best_step) == (6, 40, 6)


def test_the_best_checkpoint_is_kept_and_not_the_last(
    data: Path, tmp_path: Path, write_recipe: WriteRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    from murmura.training.kinds.classification import Classification

    told = iter([0.2, 0.9, 0.5])
    saved: list[int] = []
    monkeypatch.setattr(Classification, "metrics", lambda *_: {"main": next(told)})
    write = RunFolder.save_weights
    monkeypatch.setattr(RunFolder, "save_weights", lambda *args: saved.append(len(saved)) or write(*args))
    recipe = write_recipe(budget={"steps": 6, "evaluations": 3}, tasks=INTENT)
    record = fit(recipe, data, tmp_path / "run", quiet=True)
    assert (record.best_step, len(saved)) == (4, 2)


def test_chinese_under_an_english_checkpoint_stops_the_run(
    base: Path, tmp_path: Path, write_recipe: WriteRecipe
) -> None:
    items = [{"text": text, "label": label} for text, label in (("我的卡丢了", "a"), ("今天天气好", "b"))] * 20
    write_jsonl(tmp_path / "zh.jsonl", items)
    tasks = {"zh": {"train": "zh.jsonl"}}
    recipe = write_recipe(encoder=str(base), tasks=tasks)
    with pytest.raises(SetupError, match="zh 100%"):
        fit(recipe, tmp_path, tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()
    allowed = write_recipe("b", encoder=str(base), tasks=tasks, allow_unknown=True, budget={"steps": 1})
    fit(allowed, tmp_path, tmp_path / "run", quiet=True)


def test_more_tokens_than_the_encoder_has_positions_are_refused(
    data: Path, tmp_path: Path, write_recipe: WriteRecipe
) -> None:
    with pytest.raises(SetupError, match="max_tokens: 33 is more than the encoder's max_positions 32"):
        fit(write_recipe(max_tokens=33), data, tmp_path / "run", quiet=True)


def test_a_loss_that_is_not_finite_ends_the_run(data: Path, tmp_path: Path, write_recipe: WriteRecipe) -> None:
    recipe = write_recipe(tasks=INTENT, optimiser={"encoder_lr": 1e30})
    with pytest.raises(
        SetupError, match=r"step \d+: the loss of task intent is nan on .*train\.jsonl:\d+, .* and 27 more"
    ):
        fit(recipe, data, tmp_path / "run", quiet=True)


def test_words_that_training_never_saw_keep_their_vectors(
    data: Path, base: Path, tmp_path: Path, write_recipe: WriteRecipe
) -> None:
    write_jsonl(tmp_path / "few.jsonl", [{"text": t, "label": t[-1]} for t in ("my card a", "my money b") * 10])
    recipe = write_recipe(encoder=str(base), tasks={"x": {"train": "few.jsonl"}}, budget={"steps": 5})
    fit(recipe, tmp_path, tmp_path / "run", quiet=True)
    name = "embeddings.word_embeddings.weight"
    before, after = load(str(base)).weights[name], load_file(tmp_path / "run" / "checkpoint.safetensors")[name]
    tokenizer = load(str(base)).tokenizer
    changed = np.flatnonzero((before != after).any(-1))
    assert before.shape == after.shape
    met = {*tokenizer.encode("my card a money b").tokens, "[UNK]"}
    assert {"card", "money"} <= {tokenizer.id_to_token(i) for i in changed} <= met


def test_a_folder_that_is_not_a_run_is_left_alone(data: Path, tmp_path: Path, write_recipe: WriteRecipe) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(SetupError, match="not empty and not a run of ours"):
        fit(write_recipe(), data, tmp_path / "mine", quiet=True)


def test_an_unlearned_out_of_scope_label_sets_the_accept_threshold(tmp_path: Path, write_recipe: WriteRecipe) -> None:
    write_jsonl(tmp_path / "train.jsonl", rows(240, 1))
    task = {"train": "train.jsonl", "out_of_scope": {"label": "other", "learn": False}}
    recipe = write_recipe(tasks={"intent": task}, budget={"steps": 40, "evaluations": 1})
    (spec,) = fit(recipe, tmp_path, tmp_path / "run", quiet=True).tasks
    assert spec.labels == ["lost", "transfer"]
    assert spec.out_of_scope is None
    assert spec.thresholds.accept is not None
    assert spec.threshold_rows is not None
    assert spec.threshold_rows.others == 80


def test_thresholds_can_be_chosen_on_a_file_of_ones_own(data: Path, tmp_path: Path, write_recipe: WriteRecipe) -> None:
    own = [{"text": "my card is lost", "label": "lost"}, {"text": "tell me a joke", "label": "other"}]
    write_jsonl(tmp_path / "own.jsonl", own)
    task = {**INTENT["intent"], "thresholds": {"data": "./own.jsonl"}}
    recipe = write_recipe(tasks={"intent": task}, budget={"steps": 40, "evaluations": 1})
    (spec,) = fit(recipe, data, tmp_path / "run", quiet=True).tasks
    assert spec.thresholds.out_of_scope is not None
    assert spec.threshold_rows == ThresholdRows(genuine=1, others=1)
    write_jsonl(tmp_path / "own.jsonl", own[:1])
    with pytest.raises(SetupError, match=r"thresholds\.data: needs rows labelled 'other' and others; 0 of 1 are"):
        fit(recipe, data, tmp_path / "run", quiet=True)


def test_the_record_is_plain_json(run: Path) -> None:
    assert json.loads((run / "run.json").read_text())["name"] == "tiny"


def test_whoever_listens_hears_the_loss_between_two_scorings(
    data: Path, tmp_path: Path, write_recipe: WriteRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("murmura.training.fit.loop.PROGRESS_S", 0.0)
    recipe = write_recipe(budget={"steps": 4, "evaluations": 2}, tasks=INTENT)
    heard: list[Progress] = []
    fit(recipe, data, tmp_path / "run", quiet=True, on_progress=heard.append)
    assert [(each.step, bool(each.metrics)) for each in heard] == [(1, False), (2, True), (3, False), (4, True)]
    assert all(each.loss["intent"] > 0 for each in heard)
