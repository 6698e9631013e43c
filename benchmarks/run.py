"""All benchmarks, one after another: python benchmarks/run.py [--short] [--data FOLDER] [--only NAME ...].

Each prints its figures with what they were measured on; ratios are taken within one run. Those that need the public
data sets are passed over, by name, where these are absent.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
BENCHMARKS = {
    "engine": "the batching engine against bare onnxruntime",
    "heads_and_invariance": "four heads against one; an answer alone against in a batch",
    "versions": "a candidate beside the current version; two models that share the device by weight",
    "pump": "a real Kafka and a simulated accelerator: backlog, live, a light topic",
    "device_failure": "a device that fails for 20 s at 10,000 records a second",
    "faults": "two agents on one input, one at fault: what the other one waits for",
    "wire": "a real Kafka and the real model against bare onnxruntime with tokenising",
    "long_texts": "entities in long mails, read in windows, against the same messages alone",
    "decoding": "generated replies: rows that join and leave against batches, and against transformers",
    "reply_load": "texts and replies on one core: latency of texts beside replies",
    "tracing": "what spans cost, with 1 % sampled",
    "memory": "peak memory of serve",
    "experiments": "experiments between equal and different versions, simulated: how often they end wrongly, and when",
    "bounds": "garbage beside good requests, and large attachments: latency and memory",
    "swaps": "exchanging models under load",
    "conversations": "order and state of conversations while the process is killed",
    "desk_load": "customers at the demo's desk on a real Kafka: turns a second, latency, ten kills",
    "desk_conversations": "conversations at the demo's desk: replies in the model's words, and why others are not",
    "ingest": "feedback, results and requests into a data set",
    "joint_training": "joint training against a plain hand-written loop",
    "common_texts": "two tasks on the same texts against two tasks on texts of their own, in training",
    "recipe_keys": "what keys of a joint recipe bring, one by one: weights, sampling, heads, phases, teachers",
    "methods": "methods around the encoder: quality, parameters, size, memory and time in one table",
    "smaller": "half the layers by distillation: quality and speed against the teacher",
    "pretraining": "what self-supervised pre-training brings, on the same rows with it and without it",
    "active_learning": "which texts to label, simulated: strategies against random choice",
    "tune": "a search on few rows against the default recipe, on the test part once",
    "few_rows": "5 and 10 rows a label against logistic regression on the frozen encoder",
    "generation": "replies to dialogues: a decoder trained with the acts known, beside its aims",
    "corrections": "300 corrections of intents never seen, learned, with what became of the rest",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--short", action="store_true", help="a minute or so each, ten where a decoder is trained; for a first look"
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="public data sets (CLINC150, ...)")
    parser.add_argument("--only", nargs="*", choices=[*BENCHMARKS], help="some of them")
    args = parser.parse_args()
    if not (args.data / "clinc150").is_dir():
        print(f"no CLINC150 in {args.data}: name the folder of the public data sets with --data", file=sys.stderr)
        return 2
    failed = []
    for name in args.only or BENCHMARKS:
        print(f"== {name}: {BENCHMARKS[name]}", flush=True)
        began = time.monotonic()
        command = [sys.executable, str(HERE / f"{name}.py"), "--data", str(args.data)]
        if subprocess.run([*command, "--short"] if args.short else command, check=False).returncode:
            failed.append(name)
        print(f"   {time.monotonic() - began:.0f} s", flush=True)
    if failed:
        print("failed: " + ", ".join(failed), file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
