"""Where the tests find Kafka, and what they say when there is none."""

import os
import subprocess
import sys

import pytest
from kafka_broker import ROOT

ON_KAFKA = "tests/deploy/test_kafka_script.py::test_a_record_comes_back_from_a_topic_made_for_the_test"


@pytest.fixture
def without_kafka(tmp_path):
    """An environment with neither Maven nor jars nor Docker."""
    (tmp_path / "path").mkdir()
    for program in ("ps", "java"):
        (tmp_path / "path" / program).write_text("#!/bin/sh\necho 'openjdk version \"21.0.1\"' >&2\n")
        (tmp_path / "path" / program).chmod(0o755)
    own = {"PATH": str(tmp_path / "path"), "MURMURA_CACHE": str(tmp_path / "cache")}
    kept = {k: v for k, v in os.environ.items() if k not in {"CI", "JAVA_HOME", "MURMURA_TEST_BOOTSTRAP"}}
    return {**kept, **own}


def run_one(environment):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", ON_KAFKA]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


def test_without_kafka_a_test_is_skipped_with_one_loud_line(without_kafka):
    done = run_one(without_kafka)
    assert done.returncode == 0, done.stdout
    assert "1 skipped" in done.stdout
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("TESTS ON A REAL KAFKA WERE NOT RUN")]
    assert "install `maven`" in line
    assert "MURMURA_TEST_BOOTSTRAP" in line


def test_on_a_build_server_that_is_a_failure(without_kafka):
    done = run_one({**without_kafka, "CI": "true"})
    assert done.returncode == 1
    assert "needs Maven" in done.stdout


def test_a_broker_that_is_named_is_used(kafka, without_kafka):
    done = run_one({**without_kafka, "MURMURA_TEST_BOOTSTRAP": kafka})
    assert "1 passed" in done.stdout, done.stdout
