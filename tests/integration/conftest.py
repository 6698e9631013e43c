from pathlib import Path

import pytest
from dialogue_bank import POLICY, Bank
from serving import Desk
from tiny_model import write_tiny_model


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


@pytest.fixture(scope="session")
def talkative_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("model") / "tiny", seed=10)


@pytest.fixture
async def bank(kafka, make_topics, unique, talkative_model, tmp_path) -> Bank:
    prefix = unique("bank")
    await make_topics("dialogue.turns", "dialogue.replies", "handoffs", "deadletters", prefix=prefix)
    await make_topics("dialogue.state", prefix=prefix, config={"cleanup.policy": "compact"})
    (tmp_path / "policy.yaml").write_text(POLICY)
    return Bank(Desk(kafka, prefix, talkative_model), tmp_path / "policy.yaml")
