"""Replies a CPU second: rows that join and leave at every step, against batches, and against transformers' decoder of the same shapes.

    OMP_NUM_THREADS=1 python benchmarks/decoding.py [--short] [--layers 3] [--pieces 1500] [--replies 320] [--rows 16]

A decoder of MiniLM's width with random weights, on one thread. The lengths of replies are drawn, as replies of the SGD data set
are distributed: 11 pieces on average, 29 at most. Each reply takes as many steps as it is long, whatever the weights say.
"Useful" are pieces of replies that have not ended. transformers' `EncoderDecoderModel` decodes batches of the same replies with its
cache and its faster attention until the longest has ended; encoding the texts is left out in both. CPU seconds of the process count.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import numpy.typing as npt

from murmura.runtime.model.graph.decoder import build_memory, build_step
from murmura.runtime.model.kinds.registry import kind_of
from murmura.runtime.model.onnx_session import open_session
from murmura.runtime.model.replies.reply_decoder import ReplyDecoder
from murmura.runtime.model.replies.slot_table import Memory, SlotTable
from murmura.schemas.manifest import EncoderSpec, GenerationSpec, Limits, ModelManifest, TaskSpec

HIDDEN, HEADS, INNER, LONGEST = 384, 12, 1536, 40


def make_decoder(layers: int, pieces: int) -> ReplyDecoder:
    """A decoder with random weights."""
    spec = GenerationSpec(context=3, acts=True, layers=layers, max_tokens=LONGEST, slots=[])
    task = TaskSpec(name="reply", kind="generation", labels=["{end}", *map(str, range(pieces - 1))], generation=spec)
    encoder = EncoderSpec(
        source="scratch",
        sha256="0" * 64,
        vocab_size=10,
        hidden_size=HIDDEN,
        layers=1,
        heads=HEADS,
        intermediate_size=INNER,
        max_positions=128,
    )
    manifest = ModelManifest(name="speed", encoder=encoder, tasks=[task], limits=Limits(max_tokens=128), files=[])
    random = np.random.default_rng(0)
    shapes = kind_of(task).head_shapes(task, encoder).items()
    weights = {f"heads.reply.{name}": (random.normal(size=shape) * 0.05).astype(np.float32) for name, shape in shapes}
    weights |= {name: np.ones_like(value) for name, value in weights.items() if name.endswith("norm.weight")}
    memory, step = (open_session(build(encoder, task, weights, {}), "cpu") for build in (build_memory, build_step))
    return ReplyDecoder(manifest, task, memory, step)


def draw_lengths(count: int) -> list[int]:
    """Lengths of replies, their ends included: mean 11, 90 % up to 18, at most 29."""
    drawn = np.random.default_rng(1).gamma(4.2, 2.6, count).round().astype(int)
    return [*map(int, drawn.clip(2, 29))]


def decode(decoder: ReplyDecoder, memories: Sequence[Memory], lengths: Sequence[int], rows: int, form: str) -> int:
    """Decode all replies; returns the number of steps. `continuous`, `leave` (a batch's ended rows leave) or `static`."""
    table, waiting, left, steps = SlotTable(decoder.sizes, rows), list(range(len(memories)))[::-1], [], 0
    while waiting or left:
        if form == "continuous" or not left:
            while waiting and len(left) < rows:
                number = waiting.pop()
                table.add(memories[number])
                left.append(lengths[number])
        if form == "static":
            longest = max(left)
            for _ in range(longest):
                decoder.step(table)
            steps += longest
            for row in range(len(left))[::-1]:
                table.release(row)
            left = []
            continue
        decoder.step(table)
        steps += 1
        left = [each - 1 for each in left]
        for row in range(len(left))[::-1]:
            if not left[row]:
                table.release(row)
                left[row] = left[-1]
                left.pop()
    return steps


def count_per_second(run: Callable[[], object], pieces: int, repeat: int) -> float:
    """The best of several runs, in pieces per CPU second."""
    seconds = []
    for _ in range(repeat):
        began = time.process_time()
        run()
        seconds.append(time.process_time() - began)
    return pieces / min(seconds)


def run_transformers(
    layers: int, pieces: int, hidden: Sequence[npt.NDArray[np.float32]], lengths: Sequence[int], rows: int
) -> Callable[[], None]:
    import torch
    from transformers import BertConfig, BertLMHeadModel, BertModel, EncoderDecoderModel
    from transformers.modeling_outputs import BaseModelOutput

    torch.set_num_threads(1)
    shared = {
        "hidden_size": HIDDEN,
        "num_attention_heads": HEADS,
        "intermediate_size": INNER,
        "max_position_embeddings": 128,
        "vocab_size": pieces,
        "attn_implementation": "sdpa",
    }
    decoder = BertLMHeadModel(BertConfig(**shared, num_hidden_layers=layers, is_decoder=True, add_cross_attention=True))
    model = EncoderDecoderModel(encoder=BertModel(BertConfig(**shared, num_hidden_layers=1)), decoder=decoder).eval()

    def run() -> None:
        for begin in range(0, len(hidden), rows):
            part = [torch.from_numpy(each) for each in hidden[begin : begin + rows]]
            states = torch.nn.utils.rnn.pad_sequence(part, batch_first=True)
            mask = torch.nn.utils.rnn.pad_sequence([torch.ones(len(each)) for each in part], batch_first=True)
            longest = max(lengths[begin : begin + rows])
            with torch.no_grad():
                model.generate(
                    encoder_outputs=BaseModelOutput(last_hidden_state=states),
                    attention_mask=mask,
                    decoder_start_token_id=1,
                    pad_token_id=0,
                    eos_token_id=None,
                    max_new_tokens=longest,
                    min_new_tokens=longest,
                    do_sample=False,
                    use_cache=True,
                )

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="fewer replies, 16 rows only")
    parser.add_argument("--data", help="not used: the lengths of replies are drawn")
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--pieces", type=int, default=1500)
    parser.add_argument("--replies", type=int, default=320)
    parser.add_argument("--rows", type=int, nargs="+", default=[4, 8, 16, 32])
    options = parser.parse_args()
    count, rows = (96, [16]) if options.short else (options.replies, options.rows)
    repeat = 2 if options.short else 3
    decoder, lengths = make_decoder(options.layers, options.pieces), draw_lengths(count)
    random = np.random.default_rng(2)
    hidden = [random.normal(size=(n, HIDDEN)).astype(np.float32) for n in random.integers(20, 60, count)]
    starts = np.concatenate([[0], np.cumsum([len(each) for each in hidden])])
    memories, pieces = decoder.remember(np.concatenate(hidden), starts), sum(lengths)
    print(
        f"{count} replies of {pieces / count:.1f} pieces, {options.layers} layers, {options.pieces} pieces to choose from"
    )
    for width in rows:
        found = {}
        for form in ("continuous", "leave", "static"):
            steps = decode(decoder, memories, lengths, width, form)
            found[form] = count_per_second(partial(decode, decoder, memories, lengths, width, form), pieces, repeat)
            print(f"rows {width:2d}  {form:10s} {found[form]:6.0f} useful pieces per CPU second, {steps} steps")
        other = count_per_second(
            run_transformers(options.layers, options.pieces, hidden, lengths, width), pieces, repeat
        )
        print(
            f"rows {width:2d}  transformers {other:4.0f}; continuous / static {found['continuous'] / found['static']:.2f}, "
            f"continuous / transformers {found['continuous'] / other:.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
