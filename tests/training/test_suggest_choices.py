"""`murmura suggest` with a trained network: which texts k-centre and disagreement name, and how what people fill in is read back."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_in_process import run_here
from tiny_model import write_tiny_model
from tiny_training import RECIPE, rows, write_jsonl

from murmura.runtime.model.model import Model
from murmura.training.data.example import Example
from murmura.training.model.encoders import build_encoder
from murmura.training.prepare.tasks import read_tasks
from murmura.training.recipe.recipe import load_recipe
from murmura.training.run_folders.run_folder import RunFolder
from murmura.training.suggest import states

COVERED = [row["text"] for row in rows(60, 3) if row["label"] == "lost"]
SIMILAR = [row["text"] for row in rows(60, 4) if row["label"] == "lost"]
FAR = ["please send money to rome", "tell me a joke about paris"]


def suggest(texts: Path, model: Path, *more: Any) -> list[dict[str, Any]]:
    """Return the rows that the command writes."""
    out = texts.with_name("next.jsonl")
    out.unlink(missing_ok=True)
    done = run_here("suggest", texts, "--model", model, *more, "--out", out)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in out.read_text().splitlines()]


@pytest.fixture
def dropping(run: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The run as if it had been trained with dropout."""
    recipe = load_recipe(run / "recipe.yaml").model_copy(update={"dropout": 0.3})
    monkeypatch.setattr(states, "load_recipe", lambda path, past: recipe)
    return run


def direct_states(run: Path, texts: list[str]) -> np.ndarray:
    """The mean states of texts, each by itself."""
    folder = RunFolder(run)
    encoder = build_encoder(folder.record().encoder, folder.weights(), dropout=0.0)
    tokenizer = folder.tokenizer()
    return np.concatenate([states.mean_states(encoder, [np.array(tokenizer.encode(text).ids)]) for text in texts])


@pytest.mark.parametrize("task", ["intent", "places"])
def test_k_centre_takes_what_lies_far_from_the_labelled_texts_and_from_what_it_took(
    run: Path, model_folder: Path, tmp_path: Path, task: str
) -> None:
    pool = [*SIMILAR[:6], FAR[0], *SIMILAR[6:], FAR[1]]
    (tmp_path / "texts.txt").write_text("\n".join(pool))
    labelled = write_jsonl(tmp_path / "known.jsonl", [{"text": text} for text in COVERED])
    asked = ("--task", task, "--strategy", "k-centre", "--run", run, "--labelled", labelled, "--count", 2)
    found = suggest(tmp_path / "texts.txt", model_folder, *asked)
    assert {row["text"] for row in found} == {*FAR}
    found_states, covered = (direct_states(run, texts) for texts in ([row["text"] for row in found], COVERED))
    first = np.linalg.norm(found_states[0] - covered, axis=1).min()
    second = np.linalg.norm(found_states[1] - np.vstack([covered, found_states[:1]]), axis=1).min()
    assert [row["usefulness"] for row in found] == pytest.approx([first, second], rel=1e-3)
    assert [row["suggested"] for row in found] == [1, 2]


def test_k_centre_of_a_model_that_gives_vectors_needs_no_run(tmp_path: Path) -> None:
    folder = write_tiny_model(tmp_path / "tiny", pooled=True)
    texts, known = (
        ["my card was lost", "hello thanks", "transfer money to london", "cancel my order please"],
        "my card was lost on monday",
    )
    (tmp_path / "texts.txt").write_text("\n".join(texts))
    labelled = write_jsonl(tmp_path / "known.jsonl", [{"text": known}])
    found = suggest(
        tmp_path / "texts.txt", folder, "--task", "intent", "--strategy", "k-centre", "--labelled", labelled
    )
    vectors = dict(zip([known, *texts], Model.load(folder, device="cpu").embed([known, *texts]), strict=True))
    chosen = [known]
    for row in found:
        nearest = {text: min(np.linalg.norm(vectors[text] - vectors[one]) for one in chosen) for text in texts}
        assert row["text"] == max(nearest, key=nearest.__getitem__)
        assert row["usefulness"] == pytest.approx(nearest[row["text"]], abs=1e-5)
        chosen.append(row["text"])
    assert len(chosen) == 5


def bald(passes: np.ndarray, temperature: float) -> np.ndarray:
    """The entropy of the mean of passes [T, ..., C] less the mean of their entropies."""
    scaled = np.exp(passes.astype(float) / temperature)
    scores = scaled / scaled.sum(-1, keepdims=True)
    entropy, of_mean = -(scores * np.log(scores)).sum(-1), -(scores.mean(0) * np.log(scores.mean(0))).sum(-1)
    return np.asarray(of_mean - entropy.mean(0))


def disagree(passes: np.ndarray, temperature: float) -> float:
    """Of a text's passes [T, C], or of its words [T, S, C] the one on which they disagree most."""
    return float(bald(passes if passes.ndim == 2 else passes[:, 1:-1], temperature).max())


SURE = ["i lost my card in london", "send money to paris", "tell me a joke about rome", "my card is gone, rome took it"]
UNSURE = {"intent": "my card money to paris", "places": "send money to yorkshire monday"}


@pytest.mark.parametrize("task", ["intent", "places"])
def test_disagreement_takes_what_passes_with_dropout_contradict_each_other_on(
    dropping: Path, model_folder: Path, tmp_path: Path, task: str
) -> None:
    texts = [*SURE[:2], UNSURE[task], *SURE[2:]]
    (tmp_path / "texts.txt").write_text("\n".join(texts))
    asked = ("--task", task, "--strategy", "disagreement", "--run", dropping, "--count", 5, "--seed", 3)
    found = suggest(tmp_path / "texts.txt", model_folder, *asked)
    assert found[0]["text"] == UNSURE[task]
    assert found[0]["usefulness"] > 2 * found[1]["usefulness"]
    assert len(found) == len(texts)
    temperature = Model.load(model_folder, device="cpu").tasks[task].calibration.temperature
    passes = states.open_run(dropping, task, passes=10, seed=3).ask(texts)
    expected = dict(zip(texts, [disagree(each, temperature) for each in passes], strict=True))
    assert {row["text"]: row["usefulness"] for row in found} == pytest.approx(expected, abs=2e-6)
    with_special = [float(bald(each, temperature).max()) for each in passes]
    assert task == "intent" or with_special != [*expected.values()], "what passes say of special tokens counts nothing"


def shown(example: Example, task: str) -> list[Any]:
    """The answer of an example as it stands in a file."""
    if task == "places":
        return [{"start": span.start, "end": span.end, "label": span.label} for span in example.spans]
    return [*example.labels]


@pytest.mark.parametrize(
    ("task", "column", "answer"),
    [("places", "spans", [{"start": 14, "end": 18, "label": "place"}]), ("topics", "topics", ["cards", "travel"])],
)
def test_what_people_fill_in_of_spans_and_several_labels_is_trained_on_and_the_rest_is_counted(
    model_folder: Path, tmp_path: Path, write_recipe: Callable[..., Path], task: str, column: str, answer: list[Any]
) -> None:
    texts = ["send money to rome", *SURE[:2], "hello"]
    (tmp_path / "texts.txt").write_text("\n".join(texts))
    suggested = suggest(tmp_path / "texts.txt", model_folder, "--task", task, "--label", column, "--count", 4)
    assert sorted(row["text"] for row in suggested) == sorted(texts)
    guesses = {row["text"]: row["guess"] for row in suggested}
    filled = {texts[0]: answer, texts[1]: guesses[texts[1]], texts[2]: []}
    write_jsonl(tmp_path / "next.jsonl", [row | {column: filled.get(row["text"])} for row in suggested])
    write_jsonl(tmp_path / "train.jsonl", rows(30, 1))
    write_jsonl(tmp_path / "test.jsonl", rows(9, 2))
    keys = {**RECIPE["tasks"][task], "train": ["train.jsonl", "next.jsonl"]}
    (data,) = read_tasks(load_recipe(write_recipe(tasks={task: keys})), tmp_path)
    learned = {each.text: each for each in [*data.train, *data.validation] if "next.jsonl" in each.place}
    assert {text: shown(example, task) for text, example in learned.items()} == filled
    assert guesses[texts[1]], "a guess that is taken over as it stands is an answer, and so is an empty list"
    assert data.counts["train"].describe_left_out() == "1 row left out that nobody annotated"
