"""Prompt learning with a verbaliser: it begins as the head of masked words, learns from few rows, and is served like others."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from same_answers import TEXTS, assert_same_answers
from stopped_training import Stopped, stop_before
from tiny_training import RECIPE, rows

from murmura.runtime.errors import SetupError
from murmura.runtime.model.deltas.delta import assemble
from murmura.runtime.model.model import Model
from murmura.training.export.export import export, served_logits
from murmura.training.fit.check_data import check_data
from murmura.training.fit.loop import fit
from murmura.training.model.encoders import load
from murmura.training.recipe.recipe import load_recipe

WriteRecipe = Callable[..., Path]
WORDS = {"lost": "card", "other": "weather", "transfer": "money"}
VERBALISER = {"template": "is my {mask} in {text}", "words": WORDS}
INTENT = {"train": "train.jsonl", "verbaliser": VERBALISER}
PLAIN = {"trackers": [], "probe": False, "precision": "fp32", "optimiser": {"encoder_lr": 3e-3, "head_lr": 1e-2}}
STILL = {
    "optimiser": {"encoder_lr": 1e-9, "head_lr": 1e-9, "weight_decay": 0},
    "budget": {"steps": 1, "evaluations": 1},
}


@pytest.fixture(scope="module")
def encoders(base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    """Tiny encoders with a head of masked words beside them, and without; what they give depends more on the text."""
    weights = load_file(base / "model.safetensors")
    weights = {name: 6 * array if array.ndim == 2 and ".layer." in name else array for name, array in weights.items()}
    config = json.loads((base / "config.json").read_text())
    draw, width = np.random.default_rng(0), config["hidden_size"]
    shapes = {
        "transform.dense.weight": (width, width),
        "transform.dense.bias": (width,),
        "bias": (config["vocab_size"],),
    }
    shapes |= {f"transform.LayerNorm.{part}": (width,) for part in ("weight", "bias")}
    head = {f"cls.predictions.{name}": draw.normal(0, 0.5, shape).astype(np.float32) for name, shape in shapes.items()}
    made = {}
    for has_head in (True, False):
        made[has_head] = tmp_path_factory.mktemp("masked") / "tiny-bert"
        made[has_head].mkdir()
        for name in ("config.json", "tokenizer.json"):
            (made[has_head] / name).write_bytes((base / name).read_bytes())
        save_file(weights | (head if has_head else {}), made[has_head] / "model.safetensors")
    return made


@pytest.fixture(scope="module")
def masked(encoders: dict[bool, Path]) -> Path:
    return encoders[True]


def logits_by_hand(folder: Path, texts: list[str]) -> np.ndarray[Any, Any]:
    """Return what transformers' own model gives the words at the mask, [N, 3]; without a head by the table of words."""
    from transformers import BertConfig, BertForMaskedLM

    found = load(str(folder))
    model = BertForMaskedLM(BertConfig.from_json_file(str(folder / "config.json"))).eval()
    tensors = {name: torch.from_numpy(array) for name, array in load_file(folder / "model.safetensors").items()}
    model.load_state_dict(tensors, strict=False)
    words = [found.tokenizer.token_to_id(word) for word in WORDS.values()]
    logits = []
    for text in texts:
        ids = torch.tensor([found.tokenizer.encode(f"is my [MASK] in {text}").ids])
        with torch.no_grad():
            state = model.bert(input_ids=ids).last_hidden_state[0, 3]
            table = model.bert.embeddings.word_embeddings.weight
            whole = "cls.predictions.bias" in tensors
            logits.append((model.cls(state[None])[0] if whole else table @ state)[words].numpy())
    return np.stack(logits)


@pytest.mark.parametrize("has_head", [True, False])
def test_before_the_first_step_a_label_is_as_likely_as_its_word_at_the_mask(
    few: Path, encoders: dict[bool, Path], tmp_path: Path, write_recipe: WriteRecipe, has_head: bool
) -> None:
    folder = encoders[has_head]
    path = write_recipe(encoder=str(folder), tasks={"intent": INTENT}, **{**PLAIN, **STILL})
    fit(path, few, tmp_path / "run", quiet=True)
    export(tmp_path / "run", tmp_path / "model", graphs=("ragged", "padded"))
    model = Model.load(tmp_path / "model", device="cpu")
    (spec,) = model.manifest.tasks
    found = np.stack(served_logits(model, spec, TEXTS))
    np.testing.assert_allclose(found, logits_by_hand(folder, TEXTS), atol=1e-4)
    assert np.abs(found - found.mean(0)).max() > 0.01, "texts are told apart"
    alone = np.stack([served_logits(model, spec, [text])[0] for text in TEXTS[:4]])
    assert np.array_equal(found[:4], alone)


@pytest.mark.parametrize("method", [None, {"name": "lora", "rank": 4}])
def test_it_learns_a_task_from_few_rows_and_goes_on_after_a_kill_to_the_same_bytes(
    few: Path,
    masked: Path,
    tmp_path: Path,
    write_recipe: WriteRecipe,
    monkeypatch: pytest.MonkeyPatch,
    method: dict[str, Any] | None,
) -> None:
    keys = {"budget": {"steps": 30, "evaluations": 1}, "save_minutes": 0, "dropout": 0.1, "method": method}
    task = {**INTENT, "test": "test.jsonl"}
    path = write_recipe(encoder=str(masked), tasks={"intent": task}, **{**PLAIN, **keys})
    fit(path, few, tmp_path / "whole", quiet=True)
    with monkeypatch.context() as patch:
        stop_before(20, patch)
        with pytest.raises(Stopped):
            fit(path, few, tmp_path / "run", quiet=True)
    fit(path, few, tmp_path / "run", quiet=True, resume=True)
    file = "checkpoint.safetensors"
    assert (tmp_path / "run" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()
    export(tmp_path / "run", tmp_path / "delta", delta=True)
    assemble(tmp_path / "delta", masked, tmp_path / "assembled")
    export(tmp_path / "run", tmp_path / "full")
    models = [Model.load(tmp_path / folder, device="cpu") for folder in ("assembled", "full")]
    assert_same_answers(*models, within=0.02)
    test = rows(60, 2)
    logits = np.stack(served_logits(models[1], models[1].tasks["intent"], [row["text"] for row in test]))
    labels = models[1].tasks["intent"].labels
    right = np.mean([labels[at] == row["label"] for at, row in zip(logits.argmax(1), test, strict=True)])
    if method is not None:
        assert right > 0.5, right
        return
    assert right > 0.9
    # It is trained further like any model of ours, without the verbaliser: its template and its head go on.
    again = {"train": "train.jsonl", "head": {"pooling": "mask", "hidden": 32, "layer_norm": True}}
    path = write_recipe("again", encoder=str(tmp_path / "full"), tasks={"intent": again}, **{**PLAIN, **STILL})
    fit(path, few, tmp_path / "again", quiet=True)
    export(tmp_path / "again", tmp_path / "further")
    further = Model.load(tmp_path / "further", device="cpu")
    assert_same_answers(models[1], further, within=1e-3)


@pytest.mark.parametrize(
    ("verbaliser", "keys", "message"),
    [
        ({"template": "it is {mask}"}, {}, r"expected a template with one {mask}, and one {text} at its end"),
        ({"template": "{text} it is {mask}"}, {}, r"expected a template with one {mask}, and one {text} at its end"),
        (
            {"template": "zoë {mask} {text}"},
            {},
            r"verbaliser.template: 'zoë \[MASK\]'|'zoë {mask}' has words that are unknown",
        ),
        (
            {"template": "my card " * 4 + "{mask} {text}"},
            {},
            r"9 tokens before max_tokens 24 are more than .* max_positions 32",
        ),
        (
            {"words": WORDS | {"lost": "somebody card"}},
            {},
            r"words.lost: 'somebody card' is no single token of the encoder",
        ),
        ({"words": WORDS | {"lost": "money"}}, {}, r"words.transfer: 'money' stands for 'lost', too"),
        (
            {"words": {"lost": "card"}},
            {},
            r"verbaliser.words: no word for label 'other'; expected one for each of 3 labels",
        ),
        (
            {"words": WORDS | {"stolen": "stolen"}},
            {},
            r"verbaliser.words: no label 'stolen'; expected words for 3 labels",
        ),
        ({}, {"method": "prompt"}, r"tasks.intent.verbaliser: prompt puts tokens of its own before a text; use lora"),
        ({}, {"encoder": RECIPE["encoder"]}, r"tasks.intent.verbaliser: an encoder from scratch knows no word"),
        ({}, {"frozen": True}, r"tasks.intent.verbaliser: the encoder is frozen"),
        ({}, {"beside": {"places": RECIPE["tasks"]["places"]}}, r"is read before every text, found intent, places"),
        (
            {},
            {"head": {"hidden": 8}},
            r"`verbaliser` makes the head of masked words that of the task; leave `head` out",
        ),
        (
            None,
            {"head": {"pooling": "mask"}},
            r"tasks.intent.head.pooling: tiny-bert has no template; set `verbaliser`",
        ),
        (None, {"head": {"layer_norm": True}}, r"`layer_norm` normalises a hidden layer: set `hidden`"),
    ],
)
def test_what_cannot_be_learned_so_is_refused_in_one_line_before_training(
    few: Path,
    masked: Path,
    tmp_path: Path,
    write_recipe: WriteRecipe,
    verbaliser: dict[str, Any] | None,
    keys: dict[str, Any],
    message: str,
) -> None:
    rest = dict(keys)
    task = {"train": "train.jsonl"} | ({"head": rest.pop("head")} if "head" in rest else {})
    task |= {} if verbaliser is None else {"verbaliser": VERBALISER | verbaliser}
    encoder = {"source": str(masked), "frozen": True} if rest.pop("frozen", False) else str(masked)
    tasks = {"intent": task} | rest.pop("beside", {})
    path = write_recipe(**{"encoder": encoder, "tasks": tasks, **PLAIN, **rest})
    with pytest.raises(SetupError, match=message) as caught:
        fit(path, few, tmp_path / "run", quiet=True)
    assert "\n" not in str(caught.value)
    if "verbaliser`" not in message and "layer_norm" not in message and "expected a template" not in message:
        assert str(caught.value) in check_data(load_recipe(path), few).problems
