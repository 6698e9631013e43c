"""No message about a job shows what stands below `kafka` and `model`, where its secrets are."""

from pathlib import Path

import pytest
import yaml
from test_settings_canary import CANARY, SHAPES, keys_of, nested

from murmura.runtime.errors import SetupError
from murmura.runtime.settings.kafka import KafkaSettings
from murmura.training.recipe.job import Start, read_job

KEYS = [("kafka",), *keys_of(KafkaSettings, ("kafka",)), ("model",), *keys_of(Start, ("model",))]


def message_of(folder: Path, job: dict) -> str:
    """What a job is refused with; empty for one that is sound."""
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump({"feedback": {"data": "feedback"}, "model": {"folder": "model"}} | job))
    try:
        read_job(path)
    except SetupError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("shape", SHAPES)
def test_a_secret_in_any_wrong_shape_is_never_shown(shape, tmp_path):
    messages = {path: message_of(tmp_path, nested(path, SHAPES[shape])) for path in KEYS}
    assert [(path, message) for path, message in messages.items() if CANARY in message] == []
    assert sum(map(bool, messages.values())) > len(KEYS) / 2


@pytest.mark.parametrize("value", [12345678, 1.5, [12345678]])
def test_a_password_that_yaml_reads_as_a_number_is_not_shown(value, tmp_path):
    message = message_of(tmp_path, {"kafka": {"security": {"password": value}}})
    assert "kafka.security.password: Input should be a valid string" in message
    assert "12345678" not in message
    assert "1.5" not in message


def test_a_misspelt_key_is_named(tmp_path):
    assert "kafka.security.pasword: unknown key" in message_of(tmp_path, {"kafka": {"security": {"pasword": CANARY}}})
