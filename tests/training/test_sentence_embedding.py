"""Sentence embedding on a network: which texts are read as the two views and as negatives, and what comes of it."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from tiny_training import RECIPE, write_jsonl
from torch import Tensor

from murmura.training.model.encoders import build_encoder, load
from murmura.training.pretrain.loop import pretrain
from murmura.training.pretrain.material import read_material
from murmura.training.pretrain.network import Pretrained
from murmura.training.pretrain.objectives.objective import mean_state
from murmura.training.pretrain.setup import prepare
from murmura.training.recipe.recipe import load_pretraining
from murmura.training.run_folders.run_folder import RunFolder

TEXTS = [f"the {animal} is {place}" for animal in ("cat", "dog", "bird") for place in ("here", "there", "gone")]
PAIRS = [
    {"said": f"where is {a}", "meant": f"{b} is lost", "not": f"{c} was found"}
    for a, b, c in zip(
        ("one", "two", "three", "four", "five", "six"),
        ("uno", "due", "tre", "quattro", "cinque", "sei"),
        ("eins", "zwei", "drei", "vier", "fuenf", "sechs"),
        strict=True,
    )
]
SOURCE = {"path": "pairs.jsonl", "columns": {"text": "said", "text_pair": "meant"}, "negative": "not"}


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """`write(pairs=SOURCE)` writes texts, pairs of which two have no negative, and the recipe of a pre-training."""
    (tmp_path / "texts.txt").write_text("\n\n".join(TEXTS))
    without = [{key: row[key] for key in row if key != "not"} for row in PAIRS[:2]]
    write_jsonl(tmp_path / "pairs.jsonl", [*without, *PAIRS[2:]])

    def written(steps: int = 1, **objective: Any) -> Path:
        stage = {"texts": "texts.txt", "steps": steps, "batch_size": 6, "lr": 3e-3}
        top = {"encoder": RECIPE["encoder"], "max_tokens": 24, "threads": 1, "trackers": []}
        document = {**top, "pretrain": {**stage, "objectives": {"sentence_embedding": objective}}}
        path = tmp_path / "pre.yaml"
        path.write_text(yaml.safe_dump(document))
        return path

    return written


def open_run(path: Path) -> Pretrained:
    recipe = load_pretraining(path)
    material = read_material(recipe, recipe.pretrain, path.parent, [])
    return prepare(recipe, recipe.pretrain, material, RunFolder(path.parent / "run"))


def ask(run: Pretrained, rows: Sequence[int]) -> tuple[list[str], Tensor, float]:
    """Return the texts that a step reads of these rows, their vectors, and its loss."""
    (objective,) = run.network.objectives
    texts: list[str] = []
    vectors: list[Tensor] = []

    def encode(ids: Sequence[Any]) -> tuple[Tensor, Tensor]:
        texts.extend(run.material.checkpoint.tokenizer.decode(each.tolist()) for each in ids)
        states, mask = run.network.encode(ids, "cpu")
        vectors.append(mean_state(states, mask).detach())
        return states, mask

    loss = objective.loss(encode, rows, np.random.default_rng(0))
    return texts, torch.cat(vectors).double(), float(loss.detach())


def expected_loss(vectors: Tensor, texts: int) -> float:
    """The mean over texts of -log of the share of its own view among all candidates, by exp(cosine / 0.05)."""
    unit = vectors / vectors.norm(dim=1, keepdim=True)
    near = torch.exp(unit[:texts] @ unit[texts:].T / 0.05)
    return float(-(near.diagonal() / near.sum(1)).log().mean())


def test_of_texts_alone_both_views_are_the_text_under_two_dropouts(write: Callable[..., Path]) -> None:
    run = open_run(write())
    run.network.train()
    texts, vectors, loss = ask(run, [0, 4, 8])
    assert texts == [TEXTS[0], TEXTS[4], TEXTS[8]] * 2
    assert float((vectors[:3] - vectors[3:]).abs().amax(1).min()) > 1e-2, "each text is read under another dropout"
    assert loss == pytest.approx(expected_loss(vectors, 3), rel=1e-4)
    run.network.eval()
    _, still, _ = ask(run, [0, 4, 8])
    assert torch.allclose(still[:3], still[3:], atol=1e-6)


def test_pairs_and_their_hard_negatives_take_the_place_of_texts(write: Callable[..., Path]) -> None:
    run = open_run(write(pairs=SOURCE))
    (objective,) = run.network.objectives
    assert objective.describe() == "6 pairs"
    assert sorted({row for step in run.plan for own in step for row in own}) == [*range(6)]
    rows = [0, 3, 1, 5]
    texts, vectors, loss = ask(run, rows)
    chosen = [PAIRS[row] for row in rows]
    expected = [*(row["said"] for row in chosen), *(row["meant"] for row in chosen)]
    assert texts == [*expected, PAIRS[3]["not"], PAIRS[5]["not"]], "the first two pairs have no negative"
    assert loss == pytest.approx(expected_loss(vectors, 4), rel=1e-4)
    assert loss > expected_loss(vectors[:-2], 4) + 0.05, "hard negatives count among the others"


def test_texts_come_to_lie_near_what_they_mean_and_far_from_their_hard_negatives(write: Callable[..., Path]) -> None:
    path = write(steps=40, pairs=SOURCE)
    folder = path.parent
    pretrain(load_pretraining(path), path, folder, folder / "enc.run", folder / "enc", quiet=True)
    found = load(str(folder / "enc"))
    encoder = build_encoder(found.spec, found.weights, dropout=0.0).eval()

    def vector(text: str) -> Tensor:
        ids = torch.tensor([found.tokenizer.encode(text).ids])
        with torch.no_grad():
            states = encoder(input_ids=ids).last_hidden_state
        return mean_state(states, torch.ones_like(ids))[0]

    for row in PAIRS[2:]:
        text, other, negative = (vector(row[key]) for key in ("said", "meant", "not"))
        near, far = (float(torch.cosine_similarity(text, each, dim=0)) for each in (other, negative))
        assert near > far + 0.3, row
