"""Replies that are decoded together: each is the same in any company, and what fails fails alone."""

import numpy as np
import pytest
from tiny_decoder import decoder_weights, reply_task
from tiny_model import WORDS, tiny_encoder, tiny_tokenizer

from murmura.runtime.errors import DeviceFailed, ModelFailed
from murmura.runtime.model.generated import Generated
from murmura.runtime.model.graph.build import build_graph
from murmura.runtime.model.graph.decoder import build_memory, build_step
from murmura.runtime.model.inputs import TextPair
from murmura.runtime.model.model import Model
from murmura.runtime.model.onnx_session import open_session
from murmura.runtime.model.replies.reply_decoder import ReplyDecoder
from murmura.runtime.model.replies.reply_generator import ReplyGenerator
from murmura.runtime.model.replies.slot_table import Memory, _Keys
from murmura.schemas.manifest import EncoderSpec, Limits, ModelManifest, TaskSpec


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
    lengths = random.integers(5, 120, 28)
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


@pytest.fixture(scope="module")
def long(decoder: ReplyDecoder, memories: list[Memory]) -> list[int]:
    """Four of them whose replies have five pieces or more."""
    replies = decode(decoder, memories, list(range(len(memories))), 16)
    return [number for number in sorted(replies) if len(replies[number].tokens) >= 5][:4]


def test_a_reply_is_bit_for_bit_the_same_alone_in_any_batch_and_in_any_place(
    decoder: ReplyDecoder, memories: list[Memory]
) -> None:
    order = list(range(len(memories)))
    alone = {number: decode(decoder, memories, [number], 1)[number] for number in order}
    assert len({reply.tokens for reply in alone.values()}) > 15
    assert len({len(reply.tokens) for reply in alone.values()}) > 5
    shuffled = np.random.default_rng(0).permutation(order).tolist()
    for together, rows in ((order, 2), (order, 17), (order[::-1], 16), (shuffled, 5), (shuffled, 28)):
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


class Lost:
    """A step graph on a device that fails."""

    device = "cpu"

    def run(self, feeds):
        raise DeviceFailed("no device")

    def terminate(self, thread: int | None = None) -> None: ...


def failing(decoder: ReplyDecoder, error: Exception) -> ReplyDecoder:
    return ReplyDecoder(real_size()[0], decoder.task, decoder.runners[0], Failing(decoder, error, -5.0))


def test_of_a_step_that_fails_only_the_guilty_reply_fails(
    decoder: ReplyDecoder, memories: list[Memory], long: list[int]
) -> None:
    generator = ReplyGenerator[int](failing(decoder, ModelFailed("broken")), max_rows=4)
    marked = np.zeros(1500, np.float32)
    marked[7] = -5.0
    for number in long:
        generator.add(number, memories[number], marked if number == long[2] else None)
    found = {}
    while not generator.idle:
        found |= generator.step()
    assert str(found.pop(long[2])) == "broken"
    assert found == decode(decoder, memories, [*long[:2], long[3]], 4)


def test_a_device_that_fails_fails_no_reply_and_the_step_can_be_repeated(
    decoder: ReplyDecoder, memories: list[Memory], long: list[int]
) -> None:
    broken, whole = (
        failing(decoder, DeviceFailed("no device")),
        ReplyDecoder(real_size()[0], decoder.task, *decoder.runners),
    )
    marked = np.zeros(1500, np.float32)
    marked[7] = -5.0
    results = []
    for first in (broken, whole):
        generator = ReplyGenerator[int](first, max_rows=4)
        for number in long:
            generator.add(number, memories[number], marked)
        found = {}
        for _ in range(3):
            found |= generator.step()
        if first is broken:
            with pytest.raises(DeviceFailed):
                generator.step()
        generator.decoder = whole
        while not generator.idle:
            found |= generator.step()
        results.append(found)
    assert results[0] == results[1]
    assert len(results[0]) == 4


def test_a_reply_whose_first_step_the_device_failed_has_begun_once_that_is_repeated(
    decoder: ReplyDecoder, memories: list[Memory]
) -> None:
    generator = ReplyGenerator[int](decoder, max_rows=4)
    generator.add(0, memories[0])
    generator.step()
    generator.add(1, memories[1])
    generator.decoder = ReplyDecoder(real_size()[0], decoder.task, decoder.runners[0], Lost())
    with pytest.raises(DeviceFailed):
        generator.step()
    assert generator.joined == ()
    generator.decoder = decoder
    generator.step()
    assert generator.joined == (1,)


class FailingOnce:
    """A step graph that fails in its fourth run, and whose device fails in the sixth: the second row of the repetition."""

    device = "cpu"

    def __init__(self, decoder: ReplyDecoder) -> None:
        self.runner, self.runs = decoder.runners[1], 0

    def run(self, feeds):
        self.runs += 1
        if self.runs == 4:
            raise ModelFailed("broken")
        if self.runs == 6:
            raise DeviceFailed("no device")
        return self.runner.run(feeds)

    def terminate(self, thread: int | None = None) -> None: ...


def test_a_device_that_fails_while_a_step_is_repeated_row_by_row_has_changed_no_reply(
    decoder: ReplyDecoder, memories: list[Memory], long: list[int]
) -> None:
    broken = ReplyDecoder(real_size()[0], decoder.task, decoder.runners[0], FailingOnce(decoder))
    generator = ReplyGenerator[int](broken, max_rows=4)
    for number in long:
        generator.add(number, memories[number])
    found = {}
    for _ in range(3):
        found |= generator.step()
    with pytest.raises(DeviceFailed):
        generator.step()
    while not generator.idle:
        found |= generator.step()
    assert found == decode(decoder, memories, long, 4)


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


def test_cancelled_replies_give_their_rows_to_others(decoder: ReplyDecoder, memories: list[Memory]) -> None:
    generator = ReplyGenerator[int](decoder, max_rows=3)
    for number in range(6):
        generator.add(number, memories[number])
    generator.step()
    assert generator.joined == (0, 1, 2)
    assert (generator.live, generator.waiting) == (3, 3)
    for number in (1, 4, 0, 99):
        generator.cancel(number)
    with pytest.raises(ValueError, match="reply 3 is there already"):
        generator.add(3, memories[3])
    found = {}
    while not generator.idle:
        found |= generator.step()
    assert found == decode(decoder, memories, [2, 3, 5], 3)


def test_so_it_is_from_the_texts_on() -> None:
    """The encoder at its real width, with texts of 3 to 70 tokens in a batch."""
    task = reply_task(max_tokens=12, labels=["{end}", *(f" {n}" for n in range(99))])
    encoder = tiny_encoder(hidden=384, heads=12, max_positions=128)
    random = np.random.default_rng(0)
    weights = decoder_weights(encoder, task, scale=0.05)
    weights["heads.reply.bias"][0] = 1.0
    manifest = ModelManifest(name="m", encoder=encoder, tasks=[task], limits=Limits(max_tokens=96), files=[])
    graphs = (build(encoder, task, weights, {}) for build in (build_memory, build_step))
    decoder = ReplyDecoder(manifest, task, *(open_session(graph, "cpu") for graph in graphs))
    session = open_session(build_graph(encoder, [task], weights), "cpu")
    model = Model(manifest, tiny_tokenizer(), session, decoders={"reply": decoder})
    lengths = random.integers(1, 60, (32, 1))
    pairs = [TextPair(" ".join(random.choice(WORDS, 4)), " ".join(random.choice(WORDS, n))) for n in lengths]
    alone = [model.generate([pair])[0] for pair in pairs]
    assert len({reply.tokens for reply in alone}) > 5
    assert model.generate(pairs) == alone
    assert model.generate(pairs[::-1], max_rows=7) == alone[::-1]


def decode_broken(
    decoder: ReplyDecoder, memories: list[Memory], order: list[int]
) -> dict[int, Generated | ModelFailed]:
    """Decode replies, and repeat the steps that the device fails."""
    generator, found = ReplyGenerator[int](decoder, max_rows=8), {}
    for number in order:
        generator.add(number, memories[number])
    for _ in range(300):
        try:
            found |= generator.step()
        except DeviceFailed:
            continue
    assert generator.idle
    return found


def test_a_reply_that_cannot_begin_or_end_fails_alone(
    decoder: ReplyDecoder, memories: list[Memory], long: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = decode(decoder, memories, long, 8)
    odd = [*memories]
    odd[long[1]] = Memory(memories[long[1]].keys[:, :, :7], memories[long[1]].values)
    finish = decoder.finish

    def breaks(pieces):
        tokens = whole[long[2]].tokens
        if tuple(piece.number for piece in pieces)[: len(tokens)] == tokens:
            raise KeyError("a bug")
        return finish(pieces)

    monkeypatch.setattr(decoder, "finish", breaks)
    found = decode_broken(decoder, odd, long)
    assert {number for number in long if isinstance(found[number], ModelFailed)} == {long[1], long[2]}
    assert [found[number] for number in (long[0], long[3])] == [whole[long[0]], whole[long[3]]]


@pytest.mark.parametrize("every", [2, 3])
def test_where_there_is_no_memory_a_step_is_repeated_and_no_piece_is_lost(
    decoder: ReplyDecoder, memories: list[Memory], monkeypatch: pytest.MonkeyPatch, every: int
) -> None:
    whole, asked = decode(decoder, memories, list(range(12)), 8), 0
    allocate = _Keys._allocate

    def lacks(self, width):
        nonlocal asked
        asked += 1
        if asked > 2 and asked % every:
            raise MemoryError("no memory")
        allocate(self, width)

    monkeypatch.setattr(_Keys, "_allocate", lacks)
    assert decode_broken(decoder, memories, list(range(12))) == whole
    assert asked > 6


def test_an_error_of_another_class_fails_the_guilty_reply_alone(
    decoder: ReplyDecoder, memories: list[Memory], long: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = decode(decoder, memories, long, 8)
    guilty = memories[long[1]].keys.shape[1]
    run = decoder._step.run

    class Breaks:
        device = "cpu"

        def run(self, feeds):
            if ((feeds["source_bias"] == 0).sum(axis=(1, 2, 3)) == guilty).any():
                raise RuntimeError("of no class of ours")
            return run(feeds)

    monkeypatch.setattr(decoder, "_step", Breaks())
    found = decode_broken(decoder, memories, long)
    assert [number for number in long if isinstance(found[number], ModelFailed)] == [long[1]]
    assert all(found[number] == whole[number] for number in long if number != long[1])


def test_a_reply_without_memory_fails_alone_where_rows_run_apart(decoder, memories, monkeypatch):
    generator = ReplyGenerator[int](decoder, max_rows=2)
    generator.add(0, memories[0])
    monkeypatch.setattr(generator.table, "add", lambda *given: (_ for _ in ()).throw(MemoryError()))
    assert [key for key, _ in generator.step(apart=True)] == [0]
