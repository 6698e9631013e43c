import pytest
from serving import Desk


@pytest.fixture
async def desk(kafka, make_topics, unique, tiny_model) -> Desk:
    """Four topics on the real Kafka, two agents that share one of them, and a tiny model."""
    prefix = unique("desk")
    await make_topics(
        "requests", "classified", "analysed", "deadletters", prefix=prefix, config={"max.message.bytes": str(13 << 20)}
    )
    return Desk(kafka, prefix, tiny_model)
