from pathlib import Path
from typing import Any

import pytest
from tiny_training import write_jsonl
from tokenizers import Tokenizer

from murmura.runtime.errors import SetupError
from murmura.training.data.example import Example
from murmura.training.fit.check_data import refuse_unknown
from murmura.training.fit.rows.encoding import count_tokens
from murmura.training.model.encoders import train_tokenizer
from murmura.training.model.padding import pad
from murmura.training.prepare.data_checks import Texts
from murmura.training.prepare.data_report import Overlap, PartReport, TaskReport, TokenReport, data_table, describe
from murmura.training.prepare.data_summary import summarise
from murmura.training.prepare.tasks import divide, read_tasks
from murmura.training.recipe.recipe import Recipe, load_recipe

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


@pytest.mark.parametrize(("label", "others"), [("a", 0), ("oos", 20)])
def test_rows_to_choose_thresholds_on_are_in_scope_and_out_of_it(tmp_path: Path, label: str, others: int) -> None:
    csv(tmp_path, "a.csv", *((f"text {n}", ["a", "b", "oos"][n % 3]) for n in range(30)))
    csv(tmp_path, "c.csv", *((f"other {n}", label) for n in range(20)))
    expected = rf"thresholds\.data: needs rows labelled 'oos' and others; {others} of 20 are"
    with pytest.raises(SetupError, match=expected):
        read_tasks(recipe(out_of_scope="oos", thresholds={"data": "c.csv"}), tmp_path)


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
    found = count_tokens(CHINESE, english, unknown)
    assert (found.mostly_unknown, found.unknown) == (1.0, 1.0)
    assert count_tokens(ENGLISH, english, unknown).mostly_unknown == 0.0


def test_cut_and_empty_texts_are_counted_and_a_text_of_just_the_limit_is_not_cut(english: Tokenizer) -> None:
    english.enable_truncation(len(english.encode(ENGLISH[0]).ids))
    found = count_tokens([ENGLISH[0], f"{ENGLISH[0]} card", "\u200b", *ENGLISH[:1] * 2000], english, frozenset())
    assert (found.empty, found.cut) == (1, 1)
    assert (found.unknown, found.mostly_unknown) == (None, None)


def mostly_unknown(**shares: float) -> dict[str, TaskReport]:
    def part(share: float) -> PartReport:
        tokens = TokenReport(empty=0, cut=0, unknown=share, mostly_unknown=share)
        return PartReport(rows=10, labels={}, duplicates=0, tokens=tokens)

    return {name: TaskReport(kind="classification", parts={"train": part(share)}) for name, share in shares.items()}


def test_unknown_texts_stop_the_run_with_the_share_of_each_task_unless_allowed() -> None:
    with pytest.raises(SetupError, match=r"zh 90%, en 0%; take an encoder of their language.*allow_unknown: true"):
        refuse_unknown(mostly_unknown(zh=0.9, en=0.0), allow=False)
    refuse_unknown(mostly_unknown(zh=0.9), allow=True)
    refuse_unknown(mostly_unknown(emoji_now_and_then=0.01), allow=False)


def test_a_batch_is_padded_to_its_longest_text(english: Tokenizer) -> None:
    import numpy as np

    ids, mask = pad([np.array([2, 7, 3]), np.array([2, 3])])
    assert ids.tolist() == [[2, 7, 3], [2, 3, 2]]
    assert mask.tolist() == [[1, 1, 1], [1, 1, 0]]


@pytest.mark.shared
def test_the_joint_recipe_reads_the_public_data(shared_data: Path) -> None:
    joint = load_recipe(Path(__file__).resolve().parents[2] / "recipes" / "joint.yaml")
    intent, slots, sentiment = read_tasks(joint, shared_data)
    assert (len(intent.labels), len(intent.train), len(intent.outside)) == (150, 15_000, 200)
    assert (len(slots.labels), len(slots.train), len(slots.test)) == (79, 13_084, 700)
    assert (sentiment.labels, len(sentiment.train)) == (["ambiguous", "negative", "neutral", "positive"], 12_000)
    assert Texts(slots.test).overlap(Texts(slots.train)) == Overlap(exact=26, near=0)


def test_a_labels_only_row_is_trained_on_and_not_held_back() -> None:
    rows = [Example(f"text {n}", labels=("common",), place=f"rows.csv:{n}") for n in range(30)]
    rows += [Example(f"rare {n}", labels=(f"rare{n}",), place=f"rows.csv:{100 + n}") for n in range(10)]
    for seed in range(20):
        train, validation = divide(rows, 0.2, seed)
        assert {row.labels for row in rows} == {row.labels for row in train}
        assert validation


def test_near_duplicates_stay_on_one_side_of_the_split(tmp_path: Path) -> None:
    csv(
        tmp_path,
        "a.csv",
        *((form.format(n), "ab"[n % 2]) for form in ("text {}", "TEXT {}", " text  {}") for n in range(50)),
    )
    (task,) = read_tasks(recipe(validation_share=0.2), tmp_path)
    assert len(task.validation) == 30
    held = {" ".join(example.text.lower().split()) for example in task.validation}
    assert held.isdisjoint(" ".join(example.text.lower().split()) for example in task.train)


def test_where_each_label_has_one_text_alone_validation_repeats_it_and_says_so(tmp_path: Path) -> None:
    csv(tmp_path, "a.csv", *((f"text {'ab'[n % 2]}", "ab"[n % 2]) for n in range(20)))
    (task,) = read_tasks(recipe(), tmp_path)
    assert len(task.validation) == 2
    assert summarise(task, {}).notes == [
        "validation repeats training texts, because every label has one text alone: its figures mean nothing"
    ]


def test_all_out_of_scope_rows_that_are_not_learned_show_where_the_threshold_lies(tmp_path: Path) -> None:
    csv(tmp_path, "a.csv", *((f"text {n}", ("a", "b", "none")[n % 3]) for n in range(300)))
    scope = {"label": "none", "learn": False}
    (task,) = read_tasks(recipe(train={"path": "a.csv", "repeat": 2, "typo_copies": 0.5}, out_of_scope=scope), tmp_path)
    assert len(task.outside) == 100
    assert len(task.validation) == 20
    csv(tmp_path, "b.csv", *((f"other {n}", "ab"[n % 2]) for n in range(10)))
    (task,) = read_tasks(recipe(validation="b.csv", out_of_scope=scope), tmp_path)
    assert len(task.outside) == 100


@pytest.mark.parametrize(
    ("task", "content", "complaint"),
    [
        (
            {"out_of_scope": "nobody"},
            "one,a\ntwo,b\n",
            r"tasks\.t\.out_of_scope: no training row has the label 'nobody'; found 'a', 'b'$",
        ),
        (
            {"out_of_scope": "ofscope"},
            "one,a\ntwo,b\nthree,off scope\n",
            r"no training row .*did you mean 'off scope'\?",
        ),
        (
            {"out_of_scope": {"label": "othr", "learn": False}},
            "1,a\n2,b\n3,other\n",
            r"no row has the label 'othr'; .*'other'\?",
        ),
        (
            {},
            "one,a\ntwo,b\nthree,A\n",
            r"tasks\.t\.train: labels 'A' \(.*a\.csv:4\) and 'a' \(.*a\.csv:2\) differ only in case",
        ),
        (
            {},
            "one,straße\ntwo,b\nthree,STRASSE\n",
            r"differ only in case, blanks, letter forms or invisible characters: .*merge: \{STRASSE: \[straße\]\}",
        ),
        ({"labels": ["a"]}, "one,a\ntwo,b\n", r"tasks\.t\.train: `labels` names one label only \('a'\)"),
        (
            {"labels": ["a", "b", "c"]},
            "".join(f"text {n},a\n" for n in range(10)),
            r"tasks\.t\.train: all rows have the label 'a', and none has 'b', 'c'; expected rows of two labels or more",
        ),
        ({}, "one,a\ntwo,b\n", r"tasks\.t\.validation: no row can be held back"),
        ({"kind": "multi_label", "columns": {"label": "labels"}}, None, r"tasks\.t\.train: no row has a label"),
        ({"kind": "tagging"}, None, r"tasks\.t\.train: no row has a span"),
        ({"kind": "tagging", "labels": ["O"]}, None, r"tasks\.t\.train: no row has a span"),
        ({"test": "b.csv"}, "one,a\ntwo,b\nthree,a\nfour,b\n", r"b\.csv:2: label 'Aa' .*; did you mean 'a'\?"),
    ],
)
def test_a_mistake_is_one_line_with_its_key(
    tmp_path: Path, task: dict[str, Any], content: str | None, complaint: str
) -> None:
    if content is None:
        (tmp_path / "a.csv").with_suffix(".jsonl").write_text('{"text": "x", "labels": [], "spans": []}\n' * 3)
    else:
        (tmp_path / "a.csv").write_text(f"text,label\n{content}")
    (tmp_path / "b.csv").write_text("text,label\nfive,Aa\n")
    with pytest.raises(SetupError, match=complaint) as caught:
        read_tasks(recipe(train="a.jsonl" if content is None else "a.csv", **task), tmp_path)
    assert "\n" not in str(caught.value)


def test_labels_that_differ_in_case_are_kept_apart_where_the_recipe_names_both(tmp_path: Path) -> None:
    csv(tmp_path, "a.csv", *((f"text {n}", "aAb"[n % 3]) for n in range(30)))
    (task,) = read_tasks(recipe(labels=["a", "A", "b"]), tmp_path)
    assert task.labels == ["a", "A", "b"]


def test_rows_of_one_group_stay_on_one_side_and_a_row_without_a_group_is_refused(tmp_path: Path) -> None:
    rows = "".join(f"text {n},{'ab'[n % 2]},talk {n // 5}\n" for n in range(100))
    (tmp_path / "a.csv").write_text(f"text,label,conversation_id\n{rows}")
    (task,) = read_tasks(recipe(group="conversation_id", validation_share=0.2), tmp_path)
    held = {example.meta["conversation_id"] for example in task.validation}
    assert len(task.validation) == 20
    assert held.isdisjoint(example.meta["conversation_id"] for example in task.train)
    with pytest.raises(SetupError, match=r"a\.csv:2: column 'talk', the group of a row, is missing or empty"):
        read_tasks(recipe(group="talk"), tmp_path)


def test_a_group_that_every_row_shares_is_refused_in_one_line(tmp_path: Path) -> None:
    rows = "".join(f"text {n},{'ab'[n % 2]},everybody\n" for n in range(20))
    (tmp_path / "a.csv").write_text(f"text,label,team\n{rows}")
    with pytest.raises(
        SetupError, match=r"tasks\.t\.group: every row has the same value in column 'team'.*leave `group`"
    ):
        read_tasks(recipe(group="team"), tmp_path)


def test_spans_that_lose_blanks_at_their_ends_are_counted_by_part(tmp_path: Path) -> None:
    rows = [{"text": f"fly to rome {n}", "spans": [{"start": 6, "end": 11, "label": "city"}]} for n in range(20)]
    clean = [{"text": f"fly to rome {n}", "spans": [{"start": 7, "end": 11, "label": "city"}]} for n in range(20, 30)]
    write_jsonl(tmp_path / "train.jsonl", [*rows, *clean])
    write_jsonl(tmp_path / "test.jsonl", [*rows[:3], *clean])
    (task,) = read_tasks(recipe(kind="tagging", train="train.jsonl", test="test.jsonl"), tmp_path)
    report = summarise(task, {})
    assert {name: part.trimmed for name, part in report.parts.items()} == {"train": 20, "validation": 0, "test": 3}
    said = "spans without the blanks at their ends: train 20, test 3"
    assert said in describe({"t": report}, 128)[0]
    assert f"- {said}" in data_table(report)


def test_rows_and_spans_that_are_left_out_are_counted_with_their_reason(tmp_path: Path) -> None:
    csv(tmp_path, "a.csv", *((f"text {n}", "abc"[n % 3]) for n in range(30)))
    (task,) = read_tasks(recipe(unless={"label": ["c"]}), tmp_path)
    report = summarise(task, {})
    assert report.parts["train"].left_out == {"rows by where and unless": 10}
    assert "left out: 10 rows by where and unless" in describe({"t": report}, 128)[0]


def test_a_task_says_in_the_manifest_which_agents_answer_it_by_default(tmp_path: Path) -> None:
    csv(tmp_path, "a.csv", *((f"text {n}", "ab"[n % 2]) for n in range(20)))
    (listed,) = read_tasks(recipe(default_for=["analysis"]), tmp_path)
    (plain,) = read_tasks(recipe(), tmp_path)
    assert (listed.spec.default_for, plain.spec.default_for) == (["analysis"], ["classification"])


def test_a_task_is_analysed_by_default_for_its_spans_and_not_for_its_name(tmp_path: Path) -> None:
    csv(tmp_path, "a.csv", *((f"text {n}", "ab"[n % 2]) for n in range(20)))
    spans = [{"text": f"to Rome {n}", "spans": [{"start": 3, "end": 7, "label": "place"}]} for n in range(20)]
    write_jsonl(tmp_path / "b.jsonl", spans)
    tasks = {"sentiment": {"train": "a.csv"}, "places": {"kind": "tagging", "train": "b.jsonl"}}
    read = read_tasks(Recipe.model_validate({"tasks": tasks}), tmp_path)
    assert [task.spec.default_for for task in read] == [["classification"], ["analysis"]]
