"""What the demo's model answers to the messages that the README shows."""

from pathlib import Path

import pytest

from murmura.runtime.model.assembled import resolve
from murmura.runtime.model.model import Model
from murmura.scenarios.support.place import MESSAGES, MODEL

pytestmark = pytest.mark.minilm

README = Path(__file__).resolve().parents[2] / "README.md"
OFF_TOPIC = "out_of_scope"
# Intent (None: withheld), queue, sentiment, and the entities with their types.
SHOWN: dict[str, tuple[str | None, str, str, dict[str, str]]] = {
    "Paid for my hotel in Vienna and your exchange rate is a bad joke": (
        "card_payment_wrong_exchange_rate",
        "exchange",
        "negative",
        {},
    ),
    "visa or mastercard, do i get to pick?": ("visa_or_mastercard", "new_card", "neutral", {}),
    "got the letter with my card but there was no pin in it": ("get_physical_card", "pin", "negative", {}),
    "i typed my pin wrong three times at Aldi and now its locked": (
        "pin_blocked",
        "pin",
        "negative",
        {"three": "number", "Aldi": "company_name"},
    ),
    "found my card in the washing machine after I reported it lost yesterday. can i use it again?": (
        "card_linking",
        "new_card",
        "neutral",
        {"yesterday": "date"},
    ),
    "do you have the green armchair in stock, the one from the window display": (None, OFF_TOPIC, "neutral", {}),
    "the cash machine on Victoria Road kept my card at about 6pm, what now": (
        "card_swallowed",
        "cash",
        "negative",
        {"6pm": "time"},
    ),
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
    "you people want my passport AND a selfie just so i can pay for lunch. why": (
        "why_verify_identity",
        "identity",
        "negative",
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
