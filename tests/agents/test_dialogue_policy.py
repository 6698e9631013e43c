"""A policy file: what is wrong with it is said in one line before anything starts; what it says is filled in safely."""

from pathlib import Path

import pytest

from murmura.agents.dialogue.policy.policy import HandOverRule, IntentRule, Policy
from murmura.agents.dialogue.policy.policy_file import check_against_model, load_policy
from murmura.agents.dialogue.policy.sayings import Words, fill, fill_fields
from murmura.agents.dialogue.turn.acts import list_replies
from murmura.runtime.errors import SetupError
from murmura.schemas.manifest import GenerationSpec, TaskSpec

ENOUGH = "intents:\n  balance:\n    reply: It is in the app.\n"
TASKS = [
    TaskSpec(name="intent", kind="classification", labels=["balance", "transfer"]),
    TaskSpec(name="entities", kind="tagging", labels=["O", "B-amount", "I-amount"]),
]


def load(tmp_path: Path, text: str):
    path = tmp_path / "p.yaml"
    path.write_text(text)
    return load_policy(path)


def checked(tmp_path: Path, text: str, tasks) -> None:
    file = load(tmp_path, text)
    if tasks is not None:
        check_against_model(file, tasks, "desk")


def refusal(tmp_path: Path, text: str, tasks=None) -> str:
    with pytest.raises(SetupError) as caught:
        checked(tmp_path, text, tasks)
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix(str(tmp_path / "p.yaml"))


def test_an_intent_and_its_reply_are_a_policy(tmp_path):
    policy = load(tmp_path, ENOUGH).value
    assert policy.intents["balance"].reply == Words(template="It is in the app.")
    assert (policy.tasks, policy.topics, policy.expiry_ms) == (("intent", "entities"), (), 24 * 3_600_000)


TRANSFER = "intents:\n  transfer:\n    needs:\n      payee: To whom?\n      amount: How much for {payee}?\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", ":1: a policy is a mapping with at least the key `intents`"),
        ("intents: {}\n", ":1: intents: Dictionary should have at least 1 item"),
        ("intents:\n  a:\n    replies: hm\n", ":3: intents.a.replies: unknown key; expected one of action, forget"),
        ("intents:\n  a: {}\n", ":2: intents.a: `reply` is missing; only an intent that goes to a person"),
        (TRANSFER + "    reply: '{amonut}'\n", ":6: intents.transfer.reply: {amonut} is not one of its needs: payee"),
        (
            TRANSFER + "    reply: '{payee.__class__}'\n",
            ":6: intents.transfer.reply: {payee.__class__} must be the plain",
        ),
        (TRANSFER + "    reply: '{payee!r}'\n", ":6: intents.transfer.reply: {payee} must be the plain name"),
        (TRANSFER + "    reply: '{0}'\n", ":6: intents.transfer.reply: {0} must be the plain name"),
        (TRANSFER + "    reply: '{payee'\n", ":6: intents.transfer.reply: a brace stands alone"),
        (
            "intents:\n  t:\n    needs:\n      a: 'For {b}?'\n      b: b?\n    reply: ok\n",
            ":4: intents.t.needs.a: {b} is not one of what is asked before it",
        ),
        (
            "intents:\n  t:\n    needs: {text: 'What?'}\n    reply: ok\n",
            ":3: intents.t.needs.text: a slot cannot be called text",
        ),
        (
            TRANSFER + "    reply: ok\n    action:\n      topic: bank.in\n      fields: {deep: [{x: '{who}'}]}\n",
            ":7: intents.transfer.action: {who} is not one of its needs and the turn: payee, amount, conversation",
        ),
        (
            TRANSFER + "    reply: ok\n    action: {topic: 'no topic!'}\n",
            ":7: intents.transfer.action.topic: expected a name",
        ),
        (
            TRANSFER + "    reply: ok\n    action: {topic: t, fields: {a: ['\\ud800']}}\n".replace("'", '"'),
            ":7: intents.transfer.action: a lone surrogate is no text",
        ),
        (
            TRANSFER + "    reply: ok\n    action: {topic: t, fields: {'\\ud800': 1}}\n".replace("'", '"'),
            ":7: intents.transfer.action: '\\ud800' is no name for a field",
        ),
        (
            TRANSFER + f"    reply: ok\n    action: {{topic: t, fields: {{n: [{2**64}]}}}}\n",
            ":7: intents.transfer.action: a whole number of more than 64 bits cannot be published",
        ),
        (ENOUGH + "greeting: Hello {name}\n", ":4: greeting: {name} is not one of slots: nothing is known here"),
        (ENOUGH + "min_score: 2\n", ":4: min_score: Input should be less than or equal to 1, found '2'"),
        (
            ENOUGH + "handover: {after: 0}\n",
            ":4: handover.after: Input should be greater than or equal to 1, found '0'",
        ),
        (ENOUGH + "expire_after_hours: 0\n", ":4: expire_after_hours: Input should be greater than 0, found '0'"),
        (
            TRANSFER + "    reply: ok\nentity_task: null\n",
            ":1: policy: `entity_task` is null, so no slot is ever filled",
        ),
        (
            TRANSFER + "    reply: ok\n    forget: [payee, amonut]\n",
            ":7: intents.transfer.forget.amonut: no intent needs a slot amonut; those that are needed: amount, payee",
        ),
        (ENOUGH + "slots: {sum: amount}\n", ":4: slots.sum: no intent needs a slot sum; those that are needed: none"),
        (
            "intents:\n  a:\n    reply: {generate: true, template: It takes five days.}\n",
            ":3: intents.a.reply: a generated reply states no number, amount, date, duration or address outside slots, "
            "found 'five': put it in `constants`",
        ),
        (
            ENOUGH + "default: {generate: true, template: 'Come back tomorrow, please.'}\n",
            ":4: default: a generated reply states no number, amount, date, duration or address outside slots, found 'tomorrow'",
        ),
        (
            "intents:\n  a:\n    reply: {generate: true, template: 'Within {days}.'}\n",
            ":3: intents.a.reply: {days} is not one of its needs",
        ),
        (
            "intents:\n  a:\n    reply: {generate: true, template: 'Write {{x}}.'}\n",
            ":3: intents.a.reply: a generated reply cannot hold braces",
        ),
        (
            "intents:\n  a:\n    reply: {generate: true, template: Ok., acts: [{act: inform, slot: day}]}\n",
            ":3: intents.a.reply: an act names day, which is not one of its needs",
        ),
        (
            "intents:\n  a:\n    reply: {generate: true, template: Ok., acts: [informs]}\n",
            ":3: intents.a.reply.acts.act: Input should be 'greet', 'request'",
        ),
        (ENOUGH + "constants: {text: x}\n", ":4: constants.text: a slot cannot be called text"),
        (
            TRANSFER + "    reply: ok\nconstants: {payee: x}\n",
            ":7: constants.payee: payee is a slot that an intent needs",
        ),
        (ENOUGH + "  balance:\n    reply: twice\n", ":4: intents.balance: this key is a duplicate"),
    ],
)
def test_what_is_wrong_is_said_with_line_and_key(tmp_path, text, says):
    assert refusal(tmp_path, text).startswith(says)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            ENOUGH + "intent_task: topic\n",
            ":4: intent_task: model desk has no task topic that is answered with a label; it has intent",
        ),
        (
            ENOUGH + "entity_task: intent\n",
            ":4: entity_task: model desk has no task intent that is answered with spans; it has entities",
        ),
        ("intents:\n  balnce:\n    reply: ok\n", ":2: intents.balnce: not a label of task intent"),
        (
            "intents:\n  transfer:\n    needs:\n      amount: a?\n      payee: b?\n    reply: ok\n",
            ":5: intents.transfer.needs.payee: task entities has no entity payee; it has amount",
        ),
    ],
)
def test_what_the_model_does_not_have_is_refused_with_line_and_key(tmp_path, text, says):
    assert refusal(tmp_path, text, TASKS).startswith(says)


def test_a_slot_may_be_filled_by_an_entity_of_another_name(tmp_path):
    text = "slots: {sum: amount}\nintents:\n  transfer:\n    needs: {sum: 'How much?'}\n    reply: ok\n"
    check_against_model(load(tmp_path, text), TASKS, "desk")


WORDED = """
constants: {days: five working days}
intents:
  transfer:
    needs: {amount: {generate: true, template: "How much?"}}
    reply: {generate: true, template: "{amount} arrives within {days}."}
"""


def reply_task(**changed) -> TaskSpec:
    sizes = {"context": 3, "acts": True, "layers": 1, "slots": ["amount", "days"], **changed}
    return TaskSpec(name="reply", kind="generation", labels=["{end}", "a"], generation=GenerationSpec(**sizes))


def test_replies_that_the_model_cannot_word_are_refused_with_line_and_key(tmp_path):
    assert refusal(tmp_path, WORDED, TASKS).startswith(
        ":5: intents.transfer.needs.amount: `generate` needs a task that words replies, and model desk has no such task reply; it has none"
    )
    assert refusal(tmp_path, WORDED, [*TASKS, reply_task(slots=["amount"])]).startswith(
        ":6: intents.transfer.reply: task reply of model desk knows no slot days; it knows amount"
    )
    assert "and reply of model desk reads none" in refusal(tmp_path, WORDED, [*TASKS, reply_task(acts=False)])
    checked(tmp_path, WORDED, [*TASKS, reply_task()])


HARM = TaskSpec(name="harm", kind="multi_label", labels=["insult", "threat"])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("filter: intent\n", ":4: filter: model desk has no task intent that is answered with labels; it has harm"),
        (
            "filter: harm\nhandover: {filtered: [threats]}\n",
            ":5: handover.filtered: neither `filter` nor `stop_words` has a label threats; they have insult, threat",
        ),
        ("stop_words: none.yaml\n", ":4: stop_words: "),
        ("stop_words: {insult: ['*']}\n", ":4: stop_words.insult: expected a phrase with a letter or digit, found '*'"),
        ("default: '  '\n", ":4: default.template: a text of white space says nothing"),
        ("stop_words: {insult: [5]}\n", ":4: stop_words.insult: YAML reads `5` as a value of type int"),
    ],
)
def test_a_filter_that_cannot_work_is_refused_with_line_and_key(tmp_path, text, says):
    assert refusal(tmp_path, ENOUGH + text, [*TASKS, HARM]).startswith(says)


def test_phrases_may_stand_in_a_file_beside_the_policy(tmp_path):
    (tmp_path / "stop.yaml").write_text("insult: ['you idiot*', go  to hell]\n")
    phrases = load(tmp_path, ENOUGH + "stop_words: stop.yaml\n").value.phrases
    found = ["You IDIOTS!", "please go\nto hell", "thank you, idiot", "to go to hello"]
    assert [phrases.find_labels(text) for text in found] == [["insult"], ["insult"], [], []]
    assert phrases.find_labels("you id\u00adiot, ｇｏ to\u200b hell") == ["insult"]
    checked(tmp_path, ENOUGH + "filter: harm\nhandover: {filtered: [threat]}\n", [*TASKS, HARM])


def test_every_text_of_a_policy_has_acts_and_a_constant_may_stand_in_all(tmp_path):
    text = WORDED.replace("intents:", "greeting: We answer within {days}.\nintents:")
    policy = load(tmp_path, text).value
    replies = list(list_replies(policy))
    assert len(replies) == len([*policy.sayings()])
    assert all(acts for _, acts in replies)


def test_values_are_filled_in_as_they_are_and_braces_can_be_meant():
    assert fill("{{{who}}} gets {sum}", {"who": "{sum}", "sum": "£5"}) == "{{sum}} gets £5"
    assert fill("for {gone}", {}) == "for "
    fields = {"a": "{x}", "b": [1, True, None, {"c": "{x}!"}]}
    assert fill_fields(fields, {"x": "{y}"}) == {"a": "{y}", "b": [1, True, None, {"c": "{y}!"}]}


def test_every_key_stands_in_the_documents():
    text = (Path(__file__).resolve().parents[2] / "docs/dialogue.md").read_text()
    keys = [*Policy.model_fields, *(f"handover.{name}" for name in HandOverRule.model_fields)]
    keys += [f"intents.NAME.{name}" for name in IntentRule.model_fields]
    keys += [*Words.model_fields]
    assert [key for key in keys if f"`{key}`" not in text and key != "handover"] == []


def test_topics_are_those_of_all_actions_once():
    intent = {"reply": "ok", "action": [{"topic": "a"}, {"topic": "b"}]}
    policy = Policy.model_validate({"intents": {"x": intent, "y": {"reply": "ok", "action": {"topic": "a"}}}})
    assert policy.topics == ("a", "b")
