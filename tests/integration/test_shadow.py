# ruff: noqa: F811 - fixtures are imported, and then named by the tests that take them
"""A version that is only compared, on a real Kafka: results and offsets are as without it, and what it found is published."""

import json
from datetime import UTC, datetime

from released_models import Releases, releases  # noqa: F401
from serving import Desk, until

from murmura.runtime.release.states import publish_state, read_states
from murmura.schemas.release import shadowed
from murmura.schemas.shadow import ShadowRecord

TEXTS = [f"my card {number}" for number in range(20)]


async def test_every_record_is_compared_and_answered_by_the_current_version(
    desk: Desk, releases: Releases, make_topics
):
    await make_topics("shadow", prefix=desk.prefix)
    await releases.release(releases.push(1))
    second = releases.push(2)
    state = (await read_states(releases.kafka, releases.topic))["tiny"]
    after = shadowed(
        state, second, releases.store.digest("tiny", second), 1.0, by="test", why="test", at=datetime.now(UTC)
    )
    await publish_state(releases.kafka, releases.topic, after)
    async with desk.serving(
        model={"cores": 1, "token_budget": 256, "store": releases.url, "name": "tiny"}, shadow={"max_pass_ms": 1000}
    ) as serving:
        await until(serving, lambda found: "candidate" in found[1]["model"])
        await desk.send(*({"id": text, "text": text} for text in TEXTS))
        results = [json.loads(record.value) for record in await desk.read(desk.classified, len(TEXTS))]
        compared = serving.metrics.registry.get_sample_value
        await until(
            serving,
            lambda found: (
                sum(
                    compared("murmura_shadow_records_total", {"model": "tiny", "outcome": outcome}) or 0
                    for outcome in ("agreed", "differed")
                )
                == len(TEXTS)
            ),
        )
    assert {result["model"]["version"] for result in results} == {1}
    assert await desk.committed() == await desk.ends()
    found = [ShadowRecord.model_validate_json(each.value).root for each in await desk.read(f"{desk.prefix}.shadow", 1)]
    counts = [each for each in found if each.kind == "counts"]
    assert sum(each.chosen for each in counts) == sum(each.compared for each in counts) == len(TEXTS)
    differences = {each.request_id: each for each in found if each.kind == "difference"}
    assert len(differences) == len(TEXTS) - sum(each.agreed for each in counts)
    ids = {result["request_id"]: result["prediction_id"] for result in results}
    assert all(each.predictions["classification"] == ids[name] for name, each in differences.items())
