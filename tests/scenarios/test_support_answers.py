"""What the demo's model answers to the messages that the README shows."""

from pathlib import Path

import pytest

from murmura.runtime.model.deltas.assembled import resolve
from murmura.runtime.model.model import Model
from murmura.scenarios.support.place import MESSAGES, MODEL

pytestmark = pytest.mark.minilm

README = Path(__file__).resolve().parents[2] / "README.md"
OFF_TOPIC = "out_of_scope"
# Intent (None: withheld), queue, sentiment, and the entities with their types.
SHOWN: dict[str, tuple[str | None, str, str, dict[str, str]]] = {
    "Where do I send my CV for the summer job in your kitchen?": (None, OFF_TOPIC, "neutral", {}),
    "does the card work in shops in Japan": ("card_acceptance", "card_use", "neutral", {}),
    "I'd like to hold dollars, pounds and zloty. Is that possible?": (
        "fiat_currency_support",
        "exchange",
        "neutral",
        {},
    ),
    "sent £120 to Kelly Marsh this morning and she says there's nothing in her account??": (
        "transfer_not_received_by_recipient",
        "transfers",
        "negative",
        {"£120": "amount_of_money", "Kelly Marsh": "person_name", "this morning": "date"},
    ),
    "someone has bought concert tickets with my card, $312, and I was at home asleep": (
        "compromised_card",
        "security",
        "negative",
        {"$312": "amount_of_money"},
    ),
    "CONGRATULATIONS you have won a luxury yacht, reply with your shoe size": (None, OFF_TOPIC, "positive", {}),
    "ATM gave me £30, the app says £50. where's my other twenty": (
        "wrong_amount_of_cash_received",
        "cash",
        "negative",
        {"£30": "amount_of_money", "£50": "amount_of_money", "twenty": "amount_of_money"},
    ),
    "love the new app, so much easier than the old one": (None, "account", "positive", {}),
    "How do I make a disposable card for one online shop?": (
        "get_disposable_virtual_card",
        "virtual_cards",
        "neutral",
        {},
    ),
    "I was charged twice by Pizza Express on Friday": (
        "transaction_charged_twice",
        "payments",
        "negative",
        {"Pizza Express": "company_name", "Friday": "date"},
    ),
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MURMURA_CACHE", str(tmp_path_factory.mktemp("cache")))
        return Model.load(resolve(MODEL), device="cpu")


@pytest.mark.parametrize("text", SHOWN)
def test_a_message_of_the_readme_is_answered_right_in_every_column(text: str, model: Model) -> None:
    (answer,) = model.predict([text])
    intent, queue, sentiment, spans = SHOWN[text]
    assert (answer["intent"]["label"], answer["sentiment"]["label"]) == (intent, sentiment)
    found = answer["queue"]
    assert (found["label"] or found["reason"]) == queue
    assert {span["text"]: span["label"] for span in answer["entities"]["spans"]} == spans


def test_the_readme_shows_these_messages() -> None:
    shown = README.read_text(encoding="utf-8")
    samples = MESSAGES.read_text(encoding="utf-8")
    for text in SHOWN:
        assert text[:35] in shown
        assert text in samples or text in shown
