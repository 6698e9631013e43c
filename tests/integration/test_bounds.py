"""On a real Kafka: what does not fit is fetched again, and every record is answered once all the same."""

import json

from serving import Desk, ids, reason

BYTES = 100_000


def padded(number: int) -> bytes:
    return json.dumps({"id": f"r{number}", "text": f"my card was lost {number}", "attachment": "x" * 9000}).encode()


async def test_records_that_did_not_fit_are_fetched_again_and_answered_once(desk: Desk):
    good = [padded(number) for number in range(150)]
    await desk.send(*[value for pair in zip(good, [b"garbage"] * 150, strict=True) for value in pair])
    limits = {"max_waiting_bytes": 4 * BYTES, "max_partition_waiting_bytes": BYTES, "max_uncommitted": 25}
    async with desk.serving(limits=limits):
        classified = await desk.read(desk.classified, 150)
        letters = await desk.read(desk.dead_letters, 150)
    assert sorted(ids(classified)) == sorted(f"r{number}" for number in range(150))
    assert {reason(letter) for letter in letters} == {"not_json"}
    offsets = [
        (found["murmura_dl_partition"], found["murmura_dl_offset"]) for found in (dict(m.headers) for m in letters)
    ]
    assert len(offsets) == len({*offsets}) == 150
