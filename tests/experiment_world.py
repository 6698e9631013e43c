"""Two models in an experiment each, on a real Kafka: a script writes what the models and the people would."""

import asyncio
import json
import random
import time
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from aiokafka import AIOKafkaProducer

from murmura.agents.classification import agent as classification
from murmura.runtime.experiment_holder.assembling import make_holder
from murmura.runtime.experiment_holder.log_reader import open_logs
from murmura.runtime.experiments.assignment import choose_side, place_unit
from murmura.runtime.experiments.kept_state import split_key, write_state
from murmura.runtime.experiments.run import ExperimentRun
from murmura.runtime.kafka.changelog import read_to_end
from murmura.runtime.observe.metrics import Metrics
from murmura.runtime.settings.settings import Settings
from murmura.schemas.experiment import Experiment, Rules
from murmura.schemas.experiment_state import ExperimentState
from murmura.schemas.release import released, started
from murmura.schemas.serving_event import ServingEventKind

MODELS = {"better": (0.85, 0.5), "worse": (0.5, 0.9)}
"""How often people agree: with the candidate, and with the current version."""
RULES = Rules(
    min_units=100, min_hours=4 / 60, attribution_hours=3 / 60, hold_back_hours=1 / 60, tuning=400
)  # minutes in place of hours
PATIENCE_S = 90.0


class Events:
    """Notes events in place of `ServingEvents`."""

    def __init__(self) -> None:
        self.emitted: list[tuple[ServingEventKind, str]] = []

    def emit(self, kind: ServingEventKind, **facts: object) -> None:
        self.emitted.append((kind, str(facts["name"])))


class World:
    """The topics of two models in an experiment each, without the models: a script writes what they would."""

    def __init__(self, bootstrap: str, prefix: str, *, session_ms: int = 3000) -> None:
        self.prefix, self.events, self.ahead_s = prefix, Events(), 0.0
        self.start = datetime.now(UTC).replace(second=0, microsecond=0) - timedelta(minutes=20)
        # A member that was killed is missed for a session: short, so that the test is.
        kafka = {"bootstrap_servers": bootstrap, "session_timeout_ms": session_ms, "heartbeat_interval_ms": 300}
        self.settings = Settings(app=prefix, prefix=prefix, kafka=kafka)
        self.experiments = {
            model: Experiment(id=f"{prefix}-{model}", share=0.5, rules=RULES, started=self.start) for model in MODELS
        }

    async def start_experiments(self, producer: AIOKafkaProducer) -> None:
        for model, experiment in self.experiments.items():
            first = released(None, model, 1, "0" * 64, by="test", why="test", at=self.start)
            state = started(first, 2, "1" * 64, experiment, by="test", why="test", at=self.start)
            await producer.send_and_wait(f"{self.prefix}.models", state.model_dump_json().encode(), model.encode())

    async def publish(self, producer: AIOKafkaProducer, minutes: range) -> None:
        """Write answers, draws and verdicts of these minutes since the start."""
        draw = random.Random(minutes.start)
        sent = []
        for number in range(40 * len(minutes)):
            at = self.start + timedelta(minutes=minutes.start, seconds=1.5 * number)
            for model, chances in MODELS.items():
                unit = f"customer-{minutes.start}-{number}"
                side = choose_side(place_unit(self.experiments[model].id, unit), 0.5)
                right = draw.random() < chances[side == "control"]
                for topic, key, value in self._describe(model, unit, side == "candidate", right, at):
                    ms = int(at.timestamp() * 1000)
                    value_bytes = json.dumps(value).encode()
                    sent.append(await producer.send(topic, value_bytes, key.encode(), timestamp_ms=ms))
        await asyncio.gather(*sent)

    def _describe(self, model: str, unit: str, by_candidate: bool, right: bool, at: datetime):
        number = f"{random.Random(f'{model}{unit}').getrandbits(128):032x}"
        ref = {"name": model, "version": 2 if by_candidate else 1}
        if by_candidate:
            ref["variant"] = "candidate"
        source = {"topic": "requests", "partition": 0, "offset": 0, "timestamp": 0}
        output = {"kind": "classification", "label": "refund", "score": 0.9, "alternatives": []}
        shared = {"prediction_id": number, "agent": "classification", "model": ref, "source": source}
        result = {**shared, "request_id": f"request-{unit}", "outputs": {"intent": output}, "time": at.isoformat()}
        yield f"{self.prefix}.classified", unit, result
        review = {**shared, "task": "intent", "why": "random", "sampling_rate": 0.5, "at": at.isoformat()}
        yield f"{self.prefix}.reviews", number, review | {"experiment": self.experiments[model].id}
        verdict = {"verdict": "confirmed"} if right else {"verdict": "correction", "value": "other"}
        said = {"id": number, "task": "intent", "by": "anna", "at": at.isoformat(), "blind": True}
        feedback = {**shared, **said, **verdict}
        yield f"{self.prefix}.feedback", number, feedback

    def make_holder(self):
        """Make what holds the experiments in `murmura serve`, with the clock of this world."""
        agent = replace(classification, topics=(f"{self.prefix}.requests",), output=f"{self.prefix}.classified")
        others = [replace(agent, name=f"of-{model}") for model in MODELS]
        topics = {f"{self.prefix}.experiments": 1}
        asked = {f"of-{model}": model for model in MODELS}
        holder = make_holder(self.settings, others, asked, topics, self.events, Metrics())
        assert holder is not None
        holder._clock = lambda: time.time() + self.ahead_s
        return holder

    @asynccontextmanager
    async def holding(self):
        """Hold the experiments until the block ends."""
        task = asyncio.create_task(self.make_holder().run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def read_kept(self) -> dict[str, ExperimentState]:
        found: dict[str, ExperimentState] = {}

        def take(partition: int, key: bytes | None, value: bytes | None) -> None:
            experiment, number = split_key((key or b"").decode())
            if number is None and value is not None:
                found[experiment.rpartition("-")[2]] = ExperimentState.model_validate_json(value)

        await read_to_end(self.settings.kafka, f"{self.prefix}.experiments", [0], take)
        return found

    async def count_undisturbed(self, until: dict[str, int]) -> dict[str, ExperimentState]:
        """Return what a run without any fault comes to at a minute, by model: all is read at once, and looked at minute by minute."""
        runs = {model: ExperimentRun(model, (1, 2), experiment) for model, experiment in self.experiments.items()}
        now_minute = int(time.time() // 60)
        async with open_logs(self.settings.kafka, self.make_holder()._decoders) as logs:
            await logs.begin(runs.values())
            minute = None
            while minute is None or logs.behind:
                await logs.read_more(runs.values(), now_minute)
                minute = await logs.find_minute(now_minute)
        for model, run in runs.items():
            while (due := run.next_look(until[model])) is not None:
                run.look(due)
        return {model: write_state(run) for model, run in runs.items()}

    async def has_kept_both(self) -> bool:
        kept = await self.read_kept()
        return len(kept) == len(MODELS) and all(state.read_until for state in kept.values())

    async def wait_for(self, holds) -> None:
        end = time.monotonic() + PATIENCE_S
        while not await holds():
            if time.monotonic() > end:
                kept = await self.read_kept()
                raise AssertionError(f"not within {PATIENCE_S:g} s: {kept}")
            await asyncio.sleep(0.5)

    async def make_topics(self, make_topics, bootstrap: str) -> None:
        """Make the topics; `make_topics` is the fixture."""
        shared = {"prefix": self.prefix, "bootstrap": bootstrap}
        await make_topics("classified", "reviews", "feedback", "deadletters", partitions=2, **shared)
        await make_topics("models", "experiments", partitions=1, config={"cleanup.policy": "compact"}, **shared)
