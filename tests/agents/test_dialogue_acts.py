"""What a reply says, as acts, and what of it the model may word."""

from dialogue_talk import Talk

from murmura.agents.dialogue.policy.policy import Policy
from murmura.agents.dialogue.turn.step import Step


def acts(result: Step) -> list[str]:
    return [" ".join(filter(None, (act.act, act.slot, act.intent))) for act in result.reply.acts]


def test_each_reply_has_the_acts_of_its_place_in_the_policy():
    talk = Talk()
    assert acts(talk.say("hi")) == ["greet"]
    assert acts(talk.say("send money", "transfer")) == ["request payee transfer"]
    assert acts(talk.say("eh")) == ["not_understood", "request payee transfer"]
    assert acts(talk.say("to Ann", person="Ann")) == ["request amount transfer", "inform payee transfer"]
    assert acts(talk.say("£5 to Ann", person="Ann", amount="£5")) == [
        "notify_success transfer",
        "inform amount transfer",
        "inform payee transfer",
    ]
    assert acts(talk.say("my balance", "balance")) == ["inform balance"]
    assert acts(talk.say("eh")) == ["not_understood"]
    assert acts(talk.say("theft", "theft", card="gold", person="Bo")) == ["hand_over theft", "inform card theft"]
    assert acts(talk.say("hello?")) == ["notify_success", "hand_over"]


WORDED = Policy.model_validate(
    {
        "greeting": "Hello.",
        "constants": {"days": "five working days"},
        "entity_task": "entities",
        "again": {"generate": True, "template": "Sorry?"},
        "intents": {
            "order": {
                "needs": {"card": {"generate": True, "template": "Which card?"}},
                "reply": {
                    "generate": True,
                    "template": "Your {card} takes {days}.",
                    "acts": ["notify_success", {"act": "inform", "slot": "days"}],
                },
            },
            "block": {"reply": "It is blocked."},
        },
    }
)


def test_the_brief_is_what_the_model_may_word_with_what_stands_around_it():
    talk = Talk(WORDED)
    first = talk.say("a card please", "order")
    assert (first.reply.text, first.brief.template, first.brief.before) == (
        "Hello. Which card?",
        "Which card?",
        "Hello.",
    )
    again = talk.say("eh")
    assert (again.brief.template, [act.act for act in again.brief.acts]) == (
        "Sorry? Which card?",
        ["not_understood", "request"],
    )
    done = talk.say("gold", card="gold one")
    assert done.reply.text == "Your gold one takes five working days."
    assert (done.brief.template, acts(done)) == ("Your {card} takes {days}.", ["notify_success", "inform days"])
    assert done.brief.values == {"card": "gold one", "days": "five working days"}
    assert talk.say("block it", "block").brief is None
