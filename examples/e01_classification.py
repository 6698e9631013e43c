"""Three messages to the classification agent. The broker runs in this process: nothing has to be installed or started.

python examples/e01_classification.py
python examples/e01_classification.py --model models/mine
"""

import argparse
import asyncio
import json
import sys
from pathlib import Path

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from murmura import Agent, serve
from murmura.agents import classification
from murmura.runtime.errors import SetupError
from murmura.runtime.kafka.embedded_broker import FETCH_MAX_WAIT_MS, EmbeddedBroker
from murmura.runtime.model.deltas.assembled import resolve
from murmura.runtime.model.model import Model
from murmura.runtime.observe import logs
from murmura.runtime.settings.settings import Settings

DEMO_MODEL = Path(__file__).resolve().parents[1] / "scenarios/support/model"
PATIENCE_S = 30

TEXTS = [
    "I ordered a new card two weeks ago and it is still not here",
    "why is there a fee for taking out cash in Lisbon?",
    "how long does lasagne need in the oven?",
]


async def main() -> None:
    model = Model.load(resolve(model_folder()))
    for text, result in zip(TEXTS, await ask(classification.agent, TEXTS, model), strict=True):
        print(text)
        for task, output in result["outputs"].items():
            print(f"    {task}: {said(output)}")


async def ask(agent: Agent, texts: list[str], model: Model) -> list[dict]:
    """Serve one agent, send it a request for each text, and return the results in the order of the texts."""
    requests, results = agent.topics[0], agent.output
    stop = asyncio.Event()
    with EmbeddedBroker({requests: 2, results: 2, "murmura.deadletters": 1}) as broker:
        settings = Settings(
            kafka={"bootstrap_servers": broker.bootstrap, "fetch_max_wait_ms": FETCH_MAX_WAIT_MS},
            http="127.0.0.1:0",
        )
        async with asyncio.TaskGroup() as group:
            group.create_task(serve(settings, [agent], model=model, stop=stop))
            await publish(broker.bootstrap, requests, texts)
            answers = await read(broker.bootstrap, results, len(texts))
            stop.set()
    return [answers[str(number)] for number in range(len(texts))]


async def publish(bootstrap: str, topic: str, texts: list[str]) -> None:
    """Any Kafka client will do. A text is enough for a request; an id of our own lets us find its answer."""
    async with AIOKafkaProducer(bootstrap_servers=bootstrap) as producer:
        for number, text in enumerate(texts):
            await producer.send_and_wait(topic, json.dumps({"id": str(number), "text": text}).encode())


async def read(bootstrap: str, topic: str, count: int) -> dict[str, dict]:
    """Return so many results by the id of their request. One may come twice: the first is kept."""
    answers: dict[str, dict] = {}
    consumer = AIOKafkaConsumer(
        topic, bootstrap_servers=bootstrap, auto_offset_reset="earliest", fetch_max_wait_ms=FETCH_MAX_WAIT_MS
    )
    async with consumer, asyncio.timeout(PATIENCE_S):
        async for record in consumer:
            result = json.loads(record.value)
            answers.setdefault(result["request_id"], result)
            if len(answers) == count:
                break
    return answers


def said(output: dict) -> str:
    """A classification is a label or an abstention, a multi-label answer any number of labels."""
    if output["kind"] == "multi_label":
        return ", ".join(one["label"] for one in output["labels"]) or "none"
    if output["reason"] == "out_of_scope":
        return f"off topic ({output['score']:.2f})"
    if output["abstained"]:
        return f"not sure, perhaps {output['alternatives'][0]['label']} ({output['score']:.2f})"
    return f"{output['label']} ({output['score']:.2f})"


def model_folder() -> Path:
    parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__)
    parser.add_argument("--model", type=Path, default=DEMO_MODEL, help="a model or delta folder (default: the demo's)")
    return parser.parse_args().model


if __name__ == "__main__":
    logs.configure("warning")
    try:
        asyncio.run(main())
    except SetupError as error:
        sys.exit(str(error))
