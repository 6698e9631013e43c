"""What a reply says of its words: which part the model may word, and which version did."""

from pathlib import Path

import pytest
from dialogue_process import Log, content, turn
from dialogue_words import ASKED, POLICY, begin, write_policy

from murmura.agents.dialogue.turn.draft import Brief, find_part
from murmura.runtime.errors import Late
from murmura.schemas.dialogue import ConversationState, WordedPart


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    return write_policy(tmp_path)


@pytest.mark.parametrize(("said", "by", "named"), [(ASKED, 2, 2), (ASKED, 0, None), (Late("too late"), 2, None)])
async def test_reply_and_state_name_the_version_that_worded_it_where_another_read_the_turn(policy, said, by, named):
    log: Log = []
    process = await begin(policy, said, log=log)
    process.words.model = "fake", by
    state, reply = await process.hear(turn(1, "send money"))
    kept = ConversationState.model_validate_json(state.value)
    assert reply.value["model"]["version"] == kept.model.version == 0
    assert (reply.value["worded_by"] or {}).get("version") == (kept.worded_by and kept.worded_by.version) == named
    assert content(await (await begin(policy, log=log)).hear(turn(1, "send money"))) == content([state, reply])


async def test_a_generated_reply_to_a_turn_that_no_model_read_names_its_version(policy):
    waiting = "{filtered: [threat], waiting: {generate: true, template: Wait please.}}"
    policy.write_text(POLICY.replace("{filtered: [threat]}", waiting))
    process = await begin(policy, "Send x.")
    await process.hear(turn(1, "a threat"))
    *_, reply, _ = await process.hear(turn(2, "hello?"))
    assert (reply.value["text"], reply.value["model"], reply.value["worded_by"]["version"]) == ("Send x.", None, 0)


@pytest.mark.parametrize("said", ["Send how much?", Late("too late")])
async def test_a_reply_says_what_of_it_the_model_may_word_and_for_which_acts(policy, said):
    policy.write_text("greeting: Hello, this is the desk.\nagain: Sorry?\n" + POLICY)
    process = await begin(policy, said, said)
    for number, text, before in ((1, "send money", "Hello, this is the desk."), (2, "hm", "Sorry?")):
        state, reply = await process.hear(turn(number, text))
        part, whole = reply.value["part"], reply.value["text"]
        assert whole[: part["start"]] == f"{before} "
        assert whole[part["start"] : part["end"]] == ("How much?" if isinstance(said, Late) else said)
        assert part["end"] == len(whole)
        assert [act["act"] for act in part["acts"]] == process.words.asked[-1][1] == ["request"]
        assert len(reply.value["acts"]) == 2
        assert ConversationState.model_validate_json(state.value).part.model_dump(mode="json") == part
    *_, done = await process.hear(turn(3, "angry now"))
    assert done.value["part"] is None


def test_a_part_is_where_its_words_stand_also_in_a_reply_that_was_cut_in_or_behind_them():
    brief = Brief("{a}?", [], {"a": "What"}, "Hi.", "Bye now.")
    for text, place in (
        ("Hi. What? Bye now.", (4, 9)),
        ("Hi. What? Bye n", (4, 9)),
        ("Hi. Wh", (4, 6)),
        ("Hi", (2, 2)),
    ):
        assert find_part(brief, brief.words, text) == WordedPart(start=place[0], end=place[1])
    assert find_part(brief._replace(before=""), "Bye now.", "Bye now. Bye now.") == WordedPart(start=0, end=8)
    assert find_part(brief._replace(before="", after=""), "What?", "What?") is None


@pytest.mark.parametrize("heard", ["send money", "send money, you idiot"])
async def test_the_part_of_a_reply_that_was_cut_ends_with_it(policy, heard):
    policy.write_text(f"greeting: {'x' * 1000}\n" + POLICY.replace("How much?", "y" * 1000))
    process = await begin(policy, Late("too late"))
    _, reply = await process.hear(turn(1, heard))
    assert (len(reply.value["text"]), reply.value["part"]["start"], reply.value["part"]["end"]) == (2000, 1001, 2000)
