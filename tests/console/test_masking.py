"""What is hidden in texts, and that offsets stay true."""

from time import process_time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from murmura.console.web.masking import mask
from murmura.console.web.pages import write_text

ALL = ("email", "phone", "card", "iban")


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("write to ann.lee+x@mail.example.org today", "write to •••.•••+•@••••.•••••••.••• today"),
        ("card 4111 1111 1111 1111, please", "card •••• •••• •••• ••••, please"),
        ("card 4111-1111-1111-1112, please", "card 4111-1111-1111-1112, please"),
        ("card 4111 1111 1111 1111 12/27 123, please", "card •••• •••• •••• •••• 12/27 123, please"),
        ("order 12 4111.1111.1111.1111", "order 12 ••••.••••.••••.••••"),
        ("cards 4111 1111 1111 1111 3782 822463 10005", "cards •••• •••• •••• •••• •••• •••••• •••••"),
        ("in no12 some words DE89 3704 0044 0532 0130 00", "in no12 some words •••• •••• •••• •••• •••• ••"),
        ("to DE89 3704 0044 0532 0130 00 now", "to •••• •••• •••• •••• •••• •• now"),
        ("to GB82WEST12345698765432.", "to ••••••••••••••••••••••."),
        ("to DE00 3704 9044 9531 9130 99 now", "to DE00 3704 9044 9531 9130 99 now"),
        ("call +49 (30) 901820-11 or 020 7946 0958", "call +•• (••) ••••••-•• or ••• •••• ••••"),
        ("call (555) 123-4567", "call (•••) •••-••••"),
        ("on 2026-11-29 at 12:30 order 123456789 for 1,000.00", "on 2026-11-29 at 12:30 order 123456789 for 1,000.00"),
    ],
)
def test_what_is_personal_is_hidden_and_what_is_not_stays(text, masked):
    assert mask(text, ALL) == masked


def test_only_what_is_named_is_hidden():
    assert mask("a@b.example +49 30 9018200", ["email"]) == "•@•.••••••• +49 30 9018200"


@settings(max_examples=50)
@given(st.text(alphabet=st.sampled_from("0123456789 -+().@abZ•\u202e😀\n")), st.sets(st.sampled_from(ALL)))
def test_a_masked_text_is_as_long_as_before(text, kinds):
    assert len(mask(text, kinds)) == len(text)


@pytest.mark.parametrize("piece", ["a", "1", "1 ", "a.", "+1", "AB12", "@a", "aa11-", "1."])
def test_a_long_text_is_masked_in_time(piece):
    began = process_time()
    mask(piece * (20_000 // len(piece)), ALL)
    assert process_time() - began < 1


@pytest.mark.parametrize("before", range(10, 35, 4))
def test_a_text_that_is_cut_does_not_show_the_beginning_of_what_is_hidden(before):
    shown = write_text("x" * before + " 4111 1111 1111 1111 " + "y" * 1_000_000, 30, kinds={"card"})
    assert "41" not in shown
    assert shown.endswith(f"… ({before + 21 + 1_000_000 - 30:,} more characters)")
