"""The desk's own act-reply pairs: complete, in the words of the policy's templates, without facts of their own."""

import json
import re
from collections import defaultdict
from typing import Any

import pytest
import yaml
from tokenizers import Tokenizer

from murmura.agents.dialogue.policy.policy_file import load_policy
from murmura.agents.dialogue.turn.acts import list_replies
from murmura.agents.dialogue.turn.wording import find_unknown_name
from murmura.runtime.generation.facts import find_fact
from murmura.runtime.generation.input_format import describe_acts
from murmura.runtime.generation.reply_vocabulary import ReplyCutter, list_slots
from murmura.scenarios.support.place import HERE, MODEL
from murmura.scenarios.support.reply_rows import FILES, make_rows, read_wordings
from murmura.schemas.acts import SLOT, SLOT_MARK, Act

POLICY: dict[str, Any] = yaml.safe_load((HERE / "policy.yaml").read_text())
WORDINGS = read_wordings()
ROWS = {part: [json.loads(line) for line in file.read_text().splitlines()] for part, file in FILES.items()}
ALL = [row for rows in ROWS.values() for row in rows]
FORBIDDEN = re.compile(
    r"\d|[@$£€¥#]|https?:|www\.|\.com|\b("
    "zero|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|dozen|hundred|thousand|million|first|second|third|"
    "once|twice|double|half|couple|single|"
    "mon|tues?|wed(nes)?|thu(rs)?|fri|satur|sun|"
    "january|february|march|april|may|june|july|august|september|october|november|december|"
    "today|tomorrow|yesterday|tonight|morning|afternoon|evening|night|weekend|"
    "minutes?|hours?|weeks?|months?|years?|seconds?|days?|(mon|tues|wednes|thurs|fri|satur|sun)day|"
    "pounds?|euros?|dollars?|pence|cents?|quid)\\b",
    re.IGNORECASE,
)
CAPITALS = {"I", "PIN", "Cards", "Rates"}
"""Words with a capital inside a sentence: those of the policy's templates."""


def said_by(policy: dict[str, Any], at: list[str]) -> str:
    """What the policy says there; a rule without words of its own says what the hand-over does."""
    found: Any = policy
    for key in at:
        found = found[key]
    if isinstance(found, dict) and "template" not in found:
        found = found.get("reply") or policy["handover"]["reply"]
    return str(found["template"] if isinstance(found, dict) else found)


def put_constants(text: str) -> str:
    for name, value in {**WORDINGS["constants"], **POLICY.get("constants", {})}.items():
        text = text.replace(f"{{{name}}}", value)
    return text


RULES = [WORDINGS["greeting"], WORDINGS["again"], *WORDINGS["rules"]]


def by_act_set(part: str) -> dict[str, set[str]]:
    found = defaultdict(set)
    for row in ROWS[part]:
        found[json.dumps(row["acts"])].add(row["reply"])
    return found


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: ".".join(rule["at"]))
def test_a_template_is_the_one_of_the_policy(rule: dict[str, Any]) -> None:
    if rule["at"] != ["again"] or "again" in POLICY:
        assert put_constants(rule["template"]) == put_constants(said_by(POLICY, rule["at"]))


def test_every_rule_of_the_policy_has_wordings() -> None:
    needed = {("greeting",), ("default",), ("handover", "reply"), ("handover", "waiting")}
    for name, rule in POLICY["intents"].items():
        needed |= {("intents", name, "needs", slot) for slot in rule.get("needs", {})}
        needed.add(("intents", name, "reply") if "reply" in rule else ("intents", name))
    assert {tuple(rule["at"]) for rule in RULES} == needed | {("again",)}


def test_acts_are_those_that_the_policy_decides() -> None:
    # A template whose facts are not in constants yet informs of none of them: card_arrival is then an answer without slots.
    def without_constants(acts: list[Act]) -> str:
        return describe_acts(act for act in acts if act.slot not in WORDINGS["constants"])

    decided = {without_constants(acts) for _, acts in list_replies(load_policy(HERE / "policy.yaml").value)}
    worded = {without_constants([Act.model_validate(act) for act in rule["acts"]]) for rule in WORDINGS["rules"]}
    assert decided - {"", "inform to card arrival"} == (worded | {"greet"}) - {""}


def test_there_are_enough_rows_and_six_wordings_of_every_act_set() -> None:
    wordings = by_act_set("train")
    assert len(ROWS["train"]) >= 1500
    assert len(wordings) >= 43
    assert {acts for acts, replies in wordings.items() if len(replies) < 6} == set()
    validation, test = by_act_set("validation"), by_act_set("test")
    assert validation.keys() == test.keys() == wordings.keys()
    assert min(len(validation[acts] | test[acts]) for acts in wordings) >= 3


def test_rows_are_in_the_trainers_form_and_acts_in_the_list() -> None:
    for row in ALL:
        assert set(row) == {"turns", "acts", "slots", "reply", "rule"}
        assert row["turns"][-1]["role"] == "user"
        assert [Act.model_validate(act) for act in row["acts"]]


def test_a_reply_names_the_slots_of_its_template_and_its_acts_once_each() -> None:
    slots = {".".join(rule["at"]): sorted(list_slots(rule["template"])) for rule in RULES}
    for row in ALL:
        named = sorted(list_slots(row["reply"]))
        rule = row["rule"] if row["rule"] in slots else row["rule"].split(".", 1)[1]
        assert named == slots[rule], row
        assert named == sorted(act["slot"] for act in row["acts"] if act["act"] == "inform" and "slot" in act), row


def test_a_reply_has_no_values_times_or_names_of_its_own() -> None:
    for reply in {row["reply"] for row in ALL}:
        plain = SLOT.sub(SLOT_MARK, reply)
        assert FORBIDDEN.search(plain) is None, reply
        assert find_fact(plain) is None, reply
        assert find_unknown_name(plain, CAPITALS) is None, reply
        assert not reply.startswith("{")


def test_a_reply_has_five_to_thirty_five_pieces() -> None:
    slots = {slot for rule in RULES for slot in list_slots(rule["template"])}
    cutter = ReplyCutter(Tokenizer.from_file(str(MODEL / "tokenizer.json")), slots)
    for reply in {row["reply"] for row in ALL}:
        assert 5 <= len(cutter.cut(reply)) <= 35, reply


def test_no_wording_is_learned_and_held_out_and_no_row_stands_twice() -> None:
    replies = {part: {row["reply"] for row in rows} for part, rows in ROWS.items()}
    assert not replies["train"] & (replies["validation"] | replies["test"])
    assert not replies["validation"] & replies["test"]
    lines = [json.dumps(row) for row in ALL]
    assert len(set(lines)) == len(lines)


def test_the_rows_are_those_that_the_wordings_make() -> None:
    assert make_rows("validation") == ROWS["validation"]
