"""A pre-training from its recipe to an encoder that tasks start from."""

import json
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import typer
import yaml
from safetensors.numpy import load_file
from stopped_training import Stopped
from tiny_training import RECIPE, rows, write_jsonl
from transformers import BertForMaskedLM
from typer.testing import CliRunner

from murmura.runtime.errors import SetupError
from murmura.training.cli import pretrain as command
from murmura.training.cli import train as training
from murmura.training.compute.state_file import CannotResume
from murmura.training.fit.loop import fit
from murmura.training.model.encoders import load
from murmura.training.pretrain import loop
from murmura.training.pretrain.loop import pretrain
from murmura.training.pretrain.material import read_material
from murmura.training.pretrain.setup import prepare
from murmura.training.pretrain.stage import read_tasks
from murmura.training.recipe.recipe import load_pretraining
from murmura.training.report.page_data import PageData
from murmura.training.report.sections.pretraining import make_pretraining
from murmura.training.run_folders.curves import read_curves
from murmura.training.run_folders.run_folder import RunFolder

ALL = ["masked_words", "sentence_embedding", "next_text"]
WEIGHTS = "model.safetensors"


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """A folder with texts.txt, forty documents of three texts."""
    documents = ("\n".join(row["text"] for row in rows(3, seed)) for seed in range(40))
    (tmp_path / "texts.txt").write_text("\n\n".join(documents))
    return tmp_path


@pytest.fixture
def write(texts: Path) -> Callable[..., Path]:
    """`write(objectives=..., encoder=...)` writes a recipe of six steps; keys of `pretrain`, but `encoder` and `tasks`."""

    def written(**keys: Any) -> Path:
        top = {key: keys.pop(key) for key in ("encoder", "tasks", "max_tokens") if key in keys}
        stage = {"texts": "texts.txt", "steps": 6, "batch_size": 8, **keys}
        common = {name: RECIPE[name] for name in ("encoder", "max_tokens", "threads")}
        path = texts / "pre.yaml"
        path.write_text(yaml.safe_dump({**common, "save_minutes": 0, "trackers": [], **top, "pretrain": stage}))
        return path

    return written


def run(path: Path, name: str = "enc", **options: Any) -> Any:
    folder = path.parent
    recipe = load_pretraining(path)
    return pretrain(recipe, path, folder, folder / f"{name}.run", folder / name, quiet=True, **options)


def stop_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    take = loop._take_step

    def take_or_stop(pretrained: Any, optimiser: Any, at: int) -> float:
        if at == step:
            raise Stopped
        return take(pretrained, optimiser, at)

    monkeypatch.setattr(loop, "_take_step", take_or_stop)


@pytest.mark.parametrize("with_pairs_and_new_words", [False, True])
def test_an_interrupted_pretraining_goes_on_to_the_same_bytes(
    write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, with_pairs_and_new_words: bool
) -> None:
    path = write(objectives=ALL)
    if with_pairs_and_new_words:
        made = rows(24, 1)
        pairs = [
            {"text": a["text"], "text_pair": b["text"], "not": c["text"]}
            for a, b, c in zip(*[iter(made)] * 3, strict=True)
        ]
        write_jsonl(path.parent / "pairs.jsonl", pairs)
        embedding = {"pairs": {"path": "pairs.jsonl", "negative": "not"}}
        path = write(
            objectives={"masked_words": None, "sentence_embedding": embedding},
            encoder={**RECIPE["encoder"], "vocab_size": 100},
            new_words={"least_count": 20, "least_pieces": 3, "most": 2},
        )
    whole = run(path, "whole")
    assert (len(whole.new_words), whole.objectives["sentence_embedding"]) == (
        (2, "8 pairs") if with_pairs_and_new_words else (0, "120 texts")
    )
    with monkeypatch.context() as patch:
        stop_at(4, patch)
        with pytest.raises(Stopped):
            run(path)
    assert not (path.parent / "enc").exists()
    resumed = run(path, resume=True)
    assert resumed.model_dump(exclude={"cpu_seconds"}) == whole.model_dump(exclude={"cpu_seconds"})
    for name in (WEIGHTS, "config.json", "tokenizer.json"):
        assert (path.parent / "enc" / name).read_bytes() == (path.parent / "whole" / name).read_bytes()
    assert not list((path.parent / "enc.run").glob("state*"))
    assert run(path, resume=True) == resumed, "a finished one is left as it is"


def test_one_that_reads_labels_goes_on_to_the_same_bytes_and_not_with_others(
    write: Callable[..., Path], texts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = rows(24, 1)
    write_jsonl(texts / "few.jsonl", made)
    path = write(objectives=["labelled_texts"], tasks={"intent": {"train": "few.jsonl"}}, texts=None)

    def tasks() -> dict[str, Any]:
        return {"tasks": read_tasks(load_pretraining(path), path.parent)}

    whole = run(path, "whole", **tasks())
    assert whole.objectives["labelled_texts"].endswith("texts of 3 labels")
    with monkeypatch.context() as patch:
        stop_at(4, patch)
        with pytest.raises(Stopped):
            run(path, **tasks())
    write_jsonl(texts / "few.jsonl", [{**row, "label": made[at - 1]["label"]} for at, row in enumerate(made)])
    with pytest.raises(CannotResume):
        run(path, resume=True, **tasks())
    write_jsonl(texts / "few.jsonl", made)
    run(path, resume=True, **tasks())
    assert (texts / "enc" / WEIGHTS).read_bytes() == (texts / "whole" / WEIGHTS).read_bytes()


def test_labelled_texts_without_a_task_that_has_labels_are_refused(write: Callable[..., Path]) -> None:
    with pytest.raises(SetupError, match="no classification, whose rows have the labels"):
        run(write(objectives=["labelled_texts"]))


def test_another_state_is_not_gone_on_with(write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    path = write()
    with monkeypatch.context() as patch:
        stop_at(3, patch)
        with pytest.raises(Stopped):
            run(path)
    texts = path.parent / "texts.txt"
    texts.write_text(texts.read_text() + "\none more\n")
    with pytest.raises(CannotResume, match="the texts, the encoder or its vocabulary are not those that it began with"):
        run(path, resume=True)
    write(lr=1e-3)
    with pytest.raises(CannotResume, match="begun with another recipe; pre-train without --resume"):
        run(path, resume=True)


def test_the_result_is_a_checkpoint_of_berts_own_form_whose_head_goes_on(write: Callable[..., Path]) -> None:
    small = {**RECIPE["encoder"], "vocab_size": 100}
    path = write(encoder=small, new_words={"least_count": 20, "least_pieces": 3, "most": 2})
    record = run(path)
    assert len(record.new_words) == 2
    folder = path.parent / "enc"
    found, info = BertForMaskedLM.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"]
    assert found.cls.predictions.decoder.weight.data_ptr() == found.bert.embeddings.word_embeddings.weight.data_ptr()
    assert load(str(folder)).spec.vocab_size == len(found.cls.predictions.bias)
    again = write(encoder=str(folder), steps=1, lr=1e-9, objectives="masked_words")
    run(again, "again")
    head = [load_file(path.parent / name / WEIGHTS)["cls.predictions.bias"] for name in ("enc", "again")]
    assert np.abs(head[0]).max() > 0
    assert np.allclose(*head, atol=2e-3)


def test_tasks_start_from_what_a_stage_learned_and_go_on_after_an_interruption(
    write: Callable[..., Path], texts: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("train.jsonl", "test.jsonl"):
        (texts / name).write_bytes((data / name).read_bytes())
    path = write(tasks={"intent": {"train": "train.jsonl"}}, steps=4)
    keys = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump({**keys, "budget": {"steps": 3, "evaluations": 1}}))
    with monkeypatch.context() as patch:
        stop_at(3, patch)
        with pytest.raises(Stopped):
            fit(path, texts, texts / "run", quiet=True)
    lines: list[str] = []
    record = fit(path, texts, texts / "run", quiet=True, resume=True, print_line=lines.append)
    assert lines[:2] == [
        "pretrain: 120 texts of 40 documents, 1260 tokens",
        "pretrain: masked_words: 120 texts, weight 1",
    ]
    assert record.pretraining is not None
    assert record.pretraining["steps"] == 4
    curves = read_curves(texts / "run" / "pretrain")
    assert [entry["step"] for entry in curves] == [4]
    page = PageData(manifest=cast(Any, None), scores={}, record=record, pretraining=curves)
    section = make_pretraining(page)
    assert section is not None
    assert "4 steps from scratch in " in section.body
    assert "masked_words: 120 texts." in section.body
    assert record.encoder.sha256 == load(str(texts / "run" / "pretrained")).spec.sha256
    assert not (texts / "run" / "pretrain" / "state.safetensors").exists()


def test_without_texts_those_of_the_tasks_are_read(write: Callable[..., Path], texts: Path) -> None:
    write_jsonl(texts / "train.jsonl", [{"text": f"text {n % 6}", "label": "ab"[n % 2]} for n in range(40)])
    path = write(tasks={"intent": {"train": "train.jsonl"}}, texts=None)
    app = typer.Typer()
    app.command()(command.pretrain)
    arguments = [str(path), "--data", str(texts), "--out", str(texts / "enc")]
    shown = CliRunner().invoke(app, [*arguments, "--check"], catch_exceptions=False)
    assert "pretrain: 5 texts of 5 documents" in shown.output
    assert not (texts / "enc.run").exists()
    shown = CliRunner().invoke(app, [*arguments, "--quiet"], catch_exceptions=False)
    assert f"start from it: `encoder: {texts / 'enc'}` in a recipe" in shown.output
    assert json.loads((texts / "enc" / "pretraining.json").read_text())["steps"] == 6


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        (
            {"objectives": ["mlm"]},
            "unknown objective 'mlm'; expected some of masked_words, sentence_embedding, next_text",
        ),
        (
            {"objectives": {"mlm": 1}},
            "objectives.mlm: unknown key; expected one of labelled_texts, masked_words, next_text, sentence_emb",
        ),
        ({"objectives": []}, "nothing to learn; expected some of"),
        ({"objectives": "sentence_embedding", "dropout": 0}, "needs a dropout above 0"),
        ({"texts": "nothing.txt"}, "nothing.txt: no such file"),
        ({"texts": None}, "no `texts`, and no tasks whose training texts could be read"),
        ({"texts": {"path": "texts.txt", "format": "word"}}, "unknown format 'word'; expected one of "),
        ({"texts": {"path": "flat.csv"}, "objectives": "next_text"}, "next_text: nothing to learn from: 0 texts that"),
        ({"max_tokens": 64}, "max_tokens: 64 is more than the encoder's max_positions 32"),
        (
            {"texts": "chinese.txt", "encoder": "enc"},
            "texts of pretrain that are mostly unknown to .* vocabulary: 100%",
        ),
    ],
)
def test_a_mistake_is_one_line_before_the_first_step(
    write: Callable[..., Path], texts: Path, base: Path, keys: dict[str, Any], problem: str
) -> None:
    (texts / "chinese.txt").write_text("我的卡丢了\n请转账\n")
    (texts / "flat.csv").write_text("text\none\ntwo\n")
    keys = {**keys, "encoder": str(base)} if "encoder" in keys else keys
    with pytest.raises(SetupError, match=problem):
        run(write(**keys))
    assert not (texts / "enc.run").exists()


def test_a_loss_that_is_no_number_names_step_objective_and_texts(write: Callable[..., Path]) -> None:
    with pytest.raises(SetupError, match=r"pretrain: step \d+: the (loss of masked_words|gradient) is (nan|inf)"):
        run(write(lr=1e30, objectives=ALL[:2]))


def test_a_folder_of_something_else_is_not_replaced(write: Callable[..., Path], texts: Path) -> None:
    (texts / "enc").mkdir()
    (texts / "enc" / "notes").write_text("mine")
    with pytest.raises(SetupError, match="not empty and not an encoder that was pre-trained here"):
        run(write())


def test_a_check_of_the_whole_recipe_counts_the_texts(write: Callable[..., Path], texts: Path, data: Path) -> None:
    (texts / "train.jsonl").write_bytes((data / "train.jsonl").read_bytes())
    path = write(tasks={"intent": {"train": "train.jsonl"}}, objectives=ALL)
    app = typer.Typer()
    app.command()(training.train)
    shown = CliRunner().invoke(
        app, [str(path), "--data", str(texts), "--out", str(texts / "model"), "--check"], catch_exceptions=False
    )
    assert "pretrain: next_text: 80 texts that another one follows, weight 1" in shown.output
    assert "checked: it can be trained" in shown.output


def write_pairs(folder: Path, count: int) -> None:
    made = rows(2 * count, 1)
    pairs = [{"text": a["text"], "text_pair": b["text"]} for a, b in zip(made[::2], made[1::2], strict=True)]
    write_jsonl(folder / "pairs.jsonl", pairs)


@pytest.mark.parametrize(
    ("objectives", "most"),
    [
        (["masked_words"], 120),
        ({"sentence_embedding": {"pairs": "pairs.jsonl"}}, 150),
        ({"masked_words": 1, "sentence_embedding": {"pairs": "pairs.jsonl"}}, 150),
        (["next_text"], 80),
        (["labelled_texts"], 203),
        ({"masked_words": 1, "labelled_texts": 1}, 203),
    ],
    ids=["texts", "pairs", "texts and pairs", "next texts", "labels", "texts and labels"],
)
def test_epochs_are_passes_over_the_rows_of_the_longest_objective(
    write: Callable[..., Path], texts: Path, objectives: Any, most: int
) -> None:
    write_pairs(texts, 150)
    write_jsonl(texts / "many.jsonl", [{**row, "text": f"{row['text']} {at}"} for at, row in enumerate(rows(222, 2))])
    tasks = {"intent": {"train": "many.jsonl"}}
    path = write(objectives=objectives, tasks=tasks, steps=None, epochs=2)
    recipe = load_pretraining(path)
    material = read_material(recipe, recipe.pretrain, texts, read_tasks(recipe, texts))
    run = prepare(recipe, recipe.pretrain, material, RunFolder(texts / "run"))
    assert len(run.plan) == math.ceil(2 * most / 8)
    longest = max(range(len(run.plan[0])), key=lambda at: len(run.network.objectives[at].lengths))
    read = Counter(row for step in run.plan for row in step[longest])
    assert len(read) == most
    assert min(read.values()) == 2


def test_pairs_alone_need_no_texts_and_refuse_those_that_nothing_reads(
    write: Callable[..., Path], texts: Path, base: Path
) -> None:
    write_pairs(texts, 20)
    pairs = {"sentence_embedding": {"pairs": "pairs.jsonl"}}
    said: list[str] = []
    record = run(write(objectives=pairs, texts=None), print_line=said.append)
    assert (record.objectives, record.texts["texts"]) == ({"sentence_embedding": "20 pairs"}, 40)
    assert said[0].startswith("pretrain: 40 texts, ")
    ours = write(objectives=pairs, encoder=str(base))
    with pytest.raises(
        SetupError, match=r"pre\.yaml:\d+: pretrain\.texts: has no effect: sentence_embedding reads its `pa"
    ):
        run(ours, "other")
    vocabularies = []
    for given in (None, "words.txt"):
        (texts / "words.txt").write_text("zebras quack\n" * 9)
        path = write(objectives=pairs, texts=given)
        recipe = load_pretraining(path)
        material = read_material(recipe, recipe.pretrain, texts, [])
        assert material.documents == []
        vocabularies.append(material.checkpoint.tokenizer.get_vocab())
    assert ["zebras" in vocabulary for vocabulary in vocabularies] == [False, True]


def test_pairs_that_are_mostly_unknown_are_refused(write: Callable[..., Path], texts: Path, base: Path) -> None:
    write_jsonl(texts / "pairs.jsonl", [{"text": "我的卡丢了", "text_pair": "请转账"}] * 4)
    keys = {"objectives": {"sentence_embedding": {"pairs": "pairs.jsonl"}}, "texts": None, "encoder": str(base)}
    with pytest.raises(SetupError, match=r"texts of pretrain that are mostly unknown to .* vocabulary: 100%"):
        run(write(**keys))
