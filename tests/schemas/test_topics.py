"""The table of topics against the contract, written out here once more by hand."""

import pytest

from murmura.schemas.topics import DAY_MS, LARGE_VALUE_BYTES, TOPICS, named_topics

DAYS_30 = str(30 * 86_400_000)
ROOM = 64 * 1024
TWELVE_MIB = 12_582_912

# name, record, partitions, configuration
CONTRACT = [
    ("murmura.classification.requests", "request", 12, {"max.message.bytes": str(TWELVE_MIB + ROOM)}),
    ("murmura.classification.results", "result", 12, {}),
    ("murmura.analysis.requests", "request", 12, {"max.message.bytes": str(TWELVE_MIB + ROOM)}),
    ("murmura.analysis.results", "result", 12, {}),
    ("murmura.dialogue.turns", "turn", 12, {"max.message.bytes": str(TWELVE_MIB + ROOM)}),
    ("murmura.dialogue.replies", "reply", 12, {}),
    ("murmura.dialogue.state", "conversation state", 12, {"cleanup.policy": "compact", "retention.ms": None}),
    ("murmura.handoffs", "hand-over", 12, {}),
    ("murmura.models", "release state", 1, {"cleanup.policy": "compact", "retention.ms": None}),
    (
        "murmura.experiments",
        "experiment state",
        1,
        {"cleanup.policy": "compact", "retention.ms": None},
    ),
    ("murmura.shadow", "shadow difference", 3, {"retention.ms": str(7 * 86_400_000)}),
    ("murmura.training", "training event", 1, {}),
    ("murmura.events", "serving event", 1, {}),
    ("murmura.feedback", "feedback", 12, {"retention.ms": str(90 * 86_400_000)}),
    ("murmura.reviews", "review", 3, {}),
    ("murmura.retries", "request that waits for its next attempt", 3, {"max.message.bytes": str(TWELVE_MIB + ROOM)}),
    ("murmura.deadletters", "dead letter", 3, {"max.message.bytes": str(TWELVE_MIB + 2 * ROOM)}),
]


def test_the_table_holds_exactly_the_topics_of_the_contract():
    assert [name for name, _ in named_topics()] == [row[0] for row in CONTRACT]


@pytest.mark.parametrize(("name", "record", "partitions", "config"), CONTRACT)
def test_a_topic_is_made_as_the_contract_says(name, record, partitions, config):
    topic = dict(named_topics())[name]
    assert (topic.record, topic.partitions()) == (record, partitions)
    expected = {"cleanup.policy": "delete", "retention.ms": DAYS_30, **config}
    assert topic.config() == {name: value for name, value in expected.items() if value is not None}


def test_another_prefix_and_another_number_for_many_are_possible():
    topics = dict(named_topics("acme"))
    assert topics["acme.analysis.requests"].partitions(many=48) == 48
    assert topics["acme.deadletters"].partitions(many=48) == 3


def test_a_dead_letter_of_the_largest_request_fits_its_topic():
    limits = {t.name: int(t.config()["max.message.bytes"]) for t in TOPICS if t.large}
    assert limits.pop("deadletters") - max(limits.values()) == ROOM
    assert min(limits.values()) > LARGE_VALUE_BYTES
    assert DAY_MS == 24 * 60 * 60 * 1000
