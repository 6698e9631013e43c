"""Conversations on a real Kafka: in order, applied once, and the same after whatever happens to the process."""

import asyncio
import json
from urllib.error import HTTPError
from urllib.request import urlopen

from aiokafka.admin import AIOKafkaAdminClient, NewPartitions
from dialogue_bank import TEXTS, Bank
from serving import reason

from murmura.agents.dialogue import Dialogue


def interleaved(conversations: int, turns: int) -> list[tuple[str, str]]:
    return [(f"c{c}", TEXTS[(c + t) % len(TEXTS)]) for t in range(turns) for c in range(conversations)]


async def test_every_turn_gets_one_reply_in_the_order_of_its_conversation(bank: Bank):
    await bank.say(*interleaved(20, 8))
    async with bank.serving():
        replies = await bank.replies(160)
        handed_over = sum(reply.kind in {"handed_over", "with_person"} for reply in replies)
        assert len(await bank.desk.read(f"{bank.desk.prefix}.handoffs", handed_over)) == handed_over
    assert len(replies) == 160
    for number in range(20):
        mine = [reply for reply in replies if reply.conversation == f"c{number}"]
        assert [reply.number for reply in mine] == list(range(1, 9))
        assert [reply.metadata["n"] for reply in mine] == [str(n) for n in range(1, 9)]
    assert {reply.kind for reply in replies} >= {"answered", "asked"}


async def test_a_restart_goes_on_where_the_conversation_was(bank: Bank):
    async with bank.serving():
        await bank.say(("a", "transfer money to"), ("b", "i want a refund please"))
        before = await bank.states(2)
    async with bank.serving() as serving:
        await bank.say(("a", "thanks"), ("b", "thanks"))
        replies = await bank.replies(4)
        after = await bank.states(4)
        assert serving.metrics.registry.get_sample_value("murmura_conversations") == 2
    assert {reply.number for reply in replies} == {1, 2}
    for name in ("a", "b"):
        assert after[name].number == 2
        assert after[name].turns[0] == before[name].turns[0]


async def test_a_log_that_is_delivered_again_changes_no_state_and_repeats_only_last_replies(bank: Bank):
    await bank.say(*interleaved(10, 6))
    async with bank.serving():
        first = await bank.replies(60)
        states = await bank.states(60)
    async with bank.serving(app="another-group") as serving:  # it has committed nothing: everything comes again
        replies = await bank.replies(70)
        counted = serving.metrics.registry.get_sample_value
        assert counted("murmura_turns_total", {"agent": "dialogue", "kind": "repeated"}) == 10
        assert counted("murmura_turns_total", {"agent": "dialogue", "kind": "skipped"}) == 50
    assert replies.count(first[0]) >= 1
    assert {reply.prediction_id: reply for reply in replies} == {reply.prediction_id: reply for reply in first}
    assert await bank.states(70) == states


async def test_two_members_share_conversations_and_hand_them_to_each_other(bank: Bank):
    said = interleaved(12, 9)
    third = len(said) // 3
    async with bank.serving() as first:
        await bank.say(*said[:third])
        await bank.replies(third)
        async with bank.serving() as second:
            await bank.say(*said[third : 2 * third])
            replies = await bank.replies(2 * third)
            held = [s.metrics.registry.get_sample_value("murmura_conversations") for s in (first, second)]
            assert sum(held) == 12
            assert min(held) > 0
        await bank.say(*said[2 * third :])
        replies = await bank.replies(len(said))
    assert len(replies) == len(said)  # both came and went cleanly, so nothing came twice
    for number in range(12):
        mine = [reply.number for reply in replies if reply.conversation == f"c{number}"]
        assert mine == list(range(1, 10))


async def test_a_damaged_state_starts_its_conversation_anew_and_leaves_the_others(bank: Bank):
    async with bank.serving():
        await bank.say(("a", "thanks"), ("b", "thanks"), ("c", "thanks"))
        states = await bank.states(3)
    damaged = states["b"].source.partition
    await bank.desk.send(
        b'{"number": 1, "sour', topic=f"{bank.desk.prefix}.dialogue.state", key=b"b", partition=damaged
    )
    async with bank.serving() as serving:
        await bank.say(("a", "no"), ("b", "no"), ("c", "no"))
        replies = await bank.replies(6)
        assert serving.metrics.registry.get_sample_value("murmura_unreadable_states_total") == 1
    assert {reply.conversation: reply.number for reply in replies} == {"a": 2, "b": 1, "c": 2}


async def test_forgotten_conversations_get_a_tombstone_and_stay_forgotten(bank: Bank):
    limits = {"max_conversations": 2}
    async with bank.serving(limits):
        for number in range(12):
            key = b"c%d" % number
            await bank.desk.send({"text": "thanks"}, topic=bank.turns, key=key, partition=number % 3)
            if number % 3 == 2:
                await bank.replies(number + 1)  # one that is being answered is not forgotten
        states = await bank.states(18)
    kept = {name for name, state in states.items() if state is not None}
    assert len(kept) == 6  # two for each of the three partitions
    async with bank.serving(limits) as serving:
        for number in (0, 11):
            key = b"c%d" % number
            await bank.desk.send({"text": "thanks"}, topic=bank.turns, key=key, partition=number % 3)
        replies = await bank.replies(14)
        assert serving.metrics.registry.get_sample_value("murmura_conversations") == 6
    last = {reply.conversation: reply.number for reply in replies}
    assert (last["c0"], last["c11"]) == (1, 2)


async def test_a_turn_without_a_key_or_a_text_is_a_dead_letter_and_holds_nobody_up(bank: Bank):
    await bank.desk.send({"text": "hello"}, topic=bank.turns)
    await bank.desk.send({"text": ""}, b"nonsense", topic=bank.turns, key=b"a")
    await bank.say(("a", "thanks"))
    async with bank.serving():
        (reply,) = await bank.replies(1)
        letters = await bank.desk.read(bank.desk.dead_letters, 3)
    assert reply.number == 1
    assert sorted(map(reason, letters)) == ["invalid", "invalid", "not_json"]
    assert all(dict(letter.headers)["murmura_dl_agent"] == b"dialogue" for letter in letters)


async def test_a_long_restore_does_not_cost_the_membership(bank: Bank, monkeypatch):
    """No heartbeat is sent while a rebalance waits for whoever is told of it: restoring must not be waited for."""
    restore = Dialogue.assigned

    async def slowly(self, partitions):
        await asyncio.sleep(4)
        await restore(self, partitions)

    monkeypatch.setattr(Dialogue, "assigned", slowly)
    kafka = {"bootstrap_servers": bank.desk.bootstrap, "session_timeout_ms": 1500, "heartbeat_interval_ms": 200}
    await bank.say(("a", "thanks"))
    async with bank.serving(kafka=kafka) as serving:
        (reply,) = await bank.replies(1)
        commits = serving.metrics.registry.get_sample_value
        assert not commits("murmura_commits_total", {"outcome": "failed"})
    assert reply.number == 1


async def test_partitions_that_turns_get_wait_until_the_changelog_has_them_too(bank: Bank):
    names = [f"c{n}" for n in range(20)]
    turns, state = bank.turns, f"{bank.desk.prefix}.dialogue.state"
    async with bank.serving(overrides={"probe_pause_s": 0.2}) as serving:
        await bank.say(*((name, "thanks") for name in names))
        await bank.replies(20)
        await widen(bank.desk.bootstrap, turns)
        async with asyncio.timeout(60):
            while not (suspended := await suspended_agents(serving)):
                await asyncio.sleep(0.1)
        assert "has 4 partitions and its changelog" in suspended["dialogue"]["why"]
        await bank.say(*((name, "i want a refund please") for name in names))
        await widen(bank.desk.bootstrap, state)
        replies = await bank.replies(40)  # their topic has 3: each goes where its key belongs
        assert {reply.conversation for reply in replies[20:]} == set(names)
        async with asyncio.timeout(60):  # health is updated once a second
            while await suspended_agents(serving):
                await asyncio.sleep(0.1)
        assert await bank.desk.read(bank.desk.dead_letters, 0) == []


async def widen(bootstrap: str, topic: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    await admin.create_partitions({topic: NewPartitions(4)})
    await admin.close()


async def suspended_agents(serving) -> dict:
    def ask():
        try:
            with urlopen(f"{serving.url}/readyz", timeout=5) as answer:
                return json.load(answer).get("suspended_agents", {})
        except HTTPError:  # the group rebalances
            return {}

    return await asyncio.to_thread(ask)
