"""The second stage of a task that generates: what it learns from, when it is kept, and how it goes on after an interruption."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from stopped_training import Stopped
from tiny_replies import REPLIES, TASK, reply_rows
from tiny_training import RECIPE, write_jsonl

from murmura.runtime.errors import SetupError
from murmura.training.fit.finish import second_stage
from murmura.training.fit.finish.second_stage_state import StageState, save_stage
from murmura.training.fit.loop import fit
from murmura.training.kinds.replies.rewards import advantages, compute_reward, sentence_bleu, slot_f1
from murmura.training.recipe.keys.objective import Objective
from murmura.training.recipe.recipe import load_recipe
from murmura.training.run_folders.run_folder import SECOND_STAGE, STATE, RunFolder

STAGE = {"steps": 4, "samples": 2, "reward": ["bleu", "rouge_l", "slots"], "lr": 1e-3}
BUDGET = {"steps": 3, "evaluations": 1}
WORDS = st.lists(st.sampled_from(["a", "b", "{city}", "."]), max_size=6).map(" ".join)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_jsonl(folder / "replies.jsonl", reply_rows(60, 0))
    return folder


def train(data: Path, folder: Path, *, objective: dict[str, Any] | None, name: str = "run", **given: Any) -> RunFolder:
    folder.mkdir(exist_ok=True)
    task = TASK | ({"objective": objective} if objective else {})
    recipe = REPLIES | {"tasks": {"reply": task}, "budget": BUDGET, "save_minutes": 0, "batch_size": 8}
    (folder / "model.yaml").write_text(yaml.safe_dump(recipe))
    fit(folder / "model.yaml", data, folder / name, quiet=True, **given)
    return RunFolder(folder / name)


def assert_equal(one: RunFolder, other: RunFolder) -> None:
    first, second = one.weights(), other.weights()
    assert first.keys() == second.keys()
    assert all(np.array_equal(first[name], second[name]) for name in first)


@pytest.fixture(scope="module")
def kept(data: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Return a run whose second stage was kept."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(second_stage, "allows", lambda *_: True)
        return train(data, tmp_path_factory.mktemp("kept"), objective=STAGE)


def test_an_interrupted_second_stage_goes_on_to_the_same_weights(
    data: Path, kept: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(second_stage, "allows", lambda *_: True)

    def stop(state: StageState, step: int) -> None:
        save_stage(state, step)
        if step == 2:
            raise Stopped

    with monkeypatch.context() as patched:
        patched.setattr(second_stage, "save_stage", stop)
        with pytest.raises(Stopped):
            train(data, tmp_path, objective=STAGE, name="parts")
    taken: list[int] = []
    with monkeypatch.context() as patched:
        patched.setattr(second_stage, "save_stage", lambda state, step: taken.append(step))
        parts = train(data, tmp_path, objective=STAGE, name="parts", resume=True)
    assert taken == [3, 4]
    assert_equal(kept, parts)
    assert not any((parts.path / name).exists() for name in (STATE, SECOND_STAGE))


def test_a_second_stage_changes_the_decoder_alone_and_only_where_validation_allows_it(
    data: Path, kept: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = train(data, tmp_path / "without", objective=None)
    monkeypatch.setattr(second_stage, "allows", lambda *_: False)
    refused = train(data, tmp_path / "refused", objective=STAGE)
    for run, said in ((kept, ": kept"), (refused, ": not kept")):
        (note,) = [each for each in run.record().data["reply"].notes if "second stage" in each]
        assert note.endswith(said)
        assert all(name in note for name in ("BLEU", "ROUGE-L", "different replies"))
    assert_equal(before, refused)
    one, other = before.weights(), kept.weights()
    changed = {name.split(".")[0] for name in one if not np.array_equal(one[name], other[name])}
    assert changed == {"heads"}


@pytest.mark.parametrize(
    ("after", "allowed"),
    [
        ({"bleu": 11, "rouge_l": 30, "distinct": 40}, True),
        ({"bleu": 11, "rouge_l": 29, "distinct": 40}, False),
        ({"bleu": 9, "rouge_l": 31, "distinct": 40}, False),
        ({"bleu": 10, "rouge_l": 30, "distinct": 50}, False),
        ({"bleu": 11, "rouge_l": 31, "distinct": 39}, False),
    ],
)
def test_neither_score_may_fall_and_replies_stay_different(after: dict[str, float], allowed: bool) -> None:
    assert second_stage.allows(Objective(), {"bleu": 10, "rouge_l": 30, "distinct": 50}, after) is allowed


def test_a_reply_is_rewarded_more_than_the_others_of_its_text_or_less() -> None:
    assert advantages([1, 0, 0.5, 0.5, 0.5, 0.5], 3) == pytest.approx([0.75, -0.75, 0, 0, 0, 0])


@given(reply=WORDS, reference=WORDS)
def test_rewards_lie_between_nothing_and_one_and_the_row_s_own_reply_is_the_best(reply: str, reference: str) -> None:
    names = ("bleu", "rouge_l", "slots")
    assert 0 <= compute_reward(reply, reference, names) <= 1 + 1e-9
    if reference:
        assert compute_reward(reference, reference, names) == pytest.approx(1)


def test_short_replies_pay_in_bleu_and_slots_count_as_often_as_they_stand() -> None:
    assert sentence_bleu(["a"], ["a", "b"]) == pytest.approx(np.exp(-1))
    assert sentence_bleu([], ["a"]) == 0
    assert slot_f1(["{a}", "{a}"], ["{a}", "x"]) == pytest.approx(2 / 3)
    assert slot_f1(["x"], ["y"]) == 1


def test_other_kinds_have_no_second_stage(tmp_path: Path) -> None:
    (tmp_path / "model.yaml").write_text(
        yaml.safe_dump(RECIPE | {"tasks": {"intent": RECIPE["tasks"]["intent"] | {"objective": {}}}})
    )
    with pytest.raises(SetupError, match="does not use `objective`"):
        load_recipe(tmp_path / "model.yaml")


@pytest.mark.parametrize("texts", [True, False])
def test_a_step_whose_loss_is_not_finite_ends_the_training_and_saves_its_rows(
    data: Path, tmp_path: Path, texts: bool
) -> None:
    expected = (
        r"^second stage: step 1: the loss of task reply is inf on .*replies\.jsonl:\d+.* and 3 more rows; look at these rows, or lower "
        r"tasks\.reply\.objective\.lr; all rows of the step: .*failed_step\.json$"
    )
    with pytest.raises(SetupError, match=expected):
        train(data, tmp_path, objective={**STAGE, "cross_entropy": 1e38}, texts=texts)
    saved = json.loads((tmp_path / "run" / "failed_step.json").read_text())
    assert (saved["step"], saved["stage"], saved["task"]) == (1, "second stage", "reply")
    assert saved["losses"] == {"reply": "inf"}
    assert len(saved["rows"]["reply"]) == 8
    for row in saved["rows"]["reply"]:
        line = reply_rows(60, 0)[int(row["place"].rpartition(":")[2]) - 1]
        assert row.get("reply") == (line["reply"] if texts else None)
    assert not (tmp_path / "run" / "run.json").exists()


def test_so_does_one_whose_gradient_alone_is_not_finite(data: Path, tmp_path: Path) -> None:
    expected = r"^second stage: step 1: the gradient is inf on task reply: .*; lower tasks\.reply\.objective\.lr; .*failed_step\.json$"
    with pytest.raises(SetupError, match=expected):
        train(data, tmp_path, objective={**STAGE, "cross_entropy": 1e37})
    saved = json.loads((tmp_path / "run" / "failed_step.json").read_text())
    assert (saved["task"], saved["gradient"], len(saved["rows"]["reply"])) == (None, "inf", 8)
