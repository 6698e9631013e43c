"""What can be held about the image and the compose file without an engine: they agree with the code and with each other."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from kafka_broker import COMPOSE, ROOT

from murmura.runtime.settings import sources as settings_sources
from murmura.runtime.settings.settings import Settings
from murmura.schemas.topics import TOPICS

DOCKERFILE = (ROOT / "deploy/Dockerfile").read_text()
SERVICES = yaml.safe_load(COMPOSE.read_text())["services"]
OURS = ("topics", "murmura")


def image_environment() -> dict[str, str]:
    block = re.search(r"^ENV (.*?[^\\])$", DOCKERFILE, re.M | re.S)
    assert block
    return dict(pair.split("=", 1) for pair in block[1].replace("\\\n", " ").split())


def container_port(service: str) -> list[str]:
    return [port.rsplit(":", 1)[1] for port in SERVICES[service]["ports"]]


def settings_in(service: str, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """What our own settings make of a container's environment."""
    for name in [name for name in os.environ if name.startswith("MURMURA_")]:
        monkeypatch.delenv(name)
    for name, value in {**image_environment(), **SERVICES[service]["environment"]}.items():
        if name != "PATH":
            monkeypatch.setenv(name, str(value))
    return settings_sources.load()


@pytest.mark.parametrize("service", OURS)
def test_a_container_reaches_the_broker_by_its_name_inside(service, monkeypatch):
    kafka = SERVICES["kafka"]["environment"]
    settings = settings_in(service, monkeypatch)
    assert f"INSIDE://{settings.kafka.bootstrap_servers}" in kafka["KAFKA_ADVERTISED_LISTENERS"]
    assert settings.kafka.bootstrap_servers == "kafka:19092"


def test_the_runtime_finds_its_model_where_compose_puts_it(monkeypatch):
    (mount,) = SERVICES["murmura"]["volumes"]
    assert settings_in("murmura", monkeypatch).model.folder == Path(mount["target"])
    assert mount["read_only"]
    assert mount["bind"] == {"create_host_path": False}, "a mistyped folder is an error, not an empty model"


def test_health_and_metrics_are_where_everybody_looks(monkeypatch):
    port = str(settings_in("murmura", monkeypatch).http_address[1])
    prometheus = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())
    assert prometheus["scrape_configs"][0]["static_configs"][0]["targets"] == [f"murmura:{port}"]
    assert container_port("murmura") == [port]
    assert f"EXPOSE {port}" in DOCKERFILE
    assert f"http://127.0.0.1:{port}/readyz" in DOCKERFILE


def test_prometheus_and_grafana_find_what_is_mounted():
    mounted = {
        path: ROOT / "deploy" / source
        for service in ("prometheus", "grafana")
        for source, path in (mount.split(":")[:2] for mount in SERVICES[service]["volumes"])
        if source.startswith("./")
    }
    assert all(folder.is_dir() for folder in mounted.values())
    read = yaml.safe_load((mounted["/etc/prometheus"] / "prometheus.yml").read_text())
    assert all((mounted["/etc/prometheus"] / name).exists() for name in read["rule_files"])
    provisioned = mounted["/etc/grafana/provisioning"]
    (source,) = yaml.safe_load((provisioned / "datasources/prometheus.yaml").read_text())["datasources"]
    assert source["url"] == f"http://prometheus:{container_port('prometheus')[0]}"
    assert source["jsonData"]["timeInterval"] == read["global"]["scrape_interval"]
    (provider,) = yaml.safe_load((provisioned / "dashboards/murmura.yaml").read_text())["providers"]
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home.startswith(provider["options"]["path"])
    assert (mounted[provider["options"]["path"]] / Path(home).name).exists()


def test_the_commands_are_those_of_our_command_line():
    from typer.testing import CliRunner

    from murmura.runtime.cli.main import build

    for service in OURS:
        done = CliRunner().invoke(build(), [*SERVICES[service]["command"], "--help"])
        assert done.exit_code == 0, f"{service}: {done.output}"


@pytest.mark.parametrize("service", SERVICES)
def test_no_container_has_more_rights_than_it_needs(service):
    rights = SERVICES[service]
    assert rights["cap_drop"] == ["ALL"]
    assert rights["security_opt"] == ["no-new-privileges:true"]
    assert rights["mem_limit"]
    assert "privileged" not in rights
    # The image of Kafka writes its configuration when it starts.
    assert rights.get("read_only", False) or service == "kafka"


@pytest.mark.parametrize("service", [name for name in SERVICES if "ports" in SERVICES[name]])
def test_ports_are_open_on_this_machine_only(service):
    assert all(port.startswith("127.0.0.1:") for port in SERVICES[service]["ports"])


def test_the_broker_is_the_one_that_the_script_runs():
    version = re.search(r"<kafka.version>(.*)</kafka.version>", (ROOT / "deploy/kafka/pom.xml").read_text())
    assert version
    assert SERVICES["kafka"]["image"] == f"apache/kafka:{version[1]}"
    script = dict(
        line.split("=", 1)
        for line in (ROOT / "deploy/kafka/server.properties").read_text().splitlines()
        if "=" in line and not line.startswith("#")
    )
    for key in ("message.max.bytes", "auto.create.topics.enable", "group.initial.rebalance.delay.ms"):
        name = "KAFKA_" + key.upper().replace(".", "_")
        assert str(SERVICES["kafka"]["environment"][name]) == script[key], key
    largest = max(int(topic.config()["max.message.bytes"]) for topic in TOPICS if topic.large)
    assert int(script["message.max.bytes"]) >= largest


def test_the_image_is_built_from_what_docker_may_see():
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {source for line in re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE, re.M) for source in line.split()[:-1]}
    assert copied == allowed
    assert all((ROOT / name).exists() for name in copied)


def test_the_image_runs_as_a_user_who_is_not_root():
    user = re.findall(r"^USER (\d+)$", DOCKERFILE, re.M)
    assert user
    assert user[-1] != "0"
    assert DOCKERFILE.index("USER ") > DOCKERFILE.rindex("RUN "), "nothing runs as root after the user is set"


def has_compose() -> bool:
    docker = shutil.which("docker")
    return bool(docker) and subprocess.run([docker, "compose", "version"], capture_output=True).returncode == 0


@pytest.mark.skipif(not has_compose(), reason="no docker compose here")
def test_compose_reads_its_file():
    done = subprocess.run(
        ["docker", "compose", "--file", str(COMPOSE), "config", "--quiet"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
