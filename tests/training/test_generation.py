"""Tasks that generate replies, from rows to a model folder that serves them."""

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.numpy import load_file
from stopped_training import Stopped
from tiny_replies import REPLIES, TASK, reply_rows
from tiny_training import RECIPE, write_jsonl

from murmura.runtime.errors import SetupError
from murmura.runtime.generation.input_format import format_input
from murmura.runtime.model.deltas.delta import assemble
from murmura.runtime.model.kinds.generation import Generation
from murmura.runtime.model.model import Model
from murmura.schemas.acts import Act, Utterance
from murmura.training.data.example import Example
from murmura.training.evaluate.baselines import embed
from murmura.training.evaluate.evaluate import evaluate
from murmura.training.export import reply_parity
from murmura.training.export.export import export
from murmura.training.fit.check_data import check_data
from murmura.training.fit.loop import fit
from murmura.training.fit.setup import prepare
from murmura.training.fit.steps.gradient import compute_gradient
from murmura.training.kinds.replies.decoder import Decoded
from murmura.training.recipe.recipe import load_recipe
from murmura.training.report.decisions import describe_decisions
from murmura.training.run_folders.run_folder import RunFolder


def put_recipe(folder: Path, recipe: dict[str, Any], name: str = "model") -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path


@pytest.fixture(scope="module")
def data(reply_desk: Path) -> Path:
    return reply_desk


@pytest.fixture(scope="module")
def run(reply_desk: Path) -> Path:
    """Return the folder of a training of replies and labels together."""
    return reply_desk / "run"


@pytest.fixture(scope="module")
def exported(reply_desk: Path) -> Path:
    """Return the model folder of the run, which nobody writes into."""
    return reply_desk / "desk"


@pytest.fixture(scope="module")
def model(exported: Path) -> Model:
    return Model.load(exported)


def say(model: Model, said: str, *acts: Act) -> str:
    generation = model.manifest.task("reply").generation
    assert generation is not None
    given = format_input([Utterance(role="user", text=said)], acts, generation)
    return model.generate([given], task="reply")[0].text


def test_a_model_trained_on_replies_words_the_acts_as_its_rows_do(model: Model) -> None:
    assert say(model, "hey i need help", Act(act="request", slot="city")) == "Which city is it?"
    assert say(model, "good morning i need help", Act(act="request", slot="city")) == "Where do you live?"
    assert say(model, "hey i need a room", Act(act="offer", slot="date")) == "There is one on {date}, is that right?"


def test_other_tasks_of_the_model_answer_as_ever(model: Model) -> None:
    (found,) = model.predict(["i lost my card in london"], ["intent"])
    assert found["intent"]["label"] == "lost"


def test_the_manifest_holds_the_pieces_and_how_the_input_is_read(model: Model) -> None:
    task = model.manifest.task("reply")
    assert task.labels[0] == "{end}"
    assert " {city}" in task.labels
    assert task.generation is not None
    assert task.generation.slots == ["city", "date"]
    assert (task.generation.context, task.generation.acts, task.generation.layers) == (2, True, 1)


def test_the_score_from_which_replies_are_sent_is_chosen_on_validation_and_printed(model: Model, run: Path) -> None:
    task = model.manifest.task("reply")
    rows = task.threshold_rows
    assert task.thresholds.accept is not None
    assert rows is not None
    assert rows.genuine + rows.others == len(RunFolder(run).pairs()["reply"])
    assert rows.passed >= 0.98 * rows.genuine
    assert f"not sent below {task.thresholds.accept:g}, which {rows.passed} of" in describe_decisions(task)


def test_the_report_counts_slots_and_shows_replies(exported: Path, data: Path, tmp_path: Path) -> None:
    shutil.copytree(exported, tmp_path / "model")
    recipe = put_recipe(tmp_path, REPLIES | {"tasks": {"reply": TASK | {"test": "replies.jsonl"}}})
    (scores,) = evaluate(tmp_path / "model", data, recipe=recipe)["reply"].values()
    assert scores.figures["rows"] == 240
    assert scores.figures["exact"] == pytest.approx(1, abs=0.1)
    assert (scores.figures["slots_missing"], scores.figures["slots_invented"]) == (0, 0)
    assert scores.figures["bleu"] == pytest.approx(100, abs=5)
    report = (tmp_path / "model" / "report.md").read_text()
    assert re.search(r"\nbleu \d[\d.]* to \d+", report)
    assert "BLEU: nrefs:1|case:lc" in report
    best = scores.figures["bleu"]
    assert scores.figures["most_common_bleu"] < scores.figures["template_bleu"] <= best
    assert scores.figures["most_common_bleu"] < scores.figures["consensus_bleu"] <= best
    assert "| template_bleu |" in report
    assert "row    Which city is it?\nmodel  Which city is it?" in report
    assert "| slots_invented | 0 |" in report


def test_without_its_training_rows_the_report_of_replies_says_that_it_has_no_baselines(
    exported: Path, data: Path, tmp_path: Path
) -> None:
    shutil.copytree(exported, tmp_path / "model")
    task = TASK | {"test": "replies.jsonl", "train": "gone.jsonl"}
    recipe = put_recipe(tmp_path, REPLIES | {"tasks": {"reply": task}})
    (scores,) = evaluate(tmp_path / "model", data, recipe=recipe)["reply"].values()
    assert "most_common_bleu" not in scores.figures
    assert "No baselines: " in (tmp_path / "model" / "report.md").read_text()


def test_training_rows_are_embedded_once_for_the_baselines_of_all_sets(
    exported: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(exported, tmp_path / "model")
    write_jsonl(tmp_path / "few.jsonl", reply_rows(12, 3))
    task = TASK | {"test": "./few.jsonl", "reports": {"own": {"path": "./few.jsonl", "rows": 5}}}
    sizes = []

    def count(model: Model, examples: Sequence[Example]) -> Any:
        sizes.append(len(examples))
        return embed(model, examples)

    monkeypatch.setattr("murmura.training.evaluate.baselines.embed", count)
    recipe = put_recipe(tmp_path, REPLIES | {"tasks": {"reply": task}})
    scores = evaluate(tmp_path / "model", data, recipe=recipe)["reply"]
    assert all(score.figures["consensus_bleu"] is not None for score in scores.values())
    assert sizes == [240, 12, 5]


def test_a_delta_of_a_model_with_replies_is_assembled_and_answers(exported: Path, data: Path, tmp_path: Path) -> None:
    recipe = REPLIES | {"encoder": str(exported), "lora": True, "budget": {"steps": 4, "evaluations": 1}}
    fit(put_recipe(tmp_path, recipe), data, tmp_path / "run", quiet=True)
    export(tmp_path / "run", tmp_path / "delta", delta=True)
    assemble(tmp_path / "delta", exported, tmp_path / "assembled", weights=False)
    model = Model.load(tmp_path / "assembled")
    assert say(model, "hey i need help", Act(act="request", slot="city")).startswith("Which city")


def test_a_delta_holds_a_new_decoder_as_factors_of_the_layers_that_it_begins_from(
    base: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Generation, "find_fault", lambda *_: None)  # six steps teach no end
    recipe = REPLIES | {
        "encoder": str(base),
        "lora": {"rank": 2, "decoder_rank": 4},
        "budget": {"steps": 6, "evaluations": 1},
    }
    fit(put_recipe(tmp_path, recipe), data, tmp_path / "run", quiet=True)
    export(tmp_path / "run", tmp_path / "whole")
    export(tmp_path / "run", tmp_path / "delta", delta=True)
    assemble(tmp_path / "delta", base, tmp_path / "assembled")
    held = load_file(tmp_path / "delta/delta.safetensors")
    name = "derived/heads.reply.layers.0.cross.key.weight/encoder.layer.1.attention.self.key.weight"
    assert [held[f"{name}/{part}"].shape for part in "ab"] == [(4, 32), (32, 4)]
    assert not any(each.startswith("heads.reply.layers") and each.endswith("dense.weight") for each in held)
    whole, again = (load_file(tmp_path / each / "model.safetensors") for each in ("whole", "assembled"))
    assert whole.keys() == again.keys()
    assert all(np.allclose(whole[each], again[each], atol=2e-3) for each in whole)
    key = "heads.reply.layers.0.cross.key.weight"
    assert not np.allclose(whole[key], whole["encoder.layer.1.attention.self.key.weight"], atol=1e-4)


def test_validation_gives_the_loss_of_a_piece_and_its_mean_probability(run: Path) -> None:
    scores = RunFolder(run).record().validation["reply"]
    assert scores["main"] == pytest.approx(np.exp(-scores["loss"]))
    assert scores["main"] > 0.5


def test_validation_scores_greedy_replies(run: Path) -> None:
    scores = RunFolder(run).record().validation["reply"]
    assert scores["bleu"] > 80
    assert scores["rouge_l"] > 80


def test_an_interrupted_training_of_replies_goes_on_to_the_same_weights(data: Path, tmp_path: Path) -> None:
    recipe = REPLIES | {"budget": {"steps": 12, "evaluations": 2}, "save_minutes": 0}
    path = put_recipe(tmp_path, recipe)
    fit(path, data, tmp_path / "whole", quiet=True)

    def stop(progress: Any) -> None:
        raise Stopped

    with pytest.raises(Stopped):
        fit(path, data, tmp_path / "parts", quiet=True, on_progress=stop)
    fit(path, data, tmp_path / "parts", quiet=True, resume=True)
    one, other = RunFolder(tmp_path / "whole").weights(), RunFolder(tmp_path / "parts").weights()
    assert one.keys() == other.keys()
    assert all(np.array_equal(one[name], other[name]) for name in one)


def test_in_a_step_of_several_parts_a_part_counts_by_its_pieces(data: Path, tmp_path: Path) -> None:
    recipe = REPLIES | {"optimiser": {"clip": 1e9}, "precision": "fp32"}
    run = prepare(load_recipe(put_recipe(tmp_path, recipe)), data, RunFolder(tmp_path / "run"))
    found = []
    for parts in (1, 3):
        run.recipe = run.recipe.model_copy(update={"accumulate": parts})
        run.model.train().zero_grad()
        losses = compute_gradient(run, run.plan[0], [1.0]).losses
        gradients = [weight.grad.flatten() for weight in run.model.parameters() if weight.grad is not None]
        found.append((torch.cat(gradients), losses[0]))
    (whole, loss), (in_parts, sum_of_parts) = found
    assert float((in_parts - whole).norm() / whole.norm()) < 1e-5
    assert sum_of_parts == pytest.approx(loss, rel=1e-5)


def test_a_decoder_goes_on_with_the_pieces_it_has_and_gets_new_ones(
    run: Path, exported: Path, model: Model, tmp_path: Path
) -> None:
    new = [row | {"reply": f"{row['reply']} Zanzibar ahoy!"} for row in reply_rows(60, 5)]
    write_jsonl(tmp_path / "replies.jsonl", new)
    recipe = REPLIES | {"encoder": str(exported), "max_tokens": 32}
    begun = prepare(load_recipe(put_recipe(tmp_path, recipe)), tmp_path, RunFolder(tmp_path / "run"))
    before, labels = model.manifest.task("reply").labels, begun.tasks[0].labels
    assert labels[: len(before)] == before
    assert len(labels) > len(before)
    weights = RunFolder(run).weights()
    embedding = begun.model.heads[0].embedding.detach().numpy()
    assert np.array_equal(embedding[: len(before)], weights["heads.reply.embedding"][:-1])
    assert np.array_equal(embedding[-1], weights["heads.reply.embedding"][-1])
    assert np.array_equal(begun.model.heads[0].position.detach().numpy(), weights["heads.reply.position"])


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"labels": ["a", "b"]}, "makes its labels, the pieces of replies, of the training rows; leave `labels` out"),
        ({"open": True}, "feedback adds no labels to a task of kind generation; leave `open` out"),
        ({"train": [{"path": "replies.jsonl", "soft": "all"}]}, "cannot hold on to earlier replies; leave `soft` out"),
        ({"out_of_scope": "x"}, "has no out_of_scope label"),
        ({"one_of": ["a"]}, "does not use `one_of`"),
    ],
)
def test_what_a_task_of_replies_cannot_use_is_refused(changed: dict[str, Any], problem: str, tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=problem):
        load_recipe(put_recipe(tmp_path, REPLIES | {"tasks": {"reply": TASK | changed}}))


def test_keys_of_replies_are_refused_elsewhere(tmp_path: Path) -> None:
    tasks = {"intent": RECIPE["tasks"]["intent"] | {"layers": 3}}
    with pytest.raises(SetupError, match="does not use `layers`"):
        load_recipe(put_recipe(tmp_path, RECIPE | {"tasks": tasks}))


def test_replies_with_characters_that_training_lacks_are_counted_in_a_note(data: Path, tmp_path: Path) -> None:
    held = [
        row | {"reply": reply} for row, reply in zip(reply_rows(3, 1), ["Größe?", "à la carte", "Yes"], strict=True)
    ]
    write_jsonl(tmp_path / "held.jsonl", held)
    task = TASK | {"train": str(data / "replies.jsonl"), "test": "held.jsonl"}
    found = check_data(load_recipe(put_recipe(tmp_path, REPLIES | {"tasks": {"reply": task}})), tmp_path)
    assert found.problems == []
    notes = [note for note in found.reports["reply"].notes if "character" in note]
    assert notes == [
        "2 of 3 replies of test have a character that no training reply has, 'ö' say: the model cannot write it"
    ]


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"vocabulary": 40}, "task reply: 40 pieces are too few"),
        ({"layers": 9}, "a decoder of 9 layers cannot begin from an encoder of 2; set `layers` to 2 or less"),
    ],
)
def test_sizes_that_cannot_be_are_refused_in_one_line(
    changed: dict[str, Any], problem: str, data: Path, tmp_path: Path
) -> None:
    recipe = put_recipe(tmp_path, REPLIES | {"tasks": {"reply": TASK | changed}})
    with pytest.raises(SetupError, match=problem):
        fit(recipe, data, tmp_path / "run", quiet=True)


def test_an_export_whose_replies_are_not_those_of_torch_fails(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other(*_: Any) -> list[Decoded]:
        return [Decoded([at % 3 + 1, 0], [0.5, 0.5], [-0.1, -0.1]) for at in range(1000)]

    monkeypatch.setattr("murmura.training.export.export.torch_replies", lambda *given: other()[: len(given[-1])])
    with pytest.raises(SetupError, match="write other replies of task reply, piece 0 of row"):
        export(run, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_version_that_ends_no_reply_to_its_sample_is_not_exported(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    endless = RunFolder(tmp_path / "run")
    record, weights = endless.record(), endless.weights()
    weights["heads.reply.bias"][0] = -100
    endless.save_record(record, weights)
    with pytest.raises(SetupError, match="task reply: no reply to the reference sample ends before its 40 pieces"):
        export(tmp_path / "run", tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_both_graph_forms_are_held_against_replies_that_torch_decodes_once(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded = []

    def decode(model: Model, weights: Any, task: str, pairs: Sequence[Any]) -> list[Decoded]:
        decoded.append(task)
        return reply_parity.torch_replies(model, weights, task, pairs)

    monkeypatch.setattr("murmura.training.export.export.torch_replies", decode)
    manifest = export(run, tmp_path / "model", graphs=("ragged", "padded"))
    assert decoded == ["reply"]
    assert {"graph:ragged", "graph:padded"} <= {entry.role for entry in manifest.files}


def test_replies_may_part_where_the_two_best_pieces_are_equally_good(model: Model, run: Path) -> None:
    pairs = RunFolder(run).pairs()["reply"][:6]
    weights = RunFolder(run).weights()
    truth = reply_parity.torch_replies(model, weights, "reply", pairs)
    assert reply_parity.prove_replies(model, truth, "reply", pairs) == 0
    assert json.loads((run / "validation_pairs.json").read_text())["reply"]
