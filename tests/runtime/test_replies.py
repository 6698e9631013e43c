"""A model that generates: its folder, its replies, and what is refused."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from tiny_decoder import ENCODER, PIECES, decode_by_hand, end_sooner, reply_task
from tiny_model import TASKS, WORDS, write_tiny_model

from murmura.runtime.batching.engine import Engine
from murmura.runtime.errors import ModelRefused, VersionRefused
from murmura.runtime.model.folders.folder import check_folder, parse_manifest, write_manifest
from murmura.runtime.model.graph.build import Form, describe_model
from murmura.runtime.model.graph.decoder import build_step
from murmura.runtime.model.inputs import TextPair
from murmura.runtime.model.kinds.registry import kind_of
from murmura.runtime.model.model import Model
from murmura.runtime.release.trial_process import prove
from murmura.schemas.result import GenerationOutput
from murmura.schemas.serving_event import RejectReason

TASK = reply_task(max_tokens=24)
PAIRS = [TextPair(" ".join(WORDS[n : n + 3]), " ".join(WORDS[(7 * n) % 20 :][: 1 + (5 * n) % 13])) for n in range(18)]


def write_model(folder: Path, graphs: Sequence[Form] = ("ragged",)) -> Path:
    return write_tiny_model(folder, [*TASKS, TASK], graphs=graphs, added=end_sooner(TASK))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("generating"), ("ragged", "padded"))


@pytest.fixture(scope="module")
def model(folder: Path) -> Model:
    return Model.load(folder, device="cpu")


def test_replies_are_those_of_the_decoder_by_hand(folder: Path, model: Model) -> None:
    weights = load_file(folder / "model.safetensors")
    for pair, reply in zip(PAIRS, model.generate(PAIRS), strict=True):
        hidden = model.run(model.encode([pair])).hidden
        pieces: list[int] = []
        chances = []
        while len(pieces) < 24 and not (pieces and pieces[-1] == 0):
            logits = decode_by_hand(weights, TASK, hidden, pieces)[-1]
            pieces.append(int(logits.argmax()))
            chances.append(logits.max() - np.log(np.exp(logits - logits.max()).sum()) - logits.max())
        ended = pieces[-1] == 0
        assert reply.tokens == tuple(pieces[:-1] if ended else pieces)
        assert reply.finish == ("end" if ended else "length")
        assert reply.score == pytest.approx(np.exp(np.mean(chances)), abs=1e-4)
        assert reply.text == "".join(PIECES[piece] for piece in reply.tokens).removeprefix(" ")


def test_a_reply_names_no_slot_that_it_may_not(model: Model) -> None:
    allowed = [("date",), (), ("city", "date"), None] * 5
    replies = model.generate(PAIRS, allowed[: len(PAIRS)], task="reply")
    used = {number for reply, names in zip(replies, allowed, strict=False) if names == () for number in reply.tokens}
    assert not {PIECES[number] for number in used} & {" {date}", "{date}", " {city}", "{city}", "{", "}"}
    named = {PIECES[number] for reply in replies[::4] for number in reply.tokens}
    assert not {each for each in named if "city" in each}
    assert replies[3] == model.generate([PAIRS[3]])[0]
    assert any("{" in reply.text for reply in model.generate(PAIRS))


def test_a_pair_whose_text_others_read_alone_gets_the_same_reply(model: Model) -> None:
    alone = [pair._replace(alone=True) for pair in PAIRS]
    assert model.generate(alone) == model.generate(PAIRS)


def test_of_turns_that_are_too_long_the_newest_is_read_whole(model: Model) -> None:
    newest = "user: my card was lost"
    long = TextPair("inform date", "\n".join(["user: " + "please help me " * 20, "agent: hello", newest]))
    kept = TextPair("inform date", f"agent: hello\n{newest}")
    (encoded, whole) = model.encode([long, kept])
    assert (encoded.ids, encoded.truncated) == (whole.ids, True)
    reply, want = model.generate([long, kept])
    assert (reply.truncated, want.truncated) == (True, False)
    assert (reply.cut, reply._replace(truncated=False)) == (False, want)
    alone = TextPair("inform date", "agent: hello\nuser: " + "please help me " * 20)
    (cut,) = model.encode([alone])
    assert (cut.truncated, cut.cut, model.generate([alone])[0].cut) == (True, True, True)
    assert cut.ids == model.encode([alone._replace(second=alone.second.split("\n")[1])])[0].ids


@pytest.mark.parametrize(
    ("pairs", "slots", "problem"),
    [
        ([PAIRS[0], "hello"], None, "task reply reads two texts; expected a TextPair, found one text"),
        (PAIRS[:2], [None], "expected the slots of 2 replies, found 1"),
        (PAIRS[:1], ["city"], "expected the names of slots for each reply, found a text"),
        (PAIRS[:2], [None, {"city", "town"}], "task reply has no slot 'town'; its slots are city, date"),
    ],
)
def test_what_no_reply_can_be_generated_for_is_refused(model: Model, pairs, slots, problem) -> None:
    with pytest.raises(ValueError, match=problem):
        model.generate(pairs, slots)


def test_predict_answers_pairs_on_all_tasks_and_texts_on_those_that_read_one(model: Model) -> None:
    pair, text = model.predict([PAIRS[0], "hello"])
    reply = model.generate([PAIRS[0]])[0]
    expected = {"kind": "generation", "text": reply.text, "score": pytest.approx(reply.score), "finish": reply.finish}
    assert pair["reply"] == expected
    assert GenerationOutput.model_validate(pair["reply"]).model_dump() == pair["reply"]
    assert {*pair} == {task.name for task in (*TASKS, TASK)}
    assert {*text} == {task.name for task in TASKS}
    assert model.predict([PAIRS[0]], ["reply"]) == [{"reply": expected}]


async def test_the_engine_answers_a_pair_with_a_reply_beside_the_other_tasks(model: Model) -> None:
    engine = Engine(model, max_in_flight=2, token_budget=60)
    await engine.start()
    try:
        found = await asyncio.gather(*(engine.predict(pair.text, text_pair=pair.second) for pair in PAIRS))
    finally:
        await engine.stop(5)
    assert [prediction.outputs["reply"]["text"] for prediction in found] == [r.text for r in model.generate(PAIRS)]
    assert {*found[0].outputs} == {task.name for task in (*TASKS, TASK)}


def test_the_padded_graph_gives_the_same_replies(folder: Path, model: Model) -> None:
    padded = Model.load(folder, device="cpu", graph="padded")
    assert [r.tokens for r in padded.generate(PAIRS)] == [r.tokens for r in model.generate(PAIRS)]


def test_a_model_of_several_decoders_asks_which(tmp_path: Path, tiny_model: Path) -> None:
    tasks = [TASK, reply_task(name="other", layers=1)]
    several = Model.load(write_tiny_model(tmp_path / "m", tasks, added=end_sooner(*tasks, by=3.0)), device="cpu")
    with pytest.raises(ValueError, match="that generates: reply, other; got None"):
        several.generate(PAIRS[:1])
    assert several.generate(PAIRS[:1], task="other") != several.generate(PAIRS[:1], task="reply")
    with pytest.raises(ValueError, match="that generates: none; got reply"):
        Model.load(tiny_model, device="cpu").generate(PAIRS[:1], task="reply")


def test_the_reference_sample_holds_replies_and_a_changed_decoder_is_refused(folder: Path, tmp_path: Path) -> None:
    stored = json.loads((folder / "reference.json").read_text())["outputs"]["reply"]
    assert len(stored) == 5
    assert all(len(piece) == 2 and piece[0] < len(PIECES) and piece[1] <= 0 for reply in stored for piece in reply)
    copy = write_model(tmp_path / "m")
    weights = load_file(copy / "model.safetensors")
    weights["heads.reply.transform.norm.bias"] = weights["heads.reply.transform.norm.bias"][::-1].copy()
    (copy / "reply.step.onnx").write_bytes(build_step(ENCODER, TASK, weights, describe_model(check_folder(copy))))
    with pytest.raises(ModelRefused, match=r"reply\.step\.onnx is not the file that the manifest names"):
        Model.load(copy, device="cpu")
    manifest = check_folder(folder)
    write_manifest(copy, manifest, {entry.path: entry.role for entry in manifest.files if "padded" not in entry.path})
    with pytest.raises(ModelRefused, match="task reply does not reproduce reference text 0"):
        Model.load(copy, device="cpu")


def test_a_folder_without_a_graph_of_its_decoder_is_refused(folder: Path, tmp_path: Path) -> None:
    copy = write_model(tmp_path / "m")
    manifest = check_folder(copy)
    write_manifest(copy, manifest, {entry.path: entry.role for entry in manifest.files if entry.role != "graph:step"})
    for read in (check_folder, lambda path: Model.load(path, device="cpu")):
        with pytest.raises(
            ModelRefused, match=r"task reply generates, and the manifest names no file reply\.step\.onnx"
        ):
            read(copy)


def test_a_version_whose_decoder_gives_no_numbers_is_refused_by_its_trial(tmp_path: Path) -> None:
    copy = write_model(tmp_path / "m")
    assert prove(copy, "ragged", timeout_s=120, memory_bytes=8 * 2**30) == copy
    manifest = check_folder(copy)
    weights = load_file(copy / "model.safetensors")
    weights["heads.reply.norm.weight"][:] = np.nan
    (copy / "reply.step.onnx").write_bytes(build_step(ENCODER, TASK, weights, {}))
    write_manifest(copy, manifest, {entry.path: entry.role for entry in manifest.files})
    with pytest.raises(VersionRefused, match="task reply gave a reply whose values are not finite") as refused:
        prove(copy, "ragged", timeout_s=120, memory_bytes=8 * 2**30)
    assert refused.value.reason == RejectReason.NOT_FINITE


def test_a_decoder_that_never_ends_is_cut_at_its_maximum(tmp_path: Path) -> None:
    copy = write_model(tmp_path / "m")
    manifest = check_folder(copy)
    weights = load_file(copy / "model.safetensors")
    weights["heads.reply.bias"][0] = -100
    (copy / "reply.step.onnx").write_bytes(build_step(ENCODER, TASK, weights, {}))
    write_manifest(copy, manifest, {entry.path: entry.role for entry in manifest.files if entry.role != "reference"})
    replies = Model.load(copy, device="cpu").generate(PAIRS)
    assert {(len(reply.tokens), reply.finish) for reply in replies} == {(24, "length")}


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"generation": None}, "a task of kind generation needs the field `generation`"),
        ({"labels": [" a", "{end}"]}, "begin with '{end}', found"),
        ({"labels": ["{end}"]}, "begin with '{end}', found"),
        ({"out_of_scope": " a"}, "a task of kind generation has no out_of_scope label"),
    ],
)
def test_a_task_that_cannot_generate_is_refused_with_its_manifest(folder: Path, changed, problem) -> None:
    manifest = check_folder(folder)
    spoiled = manifest.model_copy(update={"tasks": [*manifest.tasks[:-1], TASK.model_copy(update=changed)]})
    with pytest.raises(ModelRefused, match=problem):
        parse_manifest(spoiled.model_dump_json().encode(), "m")


def test_pieces_are_no_labels_that_people_may_name() -> None:
    kind = kind_of(TASK)
    assert kind.known_labels(TASK) == frozenset()
    answer = {"kind": "generation", "text": "Your {city}\nis here", "score": 0.5, "finish": "end"}
    assert kind.format_line(answer) == "Your {city} is here 0.50"
    assert (kind.target_of_answer(answer), kind.target_of_correction("  Hello ")) == ("Your {city}\nis here", "Hello")
    assert kind.accepts_correction("Hello")
    assert not any(kind.accepts_correction(value) for value in (" ", ["Hello"], None))
    assert [*kind.list_answers(answer)] == []
