"""Record to result over a real Kafka with the real model, against a bare loop with tokenising over the same texts.

    python benchmarks/wire.py [--short] [--bootstrap HOST:PORT] [--data ../shared/data]

The bare loop tokenises in chunks and calls `session.run` on the batches that the engine would form; both sides count
CPU seconds of this process, in turns, and the ratio is taken round by round.
"""

import argparse
import asyncio
import statistics
import time
import uuid
from pathlib import Path

from load import utterances
from minilm import NAME, minilm_model
from pump import load, worker
from real_kafka import make_topics, real_kafka

from murmura.runtime.model.model import Model


def bare(model: Model, texts: list[str], token_budget: int) -> float:
    """Return the CPU seconds a text of tokenising and running batches of `token_budget` tokens, in order."""
    began = time.process_time()
    batch, tokens = [], 0
    for start in range(0, len(texts), 256):
        for encoded in model.encode(texts[start : start + 256]):
            if batch and tokens + encoded.tokens > token_budget:
                model.run(batch)
                batch, tokens = [], 0
            batch.append(encoded)
            tokens += encoded.tokens
    if batch:
        model.run(batch)
    return (time.process_time() - began) / len(texts)


async def wire(bootstrap: str, data: Path, model: Model, records: int) -> tuple[float, int]:
    """Return the CPU seconds a record, and the token budget that was chosen."""
    topic = f"wire-{uuid.uuid4().hex[:8]}"
    await make_topics(bootstrap, [topic, f"{topic}.out", f"{topic}.deadletters"], partitions=4)
    await asyncio.to_thread(load(bootstrap, topic, records, 0, data).communicate)
    async with worker(bootstrap, model, topic) as at_work:
        carried = await at_work.carry(records // 10, records)
        return carried.cpu_us / 1e6, at_work.token_budget


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bootstrap", help="a running Kafka; default: one is started")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--short", action="store_true")
    args = parser.parse_args()
    rounds, records = (3, 1500) if args.short else (5, 5500)
    model, texts = minilm_model(), utterances(args.data)
    ratios = []
    with real_kafka(args.bootstrap) as bootstrap:
        for number in range(rounds):
            ours, budget = await wire(bootstrap, args.data, model, records)
            floor = bare(model, texts[:records], budget)
            ratios.append(floor / ours)
            print(f"  round {number + 1}: {ours * 1e3:.2f} ms of CPU a record, bare {floor * 1e3:.2f}", flush=True)
    print(
        f"record to result over Kafka against the bare loop with tokenising, {NAME}, CLINC150 test, "
        f"CPU-seconds: {statistics.median(ratios):.3f} (aim 0.92), median of {rounds}"
    )


if __name__ == "__main__":
    asyncio.run(main())
