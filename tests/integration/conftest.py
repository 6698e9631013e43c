import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.record.util import calc_crc32c
from aiokafka.structs import TopicPartition
from serving import Desk


@pytest.fixture
async def desk(kafka, make_topics, unique, tiny_model) -> Desk:
    """Four topics on the real Kafka, two agents that share one of them, and a tiny model."""
    prefix = unique("desk")
    await make_topics(
        "requests", "classified", "analysed", "deadletters", prefix=prefix, config={"max.message.bytes": str(13 << 20)}
    )
    return Desk(kafka, prefix, tiny_model)


@pytest.fixture
def spoiled_batch():
    """Write one record whose header name is not UTF-8: brokers take it, clients cannot unpack it."""

    async def write(bootstrap: str, partition: TopicPartition) -> None:
        producer = AIOKafkaProducer(bootstrap_servers=bootstrap)
        await producer.start()
        try:
            batch = producer.create_batch()
            batch.append(timestamp=None, key=b"k", value=b'{"text": "a"}', headers=[("zzzzzz", b"1")])
            batch.close()
            raw = batch._build()
            start = bytes(raw).index(b"zzzzzz")
            raw[start : start + 6] = b"\xff" * 6
            # The checksum stands in bytes 17 to 21, over everything behind it.
            raw[17:21] = calc_crc32c(bytes(raw[21:])).to_bytes(4, "big")
            await (await producer.send_batch(batch, partition.topic, partition=partition.partition))
        finally:
            await producer.stop()

    return write
