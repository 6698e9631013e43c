import pytest
from serving import Desk


@pytest.fixture
async def desk(kafka, make_topics, unique, tiny_model) -> Desk:
    """Four topics on the real Kafka, two agents that share one of them, and a tiny model."""
    return await _desk(kafka, make_topics, unique("desk"), tiny_model)


@pytest.fixture
async def guarded_desk(guarded_kafka, make_topics, unique, tiny_model) -> Desk:
    """The same on the Kafka with an authorizer."""
    return await _desk(guarded_kafka.bootstrap, make_topics, unique("desk"), tiny_model)


async def _desk(bootstrap, make_topics, prefix, model) -> Desk:
    await make_topics(
        "requests",
        "classified",
        "analysed",
        "deadletters",
        prefix=prefix,
        config={"max.message.bytes": str(13 << 20)},
        bootstrap=bootstrap,
    )
    return Desk(bootstrap, prefix, model)
