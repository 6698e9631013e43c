"""Golden vectors: these values are in other people's databases. They never change."""

import struct
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from murmura.schemas.ids import default_request_id, prediction_id

GOLDEN = [
    (
        "classification",
        "murmura.classification.requests",
        "murmura.classification.requests/3/41/1700000000000",
        "984ce09c814fa747aff2bfb18a0c968e",
    ),
    ("analysis", "https://shop.example/orders", "order-17", "15903c2d948161ad211f9af6bfc9f8c8"),
    ("classification", "support.tickets", "Zürich-票-🙂", "921234142e879de7b975b14da4d3db2d"),
    ("a", "bc", "d", "f15d229cb99884b43b3eb825d886c6d9"),
    ("ab", "c", "d", "febb2fc5e2b7f08feafc5d7b28689b27"),
]


@pytest.mark.parametrize(("agent", "source", "request_id", "expected"), GOLDEN)
def test_a_prediction_id_is_the_one_it_always_was(agent, source, request_id, expected):
    assert prediction_id(agent, source, request_id) == expected


def test_a_request_without_an_id_is_named_by_its_coordinates():
    made = default_request_id("murmura.classification.requests", 3, 41, 1_700_000_000_000)
    assert made == "murmura.classification.requests/3/41/1700000000000"


@given(st.tuples(st.text(), st.text(), st.text()))
def test_a_prediction_id_is_sha_256_over_length_prefixed_parts(parts):
    framed = b"".join(struct.pack(">I", len(p.encode())) + p.encode() for p in parts)
    assert prediction_id(*parts) == sha256(framed).digest()[:16].hex()


@given(st.text(min_size=1), st.text())
def test_moving_a_letter_between_two_parts_changes_the_id(agent, source):
    assert prediction_id(agent, source, "x") != prediction_id(agent[:-1], agent[-1] + source, "x")
