from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from murmura.runtime.errors import SetupError
from murmura.training.data.example import Example
from murmura.training.dataset import _split, overlap, pad, read_tasks, refuse_unknown, unknown_share
from murmura.training.encoders import train_tokenizer
from murmura.training.kinds import KINDS
from murmura.training.recipe import Recipe, load_recipe

ENGLISH = ["where is my card", "send the money to london", "what is the weather like", "thank you very much"]
CHINESE = ["我的卡在哪里", "请给我换一张新卡", "今天天气怎么样"]


def recipe(**task: Any) -> Recipe:
    return Recipe.model_validate({"tasks": {"t": {"train": "a.csv", **task}}})


def csv(folder: Path, name: str, *pairs: tuple[str, str]) -> None:
    (folder / name).write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in pairs))


@pytest.fixture
def english() -> Tokenizer:
    return train_tokenizer(ENGLISH, 200, lowercase=True)


def test_a_label_seen_only_in_test_is_named_with_file_and_line(tmp_path: Path) -> None:
    csv(tmp_path, "a.csv", *((f"text {n}", "ab"[n % 2]) for n in range(20)))
    csv(tmp_path, "b.csv", ("fine", "a"), ("not fine", "c"))
    with pytest.raises(SetupError, match=r"b\.csv:3: label 'c' of task t does not occur in its training rows"):
        read_tasks(recipe(test="b.csv"), tmp_path)


def test_a_mistake_in_a_set_to_report_on_is_found_before_training(tmp_path: Path) -> None:
    csv(tmp_path, "a.csv", *((f"text {n}", "ab"[n % 2]) for n in range(20)))
    csv(tmp_path, "own.csv", ("fine", "z"))
    with pytest.raises(SetupError, match=r"own\.csv:2: label 'z' of task t"):
        read_tasks(recipe(reports={"own": "own.csv"}), tmp_path)
    with pytest.raises(SetupError, match=r"none\.csv: no such file"):
        read_tasks(recipe(reports={"own": "none.csv"}), tmp_path)


def test_rows_to_choose_thresholds_on_need_a_label_to_tell_them_apart(tmp_path: Path) -> None:
    csv(tmp_path, "a.csv", *((f"text {n}", "ab"[n % 2]) for n in range(20)))
    with pytest.raises(SetupError, match=r"thresholds\.data needs an out_of_scope label"):
        read_tasks(recipe(thresholds={"data": "a.csv"}), tmp_path)


def test_a_single_label_is_nothing_to_learn(tmp_path: Path) -> None:
    csv(tmp_path, "a.csv", *((f"text {n}", "a") for n in range(20)))
    with pytest.raises(SetupError, match="the training rows know one label only"):
        read_tasks(recipe(), tmp_path)


def test_a_row_and_its_repeats_stay_on_one_side_of_the_split(tmp_path: Path) -> None:
    csv(tmp_path, "a.csv", *((f"text number {n}", "ab"[n % 2]) for n in range(50)))
    made = recipe(train={"path": "a.csv", "repeat": 3, "typo_copies": 1}, validation_share=0.2)
    (task,) = read_tasks(made, tmp_path)
    held = {example.place for example in task.validation}
    assert (len(task.validation), len(held)) == (10, 10)
    assert held.isdisjoint(example.place for example in task.train)
    assert all(example.text.startswith("text number") for example in task.validation)


def test_out_of_scope_rows_that_are_not_learned_are_set_apart(tmp_path: Path) -> None:
    csv(tmp_path, "a.csv", *((f"text {n}", ("a", "b", "none")[n % 3]) for n in range(30)))
    (task,) = read_tasks(recipe(validation="a.csv", out_of_scope={"label": "none", "learn": False}), tmp_path)
    assert task.labels == ["a", "b"]
    assert {example.labels[0] for example in task.train} == {"a", "b"}
    assert {example.labels[0] for example in task.outside} == {"none"}


def test_chinese_under_an_english_vocabulary_is_mostly_unknown(english: Tokenizer) -> None:
    unknown = frozenset({english.token_to_id("[UNK]")})
    assert unknown_share(english.encode_batch(CHINESE), unknown) == 1.0
    assert unknown_share(english.encode_batch(ENGLISH), unknown) == 0.0


def test_unknown_texts_stop_the_run_with_the_share_of_each_task_unless_allowed() -> None:
    with pytest.raises(SetupError, match=r"zh 90%, en 0%; take an encoder of their language.*allow_unknown: true"):
        refuse_unknown({"zh": 0.9, "en": 0.0}, allow=False)
    refuse_unknown({"zh": 0.9}, allow=True)
    refuse_unknown({"emoji now and then": 0.01}, allow=False)


def test_overlap_ignores_case_and_blanks() -> None:
    train = [Example("Where is  my card")]
    assert overlap(train, [Example("where is my CARD "), Example("else")]) == 1


def test_a_batch_is_padded_to_its_longest_text(english: Tokenizer) -> None:
    import numpy as np

    ids, mask = pad([np.array([2, 7, 3]), np.array([2, 3])])
    assert ids.tolist() == [[2, 7, 3], [2, 3, 2]]
    assert mask.tolist() == [[1, 1, 1], [1, 1, 0]]


@pytest.mark.shared
def test_the_joint_recipe_reads_the_public_data(shared_data: Path) -> None:
    joint = load_recipe(Path(__file__).resolve().parents[2] / "recipes" / "joint.yaml")
    intent, slots, sentiment = read_tasks(joint, shared_data)
    assert (len(intent.labels), len(intent.train), len(intent.outside)) == (150, 15_000, 100)
    assert (len(slots.labels), len(slots.train), len(slots.test)) == (79, 13_084, 700)
    assert (sentiment.labels, len(sentiment.train)) == (["ambiguous", "negative", "neutral", "positive"], 12_000)
    assert overlap(slots.train, slots.test) == 26


def test_a_labels_only_row_is_trained_on_and_not_held_back():
    rows = [Example(f"text {n}", labels=("common",), place=f"rows.csv:{n}") for n in range(30)]
    rows += [Example(f"rare {n}", labels=(f"rare{n}",), place=f"rows.csv:{100 + n}") for n in range(10)]
    for seed in range(20):
        train, validation = _split(rows, 0.2, seed, KINDS["classification"])
        assert {row.labels for row in rows} == {row.labels for row in train}
        assert validation
