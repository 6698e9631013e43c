import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter
from tiny_model import TASKS, tiny_tokenizer, write_tiny_model

from murmura.runtime.errors import ModelFailed, ModelRefused
from murmura.runtime.model import open_files
from murmura.runtime.model.folders.folder import read_manifest
from murmura.runtime.model.model import Model
from murmura.schemas.manifest import TaskSpec, Thresholds
from murmura.schemas.result import Output

OUTPUT: TypeAdapter[Any] = TypeAdapter(Output)
TEXTS = [
    "my card was lost in london",
    "hello",
    "please cancel order 12, thanks!",
    "",
    "transfer money to london on monday",
]
NAMES = tuple(task.name for task in TASKS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny", graphs=("ragged", "padded"))


@pytest.fixture(scope="module")
def model(folder: Path) -> Model:
    return Model.load(folder, device="cpu")


def close(a: Any, b: Any) -> bool:
    """Outputs with the same decisions and scores within 1e-6."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(close(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(close, a, b))
    return bool(abs(a - b) <= 1e-6) if isinstance(a, float) else bool(a == b)


def test_every_task_of_the_manifest_is_answered_in_the_contracts_shape(model: Model) -> None:
    for answers in model.predict(TEXTS):
        assert tuple(answers) == NAMES
        for answer in answers.values():
            assert OUTPUT.validate_python(answer, strict=True).model_dump() == answer


def test_outputs_are_plain_values_that_json_knows(model: Model) -> None:
    answers = model.predict(TEXTS)
    assert json.loads(json.dumps(answers)) == answers


def test_an_answer_alone_is_the_answer_in_a_batch(model: Model) -> None:
    together = model.predict(TEXTS * 5)
    alone = [model.predict([text])[0] for text in TEXTS]
    assert close(together, alone * 5)


def test_the_padded_graph_gives_the_same_answers(model: Model, folder: Path) -> None:
    assert close(Model.load(folder, device="cpu", graph="padded").predict(TEXTS), model.predict(TEXTS))


def test_rows_get_the_tasks_they_want_and_no_others(model: Model) -> None:
    batch = model.encode(TEXTS)
    wanted = [("intent",), ("entities", "topics"), (), NAMES, ("entities",)]
    answers = model.decode(model.run(batch), batch, TEXTS, wanted)
    assert [set(a) for a in answers] == [set(w) for w in wanted]
    everything = model.decode(model.run(batch), batch, TEXTS, [NAMES] * len(TEXTS))
    assert answers == [{k: v for k, v in full.items() if k in w} for full, w in zip(everything, wanted, strict=True)]


def test_thresholds_given_replace_the_manifests(model: Model) -> None:
    batch = model.encode(TEXTS)
    strict = {"sentiment": Thresholds(accept=1.0)}
    answers = model.decode(model.run(batch), batch, TEXTS, [("sentiment", "topics")] * len(TEXTS), strict)
    assert {a["sentiment"]["reason"] for a in answers} == {"below_threshold"}
    assert [a["topics"] for a in answers] == [a["topics"] for a in model.predict(TEXTS)]


def test_predict_keeps_the_order_of_many_texts(model: Model) -> None:
    texts = [TEXTS[i % len(TEXTS)] for i in range(300)]
    assert close(model.predict(texts, ["intent"]), [{"intent": a["intent"]} for a in model.predict(TEXTS)] * 60)


def test_an_unknown_task_is_a_key_error(model: Model) -> None:
    with pytest.raises(KeyError):
        model.predict(["hello"], ["nonsense"])


class Device:
    """A simulated device: answers of the right shape without a graph."""

    device = "simulated"

    def __init__(self, fill: float = 0.0) -> None:
        self.fill, self.seen = fill, {}

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        self.seen = dict(feeds)
        rows, tokens = len(feeds["pad_index"]), len(feeds["input_ids"])
        return {
            t.name: np.full((tokens if t.kind == "tagging" else rows, len(t.labels)), self.fill, np.float32)
            for t in TASKS
        }


def test_any_object_that_runs_feeds_takes_the_place_of_a_session(folder: Path) -> None:
    simulated = Model(read_manifest(folder), tiny_tokenizer(), Device())
    assert simulated.device == "simulated"
    assert [tuple(a) for a in simulated.predict(TEXTS)] == [NAMES] * len(TEXTS)


def test_the_feeds_of_a_batch_say_where_every_token_lies(folder: Path) -> None:
    device = Device()
    simulated = Model(read_manifest(folder), tiny_tokenizer(), device)
    simulated.run(simulated.encode(["hello", "my card"]))
    assert device.seen["input_ids"].shape == (7,)
    assert device.seen["position_ids"].tolist() == [0, 1, 2, 0, 1, 2, 3]
    assert device.seen["pad_index"].tolist() == [[0, 1, 2, 7], [3, 4, 5, 6]]
    assert device.seen["seq_index"].tolist() == [0, 1, 2, 4, 5, 6, 7]
    assert device.seen["attention_mask"].tolist() == [[1, 1, 1, 0], [1, 1, 1, 1]]
    assert {str(v.dtype) for k, v in device.seen.items() if k != "attention_mask"} == {"int64"}


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_fail_the_run(folder: Path, value: float) -> None:
    simulated = Model(read_manifest(folder), tiny_tokenizer(), Device(value))
    with pytest.raises(ModelFailed, match="not finite"):
        simulated.run(simulated.encode(TEXTS))


def test_a_reference_sample_that_does_not_come_out_is_refused(tmp_path: Path) -> None:
    folder = write_tiny_model(tmp_path / "one")
    other = write_tiny_model(tmp_path / "other", seed=1)
    sample = (other / "reference.json").read_bytes()
    (folder / "reference.json").write_bytes(sample)
    with pytest.raises(ModelRefused, match=r"reference\.json"):
        Model.load(folder)
    from murmura.runtime.model.folders.folder import write_manifest

    manifest = read_manifest(folder)
    write_manifest(folder, manifest, {f.path: f.role for f in manifest.files})
    with pytest.raises(ModelRefused, match="does not reproduce reference text 0") as refused:
        Model.load(folder)
    assert refused.value.reason == "not_reproduced"


def test_a_graph_that_is_written_to_between_its_check_and_its_loading_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_tiny_model(tmp_path / "model")
    graph = folder / "model.ragged.onnx"
    real = open_files.open_session

    def write_then_open(*arguments: Any) -> Any:
        data = bytearray(graph.read_bytes())
        data[-1] ^= 1  # a weight
        graph.write_bytes(data)
        return real(*arguments)

    monkeypatch.setattr(open_files, "open_session", write_then_open)
    with pytest.raises(ModelRefused, match=r"model\.ragged\.onnx was written to while it was loaded"):
        Model.load(folder, device="cpu")


def test_a_graph_without_one_of_the_tasks_is_refused(tmp_path: Path) -> None:
    folder = write_tiny_model(tmp_path / "m", TASKS[:1])
    text = (folder / "manifest.json").read_text().replace('"name": "intent"', '"name": "mood"')
    (folder / "manifest.json").write_text(text)
    with pytest.raises(ModelRefused, match="answers no task 'mood'") as refused:
        Model.load(folder)
    assert refused.value.reason == "wrong_shape"


def test_a_graph_that_the_folder_does_not_have_is_refused_by_role(tmp_path: Path) -> None:
    folder = write_tiny_model(tmp_path / "m")
    with pytest.raises(ModelRefused, match="no file with role graph:padded"):
        Model.load(folder, graph="padded")


def test_a_model_of_one_tagging_task_alone_works(tmp_path: Path) -> None:
    only = TaskSpec(name="tags", kind="tagging", labels=["O", "B-x", "I-x"])
    loaded = Model.load(write_tiny_model(tmp_path / "m", [only]))
    assert [a["tags"]["kind"] for a in loaded.predict(TEXTS)] == ["tagging"] * len(TEXTS)
