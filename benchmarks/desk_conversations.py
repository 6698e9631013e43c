"""Conversations at the demo's desk: how many replies go out in the model's words, and why the others do not.

    python benchmarks/desk_conversations.py [--model FOLDER] [--knowledge FILE] [--pairs] [--shown 3] [--short]

200 conversations of customers in English (desk_customers.yaml, and messages of the scenario that no task is trained on), turn by turn
through the dialogue agent with its policy and the model, without a broker. No turn of more than three words is a text of training rows in the repository.
With --pairs also 200 pairs of turns that differ only in a name or a pronoun: whether they get the same acts, and the same words with
slots put back for their values.
"""

import argparse
import asyncio
import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from aiokafka.structs import ConsumerRecord, TopicPartition
from desk_customers import Customer, Pair, draw_customers, draw_pairs, find_shared, put_slots, read_trained, read_words

from murmura.agents.dialogue import Dialogue
from murmura.agents.dialogue.policy.policy_file import load_policy
from murmura.runtime.agent.handler import Context
from murmura.runtime.agent.routes import configure_agents
from murmura.runtime.batching.engine import Engine
from murmura.runtime.errors import SetupError
from murmura.runtime.model.deltas.assembled import resolve
from murmura.runtime.model.model import Model
from murmura.runtime.observe.metrics import Metrics
from murmura.runtime.settings.settings import Settings
from murmura.scenarios.support.place import HERE, MODEL
from murmura.schemas.dialogue import ConversationState, Reply, Wording

POLICY = HERE / "policy.yaml"
TURNS = "murmura.dialogue.turns"
CONVERSATIONS, PAIRS = 200, 200
TOGETHER = 8
"""Conversations at a time."""
WITHIN_S = 60.0
"""For a reply: how fast they are is measured elsewhere."""
BEGAN_MS, APART_MS = 1_767_225_600_000, 1000
FEWEST_WORDS = 4
"""Of a turn that no training text may share: anybody says `yes` and `last week`."""


class Heard(NamedTuple):
    """A turn and its reply."""

    text: str
    reply: Reply
    state: ConversationState


class Desk:
    """The dialogue agent with a model, without a broker."""

    def __init__(self, model: Model, policy: Path, knowledge: Path | None) -> None:
        """Raise SetupError for a model that the policy or the knowledge does not fit."""
        self._agent = Dialogue(policy)
        options = {"generate_within_s": WITHIN_S} | ({"knowledge": str(knowledge)} if knowledge else {})
        settings = Settings(app="bench", agents={"dialogue": {"options": options}})
        configure_agents(settings, [self._agent])
        self._agent.check(model.manifest)
        self._agent.prepare(model)
        metrics = Metrics()
        self.engine = Engine(model, max_in_flight=1, observer=metrics)
        counts = dict.fromkeys((TURNS, *self._agent.outputs), 1)
        self._agent.started(Context(settings, metrics, self.engine, ("dialogue",), counts))
        self._sent = 0

    async def open(self) -> None:
        await self.engine.start()
        await self._agent.assigned(frozenset({TopicPartition(TURNS, 0)}))

    async def hear(self, conversation: str, text: str) -> Heard:
        self._sent += 1
        value, at = json.dumps({"text": text}).encode(), BEGAN_MS + APART_MS * self._sent
        record = ConsumerRecord(TURNS, 0, self._sent, at, 0, conversation.encode(), value, None, -1, len(value), ())
        state, reply, *_ = await self._agent.handle(record, self.engine)
        self._agent.finished(record)
        return Heard(text, Reply.model_validate(reply.value), ConversationState.model_validate_json(state.value or b""))

    async def talk(self, name: str, customer: Customer) -> list[Heard]:
        heard: list[Heard] = []
        while (text := customer.speak(heard[-1].reply.asked if heard else None)) is not None:
            heard.append(await self.hear(name, text))
        return heard

    async def compare(self, number: int, pair: Pair, constants: dict[str, str]) -> tuple[Heard, Heard]:
        two = []
        for side, turn in enumerate(pair.turns):
            for text in pair.before:
                await self.hear(f"pair-{number}-{side}", text)
            heard = await self.hear(f"pair-{number}-{side}", turn)
            text = put_slots(heard.reply.text, {**heard.reply.slots, **constants})
            two.append(heard._replace(reply=heard.reply.model_copy(update={"text": text})))
        return two[0], two[1]


def describe_wording(reply: Reply) -> str:
    """Return where a reply's words come from, with the reason."""
    return (
        reply.wording.value if reply.wording_reason is None else f"{reply.wording.value}: {reply.wording_reason.value}"
    )


def print_share(talks: Sequence[Sequence[Heard]]) -> None:
    replies = [heard.reply for talk in talks for heard in talk]
    generated = sum(reply.wording is Wording.GENERATED for reply in replies)
    print(
        f"{len(talks)} conversations, {len(replies)} replies, {100 * generated / len(replies):.1f} % generated "
        f"in {len({reply.text for reply in replies if reply.wording is Wording.GENERATED})} different texts"
    )
    kinds = sorted({reply.kind.value for reply in replies})
    print(f"{'wording':<28}{'replies':>8}{'%':>7}  " + "".join(f"{kind:>16}" for kind in kinds))
    for wording, count in Counter(map(describe_wording, replies)).most_common():
        of = Counter(reply.kind.value for reply in replies if describe_wording(reply) == wording)
        shares = "".join(f"{of[kind]:>16}" for kind in kinds)
        print(f"{wording:<28}{count:>8}{100 * count / len(replies):>7.1f}  {shares}")


def print_talk(talk: Sequence[Heard]) -> None:
    print()
    for heard in talk:
        print(f"  you>  {heard.text}\n  desk> {heard.reply.text}  ({describe_wording(heard.reply)})")


def print_pairs(pairs: Sequence[Pair], compared: Sequence[tuple[Heard, Heard]], shown: int) -> None:
    print()
    differing = []
    for kind in ("name", "pronoun", None):
        mine = [two for pair, two in zip(pairs, compared, strict=True) if kind in {None, pair.kind}]
        acts = [one.state.acts == other.state.acts for one, other in mine]
        both = [
            same and (one.reply.text, one.reply.wording) == (other.reply.text, other.reply.wording)
            for same, (one, other) in zip(acts, mine, strict=True)
        ]
        print(f"{len(mine)} pairs by {kind or 'both'}: same acts {share(acts)}, same acts and words {share(both)}")
        differing += [two for same, two in zip(both, mine, strict=True) if not same and kind]
    for two in differing[:shown]:
        print()
        for heard in two:
            print(f"  {heard.text}\n    {heard.reply.intent}: {heard.reply.text}  ({describe_wording(heard.reply)})")


def share(right: Sequence[bool]) -> str:
    return f"{100 * sum(right) / len(right):.1f} %" if right else "-"


async def run(args: argparse.Namespace) -> None:
    words, trained = read_words(), read_trained()
    desk = Desk(Model.load(resolve(args.model)), args.policy, args.knowledge)
    await desk.open()
    room = asyncio.Semaphore(TOGETHER)
    customers = draw_customers(words, CONVERSATIONS // 10 if args.short else CONVERSATIONS)

    async def talk(number: int, customer: Customer) -> list[Heard]:
        async with room:
            return await desk.talk(f"talk-{number}", customer)

    talks = await asyncio.gather(*(talk(number, each) for number, each in enumerate(customers)))
    texts = {heard.text for each in talks for heard in each if len(heard.text.split()) >= FEWEST_WORDS}
    print(f"of {len(texts)} different turns {sum(1 for _ in find_shared(texts, trained))} are training texts, too")
    print_share(talks)
    for each in talks[: args.shown]:
        print_talk(each)
    if args.pairs:
        pairs, constants = draw_pairs(words, PAIRS), load_policy(args.policy).value.constants

        async def compare(number: int, pair: Pair) -> tuple[Heard, Heard]:
            async with room:
                return await desk.compare(number, pair, dict(constants))

        compared = await asyncio.gather(*(compare(number, pair) for number, pair in enumerate(pairs)))
        print_pairs(pairs, compared, args.shown)
    await desk.engine.stop()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=MODEL, help="a model folder with the policy's tasks")
    parser.add_argument("--policy", type=Path, default=POLICY)
    parser.add_argument("--knowledge", type=Path, help="a file of questions with answers; default: none")
    parser.add_argument("--pairs", action="store_true", help="also pairs of turns that differ in a name or a pronoun")
    parser.add_argument("--shown", type=int, default=3, help="conversations, and differing pairs, to print")
    parser.add_argument("--short", action="store_true", help="a tenth of the conversations")
    parser.add_argument("--data", help="not used")
    args = parser.parse_args()
    try:
        asyncio.run(run(args))
    except SetupError as error:
        print(error)
        return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
