"""Entities in long mails: what windows find of them against the same messages alone, and what they find where nothing is.

    python benchmarks/long_texts.py [--short] [--words 2000] [--tokens N] [--overlap N] [--data ../shared/data]

The demo's model (128 tokens). Messages with labelled entities, the demo's own and those of NLU++ banking where the data
are there, are asked alone, then at a random place inside a mail of filler without entities: one that still fits into a
window, which shows what the surroundings cost the model, and one of 2,000 words, which shows what the windows cost beyond that.
Recall counts a labelled span as found when a span of the same label overlaps it. Filler alone, 100 windows of it, shows the false spans.
"""

import argparse
import json
import random
import time
from pathlib import Path

from murmura.runtime.model.deltas.assembled import resolve
from murmura.runtime.model.model import Model
from murmura.runtime.model.texts.windows import Windows

WINDOW_WORDS = 75
"""Of a mail that fits into a window of the demo's model, with a message in it."""
ROOT = Path(__file__).resolve().parents[1]
FILLER = (
    "we are writing to you about the way in which we look after our customers",
    "please read all of it with care and keep it in a safe place",
    "nothing in it changes the terms that you agreed to when you joined",
    "if anything is unclear you can always ask us and we will gladly explain",
    "our staff will never ask you for a password or for any other secret",
    "many people tell us that they like to do things on their own",
    "others would rather talk to somebody and we are happy with either way",
    "we try to answer as fast as we can but some things take a little longer",
    "this message is confidential and meant only for the person it is addressed to",
    "if you are not that person please delete it and let the sender know",
    "views in this message are those of the author and not of anybody else",
    "think about the environment before you print this message",
    "we work hard to make things simple and we know that we do not always succeed",
    "your comments help us to see what goes well and what does not",
    "we read every one of them even if we cannot reply to each",
    "some of the services that we describe are not there for everybody",
    "rules may differ and we cannot give advice on what they mean for you",
    "please do not reply to this address because nobody looks at it",
    "thank you for being with us and for taking the trouble to read so far",
    "we wish you all the best and look forward to hearing from you",
)


def labelled(data: Path) -> list[tuple[str, list[tuple[str, int, int]]]]:
    files = [ROOT / "scenarios/support/learn/desk-entities.jsonl", data / "nlupp/banking.jsonl"]
    rows = [json.loads(line) for file in files if file.is_file() for line in file.read_text().splitlines()]
    found = [(row["text"], [(s["slot"], s["start"], s["end"]) for s in row["slots"]]) for row in rows if row["slots"]]
    print(f"{len(found)} messages with {sum(len(spans) for _, spans in found)} labelled spans")
    return found


def filler(words: int, choice: random.Random) -> list[str]:
    sentences: list[str] = []
    while sum(len(s.split()) for s in sentences) + 8 < words:
        sentences.append(choice.choice(FILLER) + ".")
    return sentences


def spans(model: Model, texts: list[str], windows: Windows | None) -> list[list[dict]]:
    found = []
    for begin in range(0, len(texts), 8):
        part = texts[begin : begin + 8]
        batch = model.encode_windows(part, [windows] * len(part))
        answers = model.decode(model.run(batch), batch, part, [("entities",)] * len(part))
        found += [answer["entities"]["spans"] for answer in answers]
    return found


def ask_mails(
    model: Model,
    messages: list[tuple[str, list[tuple[str, int, int]]]],
    words: int,
    choice: random.Random,
    windows: Windows | None,
) -> tuple[int, float, int]:
    """Set each message at a random place into `words` words of filler: spans found, CPU seconds a mail, windows of the longest."""
    mails, shifts = [], []
    for text, _ in messages:
        sentences = filler(max(words - len(text.split()), 0), choice)
        at = choice.randrange(len(sentences) + 1)
        before = " ".join(sentences[:at])
        mails.append(" ".join(part for part in (before, text, " ".join(sentences[at:])) if part))
        shifts.append(len(before) + 1 if before else 0)
    began = time.process_time()
    answers = spans(model, mails, windows)
    seconds = (time.process_time() - began) / len(mails)
    found = sum(
        hits(wanted, answer, shift) for (_, wanted), answer, shift in zip(messages, answers, shifts, strict=True)
    )
    (longest,) = model.encode_windows([max(mails, key=len)], [windows])
    return found, seconds, len(getattr(longest, "windows", [longest]))


def hits(wanted: list[tuple[str, int, int]], found: list[dict], shift: int) -> int:
    return sum(
        any(s["label"] == label and s["start"] < end + shift and start + shift < s["end"] for s in found)
        for label, start, end in wanted
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--words", type=int, default=2000)
    parser.add_argument("--tokens", type=int, help="of a window; default: the model's limit")
    parser.add_argument("--overlap", type=int, help="tokens; default: a quarter of a window")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    args = parser.parse_args()
    choice = random.Random(0)
    messages = labelled(args.data)
    messages = choice.sample(messages, min(len(messages), 60 if args.short else 300))
    windows = Windows(most=1000, tokens=args.tokens, overlap=args.overlap)
    model = Model.load(resolve(ROOT / "scenarios/support/model"), device="cpu")
    alone = spans(model, [text for text, _ in messages], None)
    every = sum(len(wanted) for _, wanted in messages)
    short = sum(hits(wanted, found, 0) for (_, wanted), found in zip(messages, alone, strict=True))
    print(f"recall of labelled spans: alone {short / every:.3f}")
    for words, name in ((WINDOW_WORDS, "windows"), (args.words, "windows"), (args.words, "no windows")):
        found, seconds, most = ask_mails(model, messages, words, choice, windows if name == "windows" else None)
        print(
            f"in a mail of {words} words, {name}: {found / every:.3f}; at most {most} windows, CPU {seconds * 1e3:.0f} ms a mail"
        )
    text = " ".join(filler(100 * 100, choice))
    encoded = model.encode_windows([text], [Windows(most=100, tokens=args.tokens, overlap=args.overlap)])
    (answer,) = model.decode(model.run(encoded), encoded, [text], [("entities",)])
    false = answer["entities"]["spans"]
    print(f"false spans in {len(encoded[0].windows)} windows of filler: {len(false)}")


if __name__ == "__main__":
    main()
