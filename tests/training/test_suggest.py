"""Which texts are suggested: known answers of the figures, of the choice, and of the file that is read back."""

import csv
import json
from collections import Counter
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pytest
from cli_in_process import refused_here, run_here
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_model import write_tiny_model

from murmura.runtime.errors import SetupError
from murmura.schemas.manifest import TaskSpec
from murmura.training.data.near_texts import near_form, near_id
from murmura.training.prepare.reading import read_counted
from murmura.training.recipe.keys.reading import Source
from murmura.training.recipe.keys.tasks import Task
from murmura.training.recipe.recipe import load_recipe
from murmura.training.suggest import states
from murmura.training.suggest.choose import Choice, Wanted
from murmura.training.suggest.idle_options import find_idle_options
from murmura.training.suggest.k_centre import choose_centres
from murmura.training.suggest.pool import Candidate, Pool
from murmura.training.suggest.strategy import Strategy, Tokens
from murmura.training.suggest.summary import describe_choice
from murmura.training.suggest.usefulness import (
    score_disagreement,
    score_entropy,
    score_flags_margin,
    score_margin,
    score_tokens,
)

TEXTS = [
    "my card was lost",
    "My  CARD was lost",
    "please transfer money to london",
    "my card was lost on monday",
    "hello",
]


def test_margin_entropy_and_flags_have_their_known_values() -> None:
    scores = np.array([[0.5, 0.5, 0.0], [0.9, 0.1, 0.0]])
    assert score_margin(scores) == pytest.approx([1.0, 0.2])
    assert score_entropy(scores) == pytest.approx([np.log(2), 0.325083], abs=1e-6)
    assert score_flags_margin(np.array([0.9, 0.35, 0.0]), np.array([0.5, 0.3, 0.5])) == pytest.approx(0.95)
    assert score_tokens(np.array([0.2, 0.6]), "mean") == pytest.approx(0.4)
    assert score_tokens(np.array([0.2, 0.6]), "least") == pytest.approx(0.6)


def test_passes_disagree_only_where_they_contradict_each_other_not_where_each_is_unsure() -> None:
    unsure = np.full((4, 1, 2), 0.5)
    contradicting = np.array([[[1.0, 0.0]], [[0.0, 1.0]]] * 2)
    assert score_disagreement(unsure) == pytest.approx([0.0])
    assert score_disagreement(contradicting) == pytest.approx([np.log(2)])


def test_k_centre_takes_one_of_each_cluster_and_none_that_labels_cover() -> None:
    vectors = np.array([[0, 0], [0.1, 0], [10, 0], [10, 0.1], [0, 10], [0.1, 10]], float)
    rows, distances = choose_centres(vectors, 2, covered=vectors[:1])
    assert [row // 2 for row in rows] in ([1, 2], [2, 1])
    assert distances == sorted(distances, reverse=True)
    assert len(choose_centres(vectors, 3)[0]) == 3
    assert choose_centres(np.zeros((5, 2)), 3)[0] == [0]


def test_a_pool_holds_four_for_each_wanted_and_suggests_near_duplicates_once() -> None:
    pool = Pool(2)
    for number in range(1000):
        pool.offer(Candidate(f"number {number} of a row", None, number / 1000))
    assert len(pool.ordered()) == 8
    assert [each.given for each in pool.choose()[0]] == ["number 999 of a row", "number 998 of a row"]
    pool = Pool(2)
    for usefulness, text in enumerate(["other", *TEXTS[:2], "was lost my card?"]):
        pool.offer(Candidate(text, None, usefulness))
    chosen, alike = pool.choose()
    assert ([each.given for each in chosen], alike, pool.repeated) == (["was lost my card?", "other"], 1, 1)


@settings(max_examples=25, deadline=None)
@given(texts=st.lists(st.integers(0, 30).map(lambda number: f"text{number}"), max_size=60), wanted=st.integers(1, 3))
def test_counts_of_a_pool_are_those_of_its_texts(texts: list[str], wanted: int) -> None:
    known = {near_id(near_form(f"text{number}")) for number in range(5)}
    pool = Pool(wanted, known)
    for text in texts:
        pool.offer(Candidate(text, None, int(text[4:]) % 7))
    unknown = [text for text in texts if int(text[4:]) >= 5]
    assert (pool.seen, pool.known) == (len(texts), len(texts) - len(unknown))
    assert (pool.repeated, pool.different) == (len(unknown) - len({*unknown}), len({*unknown}))
    assert len(pool.choose()[0]) == min(wanted, len({*unknown}))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("suggest") / "tiny"
    write_tiny_model(folder)
    return folder


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    path = tmp_path / "texts.txt"
    path.write_text("\n".join(TEXTS))
    return path


def assert_summary_is_that_of(rows: list[dict[str, str]], said: str) -> None:
    useful, scores = (sorted(float(row[name]) for row in rows) for name in ("usefulness", "guess_score"))
    meaning = "1 less the distance between the two best scores"
    assert f"\nusefulness: {useful[0]:.3f} to {useful[-1]:.3f}: {meaning}\n" in said
    counts = Counter(row["guess"] for row in rows)
    named = ", ".join(f"{label} {counts[label]}" for label in sorted(counts, key=lambda label: (-counts[label], label)))
    assert f"\nguesses: {named}" in said
    assert f"\nscores of the guesses: {scores[0]:.3f} to {scores[-1]:.3f}, median {median(scores):.3f}\n" in said


def choice_of(*answers: Any) -> Choice:
    chosen = [Candidate(f"text {at}", None, at / 4, answer) for at, answer in enumerate(answers, 1)]
    return Choice(chosen, len(chosen), 0, 0, 0)


def labelled(label: str, score: float, *, withheld: bool = False) -> dict[str, Any]:
    said = None if withheld else label
    return {"label": said, "score": score, "abstained": withheld, "alternatives": [{"label": label, "score": score}]}


def test_a_summary_counts_the_labels_that_are_guessed_and_those_that_are_withheld() -> None:
    spec = TaskSpec(name="intent", kind="classification", labels=[f"l{at}" for at in range(12)])
    found = choice_of(labelled("l1", 0.4, withheld=True), labelled("l0", 0.9), labelled("l0", 0.6))
    assert describe_choice(found, Wanted(spec, Strategy.ENTROPY, 3)) == [
        "usefulness: 0.250 to 0.750: the entropy of the answer, in nats",
        "guesses: l0 2, l1 1; 1 of them withheld",
        "scores of the guesses: 0.400 to 0.900, median 0.600",
    ]
    many = choice_of(*(labelled(f"l{at:02}", 0.5) for at in range(12)))
    (guesses, _) = describe_choice(many, Wanted(spec, Strategy.RANDOM, 3))
    first = ", ".join(f"l{at:02} 1" for at in range(8))
    assert guesses == f"guesses: {first}, 4 more labels"
    (guesses, _) = describe_choice(
        choice_of(*(labelled(f"l{at:02}", 0.5) for at in range(9))), Wanted(spec, Strategy.RANDOM, 3)
    )
    assert guesses == f"guesses: {first}, 1 more label"


def test_a_summary_of_labels_and_of_spans_counts_each_and_the_texts_without() -> None:
    flags = TaskSpec(name="topics", kind="multi_label", labels=["a", "b"])
    both = {"labels": [{"label": "a", "score": 0.8}, {"label": "b", "score": 0.6}]}
    assert describe_choice(choice_of(both, {"labels": []}), Wanted(flags, Strategy.MARGIN, 2)) == [
        "usefulness: 0.250 to 0.500: 1 less the distance between a score and its threshold, of the nearest label",
        "guesses: a 1, b 1, nothing 1",
        "scores of the guesses: 0.600 to 0.800, median 0.700",
    ]
    spans = TaskSpec(name="places", kind="tagging", labels=["O", "B-city", "I-city"])
    none = choice_of({"spans": []})
    for tokens, said in (
        (Tokens.LEAST, "scores of the least sure token"),
        (Tokens.MEAN, "scores, the mean of the tokens"),
    ):
        useful, guesses = describe_choice(none, Wanted(spans, Strategy.MARGIN, 1, tokens))
        assert useful == f"usefulness: 0.250 to 0.250: 1 less the distance between the two best {said}"
        assert guesses == "guesses: nothing 1"
    found = choice_of({"spans": [{"start": 0, "end": 2, "label": "city", "score": 0.5}]})
    useful, guesses, _ = describe_choice(found, Wanted(spans, Strategy.K_CENTRE, 1))
    assert useful.endswith("the distance to the nearest text that has a label or was chosen before")
    assert guesses == "guesses: city 1"


def test_suggestions_are_filled_in_and_read_back_and_empty_ones_are_counted(
    tiny: Path, texts: Path, tmp_path: Path
) -> None:
    out = tmp_path / "next.csv"
    done = run_here("suggest", texts, "--model", tiny, "--task", "intent", "--count", 3, "--out", out)
    assert done.returncode == 0, done.stderr
    assert "3 of 5 texts, by margin; left out: 1 repeated" in done.stdout
    rows = list(csv.DictReader(out.open()))
    assert_summary_is_that_of(rows, done.stdout)
    assert [row["suggested"] for row in rows] == ["1", "2", "3"]
    assert [float(row["usefulness"]) for row in rows] == sorted(
        (float(row["usefulness"]) for row in rows), reverse=True
    )
    assert all(row["guess"] and row["label"] == "" for row in rows)
    rows[0]["label"] = "refund"
    with out.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    task = Task.model_validate({"train": "next.csv"})
    examples, counts = read_counted([Source(path="next.csv")], task, tmp_path, seed=0)
    assert [(each.text, each.labels) for each in examples] == [(rows[0]["text"], ("refund",))]
    assert counts.describe_left_out() == "2 rows left out that nobody annotated"


def test_a_run_gives_vectors_for_k_centre_and_passes_that_disagree_and_are_the_same_again(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SetupError, match="trained with `dropout: 0`"):
        states.open_run(run, "intent", passes=3, seed=0)
    with pytest.raises(SetupError, match="the run has no task 'x'"):
        states.open_run(run, "x", passes=0, seed=0)
    known = load_recipe(run / "recipe.yaml").model_copy(update={"dropout": 0.3})
    monkeypatch.setattr(states, "load_recipe", lambda path, past: known)
    passes = states.open_run(run, "places", passes=3, seed=0)
    (found,) = passes.ask(["send money to paris"])
    assert found.shape[0::2] == (3, 3)
    assert not np.allclose(found[0], found[1])
    assert np.array_equal(found, passes.ask(["send money to paris"])[0])
    assert passes.embed(["send money to paris", "hello"]).shape == (2, 32)


@pytest.mark.parametrize("strategy", ["entropy", "random"])
@pytest.mark.parametrize(("task", "column"), [("entities", "spans"), ("topics", "label")])
def test_other_kinds_get_json_lines_with_the_guess_in_their_form(
    tiny: Path, texts: Path, tmp_path: Path, task: str, column: str, strategy: str
) -> None:
    out = tmp_path / "next.jsonl"
    asked = ("suggest", texts, "--model", tiny, "--task", task, "--strategy", strategy, "--count", 2)
    assert run_here(*asked, "--out", out).returncode == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(rows) == 2
    assert all(row[column] is None and isinstance(row["guess"], list) for row in rows)
    assert "a cell holds one label" in refused_here(*asked, "--out", tmp_path / "next.csv")


def test_texts_that_have_a_label_are_not_suggested(tiny: Path, texts: Path, tmp_path: Path) -> None:
    labelled = tmp_path / "labelled.jsonl"
    labelled.write_text("".join(json.dumps({"text": text.upper(), "label": "x"}) + "\n" for text in TEXTS[:4]))
    out = tmp_path / "next.jsonl"
    asked = ("suggest", texts, "--model", tiny, "--task", "intent", "--labelled", labelled, "--out", out)
    assert run_here(*asked).returncode == 0
    assert [json.loads(line)["text"] for line in out.read_text().splitlines()] == ["hello"]
    assert "people may have filled it in" in refused_here(*asked)
    with labelled.open("a") as file:  # a suggestion that nobody has filled in, and one with a blank
        file.writelines(json.dumps({"suggested": 1, "text": "hello", "label": label}) + "\n" for label in (None, " "))
    out.unlink()
    assert run_here(*asked).returncode == 0
    assert [json.loads(line)["text"] for line in out.read_text().splitlines()] == ["hello"]


def test_the_run_of_another_model_is_refused(tiny: Path, run: Path, texts: Path, tmp_path: Path) -> None:
    asked = ("suggest", texts, "--model", tiny, "--task", "intent", "--strategy", "k-centre", "--run", run)
    assert "the run of another model: expected the one that" in refused_here(*asked, "--out", tmp_path / "next.csv")


@pytest.mark.parametrize(
    ("names", "strategy", "live", "refused"),
    [
        ({"agents", "latest", "per_minute", "bootstrap"}, Strategy.MARGIN, False, 4),
        ({"agents", "latest", "per_minute", "bootstrap"}, Strategy.MARGIN, True, 0),
        ({"text", "label"}, Strategy.MARGIN, True, 2),
        ({"run", "sample", "seed", "text", "label"}, Strategy.ENTROPY, False, 3),
        ({"tokens"}, Strategy.DISAGREEMENT, False, 0),
        ({"run", "sample", "seed"}, Strategy.K_CENTRE, False, 0),
        ({"run", "sample", "seed", "tokens"}, Strategy.RANDOM, False, 3),
        ({"run", "sample", "seed", "tokens"}, Strategy.DISAGREEMENT, False, 1),
        ({"count", "task", "model", "device", "config"}, Strategy.RANDOM, True, 0),
    ],
)
def test_options_without_effect_are_counted(names: set[str], strategy: Strategy, live: bool, refused: int) -> None:
    assert len([*find_idle_options(names, strategy, live=live)]) == refused


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--agent", "x"], "--agent has no effect without --live"),
        (["--per-minute", "60"], "--per-minute has no effect without --live"),  # the default, said all the same
        (["--run", "nowhere"], "--run has no effect with --strategy margin; it acts with k-centre and disagreement"),
        (["--sample", "5"], "--sample has no effect with --strategy margin; it acts with k-centre"),
        (["--tokens", "mean"], "--tokens has no effect on intent, a task of kind classification"),
        (["--task", "intents"], "no task 'intents'"),
        (["--task", "intent", "--out", "next.csv.gz"], "expected a file that ends with .csv or .jsonl"),
        ([], "name one by --task"),
        (["--task", "intent", "--strategy", "disagreement"], "needs the network with dropout"),
        (["--task", "intent", "--strategy", "k-centre"], "name the run folder by --run, or export with --pooled"),
    ],
)
def test_what_cannot_be_suggested_is_refused_in_a_line(
    tiny: Path, texts: Path, tmp_path: Path, more: list[str], message: str
) -> None:
    if message.startswith("--") and "--task" not in more:
        more = ["--task", "intent", *more]
    assert message in refused_here("suggest", texts, "--model", tiny, "--out", tmp_path / "next.csv", *more)


def test_live_requests_have_no_columns(tiny: Path) -> None:
    asked = ("suggest", "--live", "--model", tiny, "--task", "intent", "--text", "body")
    assert "--text has no effect with --live" in refused_here(*asked)
