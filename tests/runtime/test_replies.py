"""A model that generates: its folder, its replies, and that a reply is the same in any company."""

import asyncio
import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from tiny_decoder import ENCODER, PIECES, decode_by_hand, decoder_weights, reply_task
from tiny_model import TASKS, write_tiny_model

from murmura.runtime.batching.engine import Engine
from murmura.runtime.errors import DeviceFailed, ModelFailed, ModelRefused, VersionRefused
from murmura.runtime.model.folder import check_folder, parse_manifest, write_manifest
from murmura.runtime.model.graph.build import describe_model
from murmura.runtime.model.graph.decoder import build_memory, build_step
from murmura.runtime.model.inputs import TextPair
from murmura.runtime.model.kinds.registry import kind_of
from murmura.runtime.model.model import Model
from murmura.runtime.model.onnx_session import open_session
from murmura.runtime.model.replies.reply_decoder import Generated, ReplyDecoder
from murmura.runtime.model.replies.reply_generator import ReplyGenerator
from murmura.runtime.model.replies.slot_table import Memory
from murmura.runtime.release.trial_process import prove
from murmura.schemas.manifest import EncoderSpec, Limits, ModelManifest, TaskSpec
from murmura.schemas.serving_event import RejectReason

TASK = reply_task(max_tokens=24)
WORDS = [
    "my",
    "card",
    "was",
    "lost",
    "and",
    "i",
    "want",
    "a",
    "new",
    "one",
    "please",
    "help",
    "to",
    "the",
    "account",
    "in",
    "london",
    "on",
    "monday",
    "it",
    "is",
    "great",
]
PAIRS = [TextPair(" ".join(WORDS[n : n + 3]), " ".join(WORDS[(7 * n) % 20 :][: 1 + (5 * n) % 13])) for n in range(18)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("generating"), [*TASKS, TASK], graphs=("ragged", "padded"))


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


def test_predict_answers_pairs_on_all_tasks_and_texts_on_those_that_read_one(model: Model) -> None:
    pair, text = model.predict([PAIRS[0], "hello"])
    reply = model.generate([PAIRS[0]])[0]
    expected = {"kind": "generation", "text": reply.text, "score": pytest.approx(reply.score), "finish": reply.finish}
    assert pair["reply"] == expected
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
    several = Model.load(write_tiny_model(tmp_path / "m", [TASK, reply_task(name="other", layers=1)]), device="cpu")
    with pytest.raises(ValueError, match="that generates: reply, other; got None"):
        several.generate(PAIRS[:1])
    assert several.generate(PAIRS[:1], task="other") != several.generate(PAIRS[:1], task="reply")
    with pytest.raises(ValueError, match="that generates: none; got reply"):
        Model.load(tiny_model, device="cpu").generate(PAIRS[:1], task="reply")


def test_the_reference_sample_holds_replies_and_a_changed_decoder_is_refused(folder: Path, tmp_path: Path) -> None:
    stored = json.loads((folder / "reference.json").read_text())["outputs"]["reply"]
    assert len(stored) == 5
    assert all(len(piece) == 2 and piece[0] < len(PIECES) and piece[1] <= 0 for reply in stored for piece in reply)
    copy = write_tiny_model(tmp_path / "m", [*TASKS, TASK])
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
    copy = write_tiny_model(tmp_path / "m", [*TASKS, TASK])
    manifest = check_folder(copy)
    write_manifest(copy, manifest, {entry.path: entry.role for entry in manifest.files if entry.role != "graph:step"})
    for read in (check_folder, lambda path: Model.load(path, device="cpu")):
        with pytest.raises(
            ModelRefused, match=r"task reply generates, and the manifest names no file reply\.step\.onnx"
        ):
            read(copy)


def real_size() -> tuple[ModelManifest, TaskSpec]:
    """The sizes of MiniLM: with those of a toy other kernels run."""
    task = reply_task(layers=3, max_tokens=40, labels=["{end}", *(f" {n}" for n in range(1499))])
    encoder = EncoderSpec(
        source="scratch",
        sha256="0" * 64,
        vocab_size=100,
        hidden_size=384,
        layers=1,
        heads=12,
        intermediate_size=1536,
        max_positions=128,
    )
    return ModelManifest(name="m", encoder=encoder, tasks=[task], limits=Limits(max_tokens=128), files=[]), task


@pytest.fixture(scope="module")
def decoder() -> ReplyDecoder:
    manifest, task = real_size()
    weights = decoder_weights(manifest.encoder, task, scale=0.05)
    weights["heads.reply.bias"][0] = 1.5  # replies of different lengths
    graphs = (build(manifest.encoder, task, weights, {}) for build in (build_memory, build_step))
    return ReplyDecoder(manifest, task, *(open_session(graph, "cpu") for graph in graphs))


@pytest.fixture(scope="module")
def memories(decoder: ReplyDecoder) -> list[Memory]:
    random = np.random.default_rng(3)
    lengths = random.integers(5, 120, 40)
    hidden = random.normal(size=(int(lengths.sum()), 384)).astype(np.float32)
    return decoder.remember(hidden, np.concatenate([[0], np.cumsum(lengths)]))


def decode(decoder: ReplyDecoder, memories: list[Memory], order: list[int], rows: int) -> dict[int, Generated]:
    generator = ReplyGenerator[int](decoder, max_rows=rows)
    for number in order:
        generator.add(number, memories[number])
    found = {}
    while not generator.idle:
        found |= generator.step()
    return found


def test_a_reply_is_bit_for_bit_the_same_alone_in_any_batch_and_in_any_place(
    decoder: ReplyDecoder, memories: list[Memory]
) -> None:
    order = list(range(len(memories)))
    alone = {number: decode(decoder, memories, [number], 1)[number] for number in order}
    assert len({reply.tokens for reply in alone.values()}) > 20
    assert len({len(reply.tokens) for reply in alone.values()}) > 5
    shuffled = np.random.default_rng(0).permutation(order).tolist()
    for together, rows in ((order, 2), (order, 17), (order[::-1], 16), (shuffled, 5), (shuffled, 40)):
        assert decode(decoder, memories, together, rows) == alone


def test_what_a_text_is_remembered_by_does_not_depend_on_its_batch(decoder: ReplyDecoder) -> None:
    hidden = np.random.default_rng(1).normal(size=(60, 384)).astype(np.float32)
    together = decoder.remember(hidden, np.array([0, 2, 37, 60]))
    for begin, end, found in zip((0, 2, 37), (2, 37, 60), together, strict=True):
        alone = decoder.remember(hidden[begin:end], np.array([0, end - begin]))[0]
        assert all(np.array_equal(one, other) for one, other in zip(found, alone, strict=True))


class Failing:
    """A step graph that fails whenever a reply has this piece, once it has steps behind it."""

    device = "cpu"

    def __init__(self, decoder: ReplyDecoder, error: Exception, marker: float) -> None:
        self.runner, self.error, self.marker = decoder.runners[1], error, marker

    def run(self, feeds):
        if (feeds["forbidden"][:, 7] == self.marker).any() and (feeds["position"] == 3).any():
            raise self.error
        return self.runner.run(feeds)

    def terminate(self, thread: int | None = None) -> None: ...


def failing(decoder: ReplyDecoder, error: Exception) -> ReplyDecoder:
    return ReplyDecoder(real_size()[0], decoder.task, decoder.runners[0], Failing(decoder, error, -5.0))


def test_of_a_step_that_fails_only_the_guilty_reply_fails(decoder: ReplyDecoder, memories: list[Memory]) -> None:
    generator = ReplyGenerator[int](failing(decoder, ModelFailed("broken")), max_rows=4)
    marked = np.zeros(1500, np.float32)
    marked[7] = -5.0
    for number in range(4):
        generator.add(number, memories[number], marked if number == 2 else None)
    found = {}
    while not generator.idle:
        found |= generator.step()
    assert str(found.pop(2)) == "broken"
    assert found == decode(decoder, memories, [0, 1, 3], 4)


def test_a_device_that_fails_fails_no_reply_and_the_step_can_be_repeated(
    decoder: ReplyDecoder, memories: list[Memory]
) -> None:
    broken = failing(decoder, DeviceFailed("no device"))
    generator = ReplyGenerator[int](broken, max_rows=4)
    marked = np.zeros(1500, np.float32)
    marked[7] = -5.0
    for number in range(3):
        generator.add(number, memories[number], marked)
    for _ in range(3):
        generator.step()
    with pytest.raises(DeviceFailed):
        generator.step()
    whole = ReplyDecoder(real_size()[0], decoder.task, *decoder.runners)
    generator.decoder = whole
    found = {}
    while not generator.idle:
        found |= generator.step()
    straight = ReplyGenerator[int](whole, max_rows=4)
    for number in range(3):
        straight.add(number, memories[number], marked)
    want = {}
    while not straight.idle:
        want |= straight.step()
    assert found == want


def test_a_reply_of_values_that_are_not_finite_fails_and_leaves_nothing_behind(
    decoder: ReplyDecoder, memories: list[Memory]
) -> None:
    generator = ReplyGenerator[str](decoder, max_rows=2)
    spoiled = Memory(np.full_like(memories[0].keys, np.nan), memories[0].values)
    generator.add("spoiled", spoiled)
    generator.add("sound", memories[1])
    generator.add("next", memories[2])
    found = dict(generator.step())
    assert "not finite" in str(found["spoiled"])
    while not generator.idle:
        found |= generator.step()
    want = decode(decoder, memories, [1, 2], 2)
    assert (found["sound"], found["next"]) == (want[1], want[2])


def test_late_and_cancelled_replies_give_their_rows_to_others(decoder: ReplyDecoder, memories: list[Memory]) -> None:
    generator = ReplyGenerator[int](decoder, max_rows=3)
    for number in range(6):
        generator.add(number, memories[number], deadline=10.0 if number in {1, 4} else None)
    generator.step()
    assert generator.drop_late(9.9) == []
    assert generator.drop_late(10.0) == [1, 4]
    generator.cancel(0)
    generator.cancel(99)
    found = {}
    while not generator.idle:
        found |= generator.step()
    assert found == decode(decoder, memories, [2, 3, 5], 3)


def test_a_version_whose_decoder_gives_no_numbers_is_refused_by_its_trial(tmp_path: Path) -> None:
    copy = write_tiny_model(tmp_path / "m", [*TASKS, TASK])
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
    copy = write_tiny_model(tmp_path / "m", [*TASKS, TASK])
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
    assert [kind.accepts_correction(value) for value in ("Hello", ["Hello"], None)] == [True, False, False]
    assert [*kind.list_answers(answer)] == []
