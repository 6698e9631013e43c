"""The card of a model folder, as model hubs read it."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from cli_in_process import refused_here, run_here
from tiny_model import TASKS, write_tiny_model
from tiny_talker import REPLY

from murmura.runtime.model.folders.card import CardFacts, find_datasets, front_matter, write_card
from murmura.runtime.model.folders.folder import read_manifest
from murmura.schemas.manifest import ModelManifest, Thresholds

METRICS: dict[str, dict[str, Any]] = {
    "intent": {
        "rows": 40,
        "accuracy": 0.925,
        "probe_accuracy": 0.9,
        "macro_f1": 0.91,
        "intervals": {"accuracy": [0.8, 0.97]},
        "reports": {"own messages": {"rows": 12, "accuracy": 0.75}},
    },
    "entities": {"rows": 40, "f1": None, "exact": 0.5},
}


@pytest.fixture
def manifest(tmp_path: Path) -> ModelManifest:
    write_tiny_model(tmp_path / "model", tasks=TASKS)
    return read_manifest(tmp_path / "model").model_copy(update={"metrics": METRICS})


def test_the_front_matter_has_the_figures_of_each_task_and_set_as_a_model_index(manifest: ModelManifest) -> None:
    card = write_card(manifest, CardFacts("apache-2.0", ["en"], ["owner/name"]))
    _, front, _ = card.split("---\n", 2)
    found = yaml.safe_load(front)
    assert (found["license"], found["language"], found["datasets"]) == ("apache-2.0", ["en"], ["owner/name"])
    assert found["pipeline_tag"] == "text-classification"
    (index,) = found["model-index"]
    assert index["name"] == manifest.name
    for result in index["results"]:
        assert set(result) == {"task", "dataset", "metrics"}
        assert {"type", "name"} <= set(result["dataset"])
        assert all(isinstance(metric["value"], float) and metric["type"] for metric in result["metrics"])
    sets = [(each["task"]["type"], each["dataset"]["name"]) for each in index["results"]]
    assert sets == [
        ("text-classification", "intent: test"),
        ("text-classification", "intent: own messages"),
        ("token-classification", "entities: test"),
    ]
    assert [each["type"] for each in index["results"][0]["metrics"]] == ["accuracy", "f1"]


def test_the_body_has_tasks_figures_with_intervals_use_limits_and_attribution(manifest: ModelManifest) -> None:
    card = write_card(manifest, CardFacts(description="Sorts cards.", attribution="# tiny\n\n- a source, CC BY 4.0"))
    assert "| intent | test | accuracy | 0.925 | 0.8 to 0.97 |" in card
    assert "| entities | tagging | 2: place, time |" in card
    assert "murmura serve --model ." in card
    assert "## Attribution\n\n- a source, CC BY 4.0" in card
    assert "Sorts cards." in card


def test_nothing_is_assumed_of_a_model_of_which_nothing_is_known(manifest: ModelManifest) -> None:
    found = front_matter(manifest.model_copy(update={"metrics": {}}), CardFacts())
    assert set(found) == {"library_name", "pipeline_tag", "tags"}


def test_of_a_model_with_replies_the_card_says_from_which_score_they_are_to_be_sent(manifest: ModelManifest) -> None:
    task = REPLY.model_copy(update={"thresholds": Thresholds(accept=0.6)})
    body = write_card(manifest.model_copy(update={"tasks": [task], "metrics": {}}), CardFacts())
    assert "`reply` words replies; those with a score below 0.6 are not to be sent." in body
    assert "abstained" not in body


def test_data_sets_of_the_hub_are_found_wherever_a_recipe_names_them() -> None:
    train = [{"path": "hub:b/c", "split": "train"}, "own.csv"]
    assert find_datasets({"tasks": {"a": {"train": train, "test": "hub:a/b"}}}) == ["a/b", "b/c"]
    assert find_datasets(None) == find_datasets({"tasks": 3}) == []


def test_the_hub_reads_the_model_index(manifest: ModelManifest) -> None:
    cards = pytest.importorskip("huggingface_hub").ModelCard
    data = cards(write_card(manifest, CardFacts("apache-2.0"))).data
    assert [each.metric_value for each in data.eval_results][:2] == [0.925, 0.91]


def test_the_command_replaces_its_own_card_and_no_other(tmp_path: Path) -> None:
    write_tiny_model(tmp_path / "model")
    for _ in range(2):
        done = run_here("models", "card", tmp_path / "model")
        assert done.returncode == 0, done.stderr
    assert "no --license" in done.stdout
    (tmp_path / "model" / "README.md").write_text("# mine")
    assert "not written by this command" in refused_here("models", "card", tmp_path / "model")
    assert (tmp_path / "model" / "README.md").read_text() == "# mine"
