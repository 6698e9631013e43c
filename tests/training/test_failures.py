"""What ends a training from outside gets one line, and what was saved stays whole."""

import json
import math
import re
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest
import torch
from cli_in_process import refused_here
from full_disk import no_room
from safetensors import safe_open
from safetensors.numpy import save_file
from tiny_replies import TASK as REPLY
from tiny_replies import reply_rows
from tiny_training import RECIPE, write_jsonl

from murmura.runtime.errors import SetupError
from murmura.training.compute import state_file
from murmura.training.export.export import export
from murmura.training.fit import loop
from murmura.training.fit.loop import fit
from murmura.training.fit.setup import Fitting
from murmura.training.fit.steps import gradient
from murmura.training.fit.steps.failed_step import describe_memory
from murmura.training.pretrain.network import Network
from murmura.training.run_folders import os_errors, run_folder
from murmura.training.run_folders.curves import Curves
from murmura.training.run_folders.os_errors import as_os_error
from murmura.training.run_folders.run_folder import WEIGHTS, RunFolder
from murmura.training.search import run as search
from murmura.training.search.plan import open_plan

WriteRecipe = Callable[..., Path]
TWO = {name: RECIPE["tasks"][name] for name in ("intent", "places")}
NAN: dict[str, Any] = {"class_weights": {"lost": 1e39}, "focal": 1e9}
"""Infinite as a number of the loss, times nothing: what the rows of one label lose is no number."""
SHORT: dict[str, Any] = {"budget": {"steps": 8, "evaluations": 1}, "trackers": [], "probe": False, "tasks": TWO}


def take_too_much(*_: Any, **__: Any) -> NoReturn:
    torch.empty(10**14)
    raise AssertionError("there was so much memory")


def test_a_full_disk_leaves_the_last_state_whole_and_the_run_goes_on_to_the_same_bytes(
    few: Path, tmp_path: Path, write_recipe: WriteRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_recipe(save_minutes=0, dropout=0.1, **SHORT)
    fit(path, few, tmp_path / "whole", quiet=True)
    write, written = state_file.save_file, []  # type: ignore[attr-defined]

    def fill_the_disk(tensors: Any, file: Path, metadata: Any) -> None:
        written.append(file)
        with no_room() if len(written) == 5 else nullcontext():
            write(tensors, file, metadata=metadata)

    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(state_file, "save_file", fill_the_disk)
        with pytest.raises(
            SetupError,
            match=r"a file is larger than may be written there: .*run/state\.safetensors\.part.* is whole: .*--resume",
        ):
            fit(path, few, run, quiet=True)
    with safe_open(run / "state.safetensors", framework="np") as file:
        assert json.loads(file.metadata()["position"])["standing"]["step"] == 4
    fit(path, few, run, quiet=True, resume=True)
    assert (run / WEIGHTS).read_bytes() == (tmp_path / "whole" / WEIGHTS).read_bytes()


def test_a_search_on_a_full_disk_ends_and_takes_the_same_values_again(
    few: Path, tmp_path: Path, write_recipe: WriteRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuned = {"space": {"dropout": [0.0, 0.3]}, "trials": 2}
    plan = open_plan(write_recipe(**SHORT, tune=tuned), few, tmp_path / "study", say=lambda line: None)
    monkeypatch.setattr(search, "make_page", lambda *given: "")
    write = run_folder.save_file  # type: ignore[attr-defined]

    def fill_the_disk(arrays: Any, file: Path) -> None:
        with no_room():
            write(arrays, file)

    with monkeypatch.context() as patch:
        patch.setattr(run_folder, "save_file", fill_the_disk)
        with pytest.raises(
            SetupError,
            match=r"a file is larger than may be written there: .*checkpoint\.safetensors\.part.*same command goes on",
        ):
            search.run_study(plan, quiet=True, say=lambda line: None)
    trials = search.run_study(plan, quiet=True, say=lambda line: None).trials
    assert [each.state for each in trials] == ["died", "complete", "complete"]
    assert trials[0].params == trials[1].params != {}


def test_a_command_on_a_full_disk_ends_with_one_line(run: Path, tmp_path: Path) -> None:
    with no_room():
        assert "a file is larger than may be written there: " in refused_here(
            "export", run, "--out", tmp_path / "model"
        )
    assert not list(tmp_path.iterdir())


def test_what_safetensors_says_of_a_full_disk_is_an_error_of_the_system(tmp_path: Path) -> None:
    with no_room(), pytest.raises(OSError, match="too large") as caught, as_os_error(tmp_path / "a"):
        save_file({"a": torch.zeros(10_000).numpy()}, tmp_path / "a")
    assert caught.value.filename == str(tmp_path / "a")


def test_a_file_that_a_full_disk_does_not_take_is_named_whatever_writes_it(
    few: Path, run: Path, tmp_path: Path, write_recipe: WriteRecipe
) -> None:
    with (
        no_room(),
        pytest.raises(SetupError, match=r"a file is larger than may be written there: .*/new/tokenizer\.json'"),
    ):
        fit(write_recipe(**SHORT), few, tmp_path / "new", quiet=True)
    with no_room((run / WEIGHTS).stat().st_size + 100), pytest.raises(OSError, match=r"/model\.ragged\.onnx'"):
        export(run, tmp_path / "model")
    folder = RunFolder(Path(shutil.copytree(run, tmp_path / "run")))
    record, before = folder.record(), (folder.path / "run.json").read_bytes()
    with no_room(100), pytest.raises(OSError, match=r"/run/run\.json\.part'"):
        folder.save_record(record)
    assert (folder.path / "run.json").read_bytes() == before
    with no_room((run / "curves.jsonl").stat().st_size), pytest.raises(OSError, match=r"/run/curves\.jsonl'"):
        Curves(folder.path).add(1, {"loss": 1.0})


def test_each_file_that_training_writes_is_written_so_that_errors_name_it() -> None:
    folder = Path(os_errors.__file__).parents[1]
    unnamed = re.compile(r"\.write_(text|bytes)\(|\.save\(str\(|open_memmap")
    others = [path for path in folder.rglob("*.py") if path != Path(os_errors.__file__)]
    assert [path.name for path in others if unnamed.search(path.read_text(encoding="utf-8"))] == []


def test_a_step_beyond_the_memory_names_its_rows_its_length_and_what_to_lower(
    few: Path, tmp_path: Path, write_recipe: WriteRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gradient, "task_losses", take_too_much)
    expected = (
        r"^step 1: out of memory with 32 rows \(intent 16, places 16\), the longest of \d+ tokens; lower batch_size \(32\) or "
        r"max_tokens \(24\), or raise accumulate \(1\): .*allocate memory"
    )
    with pytest.raises(SetupError, match=expected):
        fit(write_recipe(**SHORT), few, tmp_path / "run", quiet=True)


def test_a_step_of_a_pretraining_beyond_the_memory_does_so_too(
    few: Path, tmp_path: Path, write_recipe: WriteRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Network, "encode", take_too_much)
    path = write_recipe(pretrain={"objectives": ["masked_words"], "steps": 2}, **SHORT)
    expected = (
        r"^pretrain: step 1: out of memory with 32 rows of masked_words, .* lower pretrain.batch_size \(32\) or max_"
    )
    with pytest.raises(SetupError, match=expected):
        fit(path, few, tmp_path / "run", quiet=True)


def test_the_places_of_all_texts_of_a_step_of_a_pretraining_that_is_not_finite_are_saved(
    few: Path, tmp_path: Path, write_recipe: WriteRecipe
) -> None:
    path = write_recipe(pretrain={"objectives": ["masked_words"], "steps": 4, "lr": 1e38}, precision="fp32", **SHORT)
    expected = r"^pretrain: step \d: the loss of masked_words is nan on .*; all texts of the step: .*failed_step\.json$"
    with pytest.raises(SetupError, match=expected):
        fit(path, few, tmp_path / "run", quiet=True)
    (saved,) = (json.loads(file.read_text()) for file in (tmp_path / "run").rglob("failed_step.json"))
    assert (saved["objective"], saved["losses"]) == ("masked_words", {"masked_words": "nan"})
    assert len(saved["rows"]["masked_words"]) == 32
    assert all("train.jsonl:" in place for place in saved["rows"]["masked_words"])


def test_so_are_those_of_a_step_of_a_pretraining_whose_gradient_alone_is_not_finite(
    few: Path, tmp_path: Path, write_recipe: WriteRecipe
) -> None:
    objectives = {"masked_words": 1e38}
    path = write_recipe(pretrain={"objectives": objectives, "steps": 4}, precision="fp32", **SHORT)
    expected = r"^pretrain: step 1: the gradient is inf on masked_words: .*train\.jsonl:\d+.* and 27 more texts; .*failed_step\.json$"
    with pytest.raises(SetupError, match=expected):
        fit(path, few, tmp_path / "run", quiet=True)
    (saved,) = (json.loads(file.read_text()) for file in (tmp_path / "run").rglob("failed_step.json"))
    assert (saved["objective"], saved["gradient"], len(saved["rows"]["masked_words"])) == (None, "inf", 32)


TEXTS: dict[str, dict[str, Any]] = {
    "with texts": {},
    "no texts by the command": {"texts": False},
    "no texts by the recipe": {"report": {"texts": False}},
}


@pytest.mark.parametrize("keys", TEXTS.values(), ids=TEXTS)
def test_all_rows_of_a_step_that_is_not_finite_are_saved(
    few: Path, tmp_path: Path, write_recipe: WriteRecipe, keys: dict[str, Any]
) -> None:
    recipe = {"report": keys["report"]} if "report" in keys else {}
    path = write_recipe(
        **SHORT | recipe | {"tasks": {"intent": {**TWO["intent"], "class_weights": {"lost": 1e36, "transfer": 1e36}}}}
    )
    with pytest.raises(SetupError, match=r"step 1: the gradient is inf .*; all rows of the step: .*failed_step\.json$"):
        fit(path, few, tmp_path / "run", quiet=True, texts=keys.get("texts", True))
    saved = json.loads((tmp_path / "run" / "failed_step.json").read_text())
    assert (saved["step"], saved["task"], saved["gradient"]) == (1, None, "inf")
    assert len(saved["rows"]["intent"]) == 32
    by_place = {f"train.jsonl:{n}": json.loads(line) for n, line in _lines(few / "train.jsonl")}
    for row in saved["rows"]["intent"]:
        given = by_place[Path(row.pop("place")).name]
        assert row == ({} if keys else {"given": given["text"], "labels": [given["label"]]})


def test_the_rows_of_a_step_are_saved_with_the_task_whose_loss_is_no_number(
    few: Path, tmp_path: Path, write_recipe: WriteRecipe
) -> None:
    intent = {**TWO["intent"], **NAN}
    with pytest.raises(
        SetupError, match=r"^step 1: the loss of task intent is nan on .* and 11 more rows; .*step\.json$"
    ):
        fit(write_recipe(**SHORT | {"tasks": {**TWO, "intent": intent}}), few, tmp_path / "run", quiet=True)
    saved = json.loads((tmp_path / "run" / "failed_step.json").read_text())
    assert (saved["step"], saved["task"], saved["losses"]["intent"]) == (1, "intent", "nan")
    assert math.isfinite(float(saved["losses"]["places"]))
    assert {name: len(rows) for name, rows in saved["rows"].items()} == {"intent": 16, "places": 16}
    lines = {f"train.jsonl:{n}": json.loads(line) for n, line in _lines(few / "train.jsonl")}
    for row in saved["rows"]["intent"]:
        line = lines[Path(row.pop("place")).name]
        assert row == {"given": line["text"], "labels": [line["label"]]}


@pytest.mark.parametrize("texts", [True, False])
def test_a_trial_of_a_search_that_ends_so_saves_its_rows_in_the_study(
    few: Path, tmp_path: Path, write_recipe: WriteRecipe, texts: bool
) -> None:
    tuned = {"space": {"tasks.intent.focal": [1.0, 1e9]}, "trials": 2, "sampler": "random"}
    intent = {**TWO["intent"], "class_weights": NAN["class_weights"]}
    path = write_recipe(**SHORT | {"tune": tuned, "report": {"texts": texts}, "tasks": {"intent": intent}})
    plan = open_plan(path, few, tmp_path / "study", say=lambda line: None)
    trials = search.run_study(plan, quiet=True, say=lambda line: None).trials
    assert [each.state for each in trials] == ["failed", "failed"]
    for trial in trials:
        file = tmp_path / "study" / f"trial_{trial.number}_failed_step.json"
        assert trial.error.endswith(f"; all rows of the step: {file}")
        saved = json.loads(file.read_text())
        assert (saved["step"], saved["task"], len(saved["rows"]["intent"])) == (1, "intent", 32)
        assert all(("given" in row) == texts for row in saved["rows"]["intent"])


def test_a_saved_row_has_the_answer_of_its_kind(few: Path, tmp_path: Path, write_recipe: WriteRecipe) -> None:
    replies = reply_rows(40, 1)
    write_jsonl(few / "replies.jsonl", replies)
    tasks = {"places": {**TWO["places"], "loss_weight": 1e38}, "reply": REPLY}
    with pytest.raises(SetupError, match="all rows of the step"):
        fit(write_recipe(**SHORT | {"tasks": tasks}), few, tmp_path / "run", quiet=True)
    saved = json.loads((tmp_path / "run" / "failed_step.json").read_text())["rows"]
    lines = {f"train.jsonl:{n}": json.loads(line) for n, line in _lines(few / "train.jsonl")}
    for row in saved["places"]:
        line = lines[Path(row.pop("place")).name]
        assert row == {"given": line["text"], "spans": line["spans"]}
    for row in saved["reply"]:
        line = replies[int(row.pop("place").rpartition(":")[2]) - 1]
        assert row["given"][1].endswith(line["turns"][0]["text"])
        assert row == {"given": row["given"], "reply": line["reply"]}


def test_the_rows_of_a_failed_step_are_gone_when_the_run_has_ended_or_begins_anew(
    few: Path, tmp_path: Path, write_recipe: WriteRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, run, learn = write_recipe(save_minutes=0, **SHORT), tmp_path / "run", loop.compute_gradient

    def fail_at_step_5(fitting: Fitting, *given: Any, **keys: Any) -> Any:
        found = learn(fitting, *given, **keys)
        return replace(found, norm=math.nan) if fitting.standing.step == 4 else found

    def fail() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(loop, "compute_gradient", fail_at_step_5)
            with pytest.raises(SetupError, match="step 5: the gradient is nan"):
                fit(path, few, run, quiet=True)
        assert (run / "failed_step.json").is_file()

    fail()
    fit(path, few, run, quiet=True, resume=True)
    assert not (run / "failed_step.json").exists()
    shutil.rmtree(run)
    fail()
    monkeypatch.setattr(loop, "train_all", interrupt)
    with pytest.raises(KeyboardInterrupt):
        fit(path, few, run, quiet=True)
    assert not (run / "failed_step.json").exists()


def interrupt(*_: Any, **__: Any) -> NoReturn:
    raise KeyboardInterrupt


def test_of_several_processes_one_that_runs_out_of_memory_counts_its_own_rows(
    few: Path, open_run: Callable[..., Fitting]
) -> None:
    run = open_run(few)
    run.accelerator = SimpleNamespace(process_index=1, num_processes=2)  # type: ignore[assignment]
    said = describe_memory(run, 3, [(0, [0, 1, 2, 3, 4])])
    assert said[0].startswith("step 3: out of memory with 2 rows (intent 2) in one of 2 processes, the longest of ")
    longest = max(run.train[0].lengths[row] for row in (1, 3))
    assert said[0].endswith(f"the longest of {longest} tokens")


def _lines(path: Path) -> list[tuple[int, str]]:
    return list(enumerate(path.read_text().splitlines(), 1))
