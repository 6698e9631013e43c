"""Kinds of tasks as plug-ins: those of the package, one of a user's own, and packages that are broken."""

import json
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from installed_package import installed
from tiny_decoder import reply_task
from tiny_model import ENTITIES, INTENT, TASKS, TOPICS, write_tiny_model

from murmura.runtime.agent.agent import Agent
from murmura.runtime.errors import ModelRefused, RecordError, SetupError
from murmura.runtime.model.folders.folder import read_manifest
from murmura.runtime.model.kinds.forms import AnswerForm
from murmura.runtime.model.kinds.registry import KINDS, kind_of
from murmura.runtime.model.model import Model
from murmura.runtime.settings.routing_rules import Rule
from murmura.runtime.testing.fakes import FakeModel
from murmura.runtime.testing.replay_comparison import answer_of
from murmura.runtime.testing.simulated_runner import SimulatedRunner
from murmura.runtime.wire.feedback import check_form, known_labels
from murmura.runtime.wire.summary import output_line
from murmura.schemas.feedback import Feedback
from murmura.schemas.manifest import TaskSpec
from murmura.schemas.serving_event import RejectReason

OURS = ["classification", "generation", "multi_label", "tagging"]
ORDINAL = """
import numpy as np
from murmura.runtime.model.decoding import sigmoid
from murmura.runtime.model.kinds.classification import Classification, ClassificationDecoder

class Decoder(ClassificationDecoder):
    def scores(self, logits):
        at_least = sigmoid(np.sort(logits.astype(np.float64))[:, ::-1] / self._temperature)
        edge = np.ones((len(at_least), 1))
        return np.concatenate([edge, at_least], 1) - np.concatenate([at_least, 0 * edge], 1)

class Ordinal(Classification):
    name = "ordinal"

    def width(self, task):
        return len(task.labels) - 1

    def make_decoder(self, task):
        return Decoder(task)

    def to_scores(self, logits):
        return sigmoid(logits)

    def to_decisions(self, logits):
        return (logits > 0).sum(-1)
"""
STARS = TaskSpec(name="stars", kind="ordinal", labels=["1", "2", "3", "4", "5"])


@pytest.fixture
def install(tmp_path: Path):
    """Install a package of one module with entry points for kinds, as far as Python looks."""
    with ExitStack() as stack:

        def add(package: str, source: str, points: dict[str, str]) -> None:
            place = tmp_path / package
            place.mkdir()
            (place / f"{package}.py").write_text(source)
            targets = {name: f"{package}:{attribute}" for name, attribute in points.items()}
            stack.enter_context(installed(package, place, {"murmura.kinds": targets}, place))

        yield add


def test_the_kinds_of_the_package_are_installed():
    assert KINDS.names() == OURS
    assert [KINDS.get(name).name for name in OURS] == OURS
    assert KINDS.get("tagging") is KINDS.get("tagging")


def test_a_kind_of_a_users_package_is_served(install, tmp_path):
    install("stars_package", ORDINAL, {"ordinal": "Ordinal"})
    folder = write_tiny_model(tmp_path / "model", [STARS, *TASKS], graphs=("ragged", "padded"))
    texts = ["my card was lost", "hello", "thanks, it is great!"]
    answers = [Model.load(folder, device="cpu", graph=form).predict(texts) for form in ("ragged", "padded")]
    stars = answers[0][0]["stars"]
    assert (stars["kind"], stars["label"] in STARS.labels, len(stars["alternatives"])) == ("ordinal", True, 3)
    assert output_line(stars) == f"{stars['label']} {stars['score']:.2f}"
    assert answer_of(stars) == stars["label"]
    assert Rule(agent="a", topic="t", task="stars", label=(stars["label"],)).fits(answers[0][0])
    for one, other in zip(*answers, strict=True):
        assert one["stars"]["label"] == other["stars"]["label"]


def test_a_users_kind_is_answered_by_the_agents_that_know_its_form(install):
    install("stars_package", ORDINAL, {"ordinal": "Ordinal"})
    for forms, may in (({AnswerForm.LABEL}, True), ({AnswerForm.SPANS}, False)):
        assert Agent(name="a", topics=("t",), forms=frozenset(forms)).may_answer(STARS) is may


def test_a_model_of_a_kind_that_is_not_installed_is_refused_by_its_name(tiny_model, tmp_path):
    value = json.loads((tiny_model / "manifest.json").read_text())
    value["tasks"][0]["kind"] = "poem"
    (tmp_path / "manifest.json").write_text(json.dumps(value))
    with pytest.raises(
        ModelRefused, match=r"task intent: no kind of task 'poem': installed are .*, multi_label, tagging"
    ) as refused:
        read_manifest(tmp_path)
    assert refused.value.reason is RejectReason.UNSUPPORTED


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"kind": "multi_label"}, "task intent: a task of kind multi_label has no out_of_scope label"),
        ({"kind": "tagging", "out_of_scope": None}, r"task intent: tagging needs BIO tags with O, found \['card_lost'"),
        ({"kind": "tagging", "out_of_scope": None, "labels": ["B-x", "I-x"]}, "task intent: .* found no O"),
        ({"labels": [], "out_of_scope": None}, "task intent has no labels"),
    ],
)
def test_a_task_that_its_kind_cannot_answer_is_refused(tiny_model, tmp_path, change, problem):
    value = json.loads((tiny_model / "manifest.json").read_text())
    value["tasks"][0] |= change
    (tmp_path / "manifest.json").write_text(json.dumps(value))
    with pytest.raises(ModelRefused, match=problem):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    ("source", "attribute", "problem"),
    [
        ("import nothing_of_this_name", "Poem", "cannot be loaded: ModuleNotFoundError: No module named 'nothing_of"),
        ("", "Poem", "cannot be loaded: AttributeError"),
        (
            "class Poem: name = 'poem'",
            "Poem",
            "is a broken_package.Poem, expected a murmura.runtime.model.kinds.kind.Kind",
        ),
        (ORDINAL, "Ordinal", "calls itself 'ordinal': name both the same"),
        (
            "from murmura.runtime.model.kinds.kind import Kind\nclass Poem(Kind): name = 'poem'",
            "Poem",
            "cannot be loaded: TypeError: Can't instantiate abstract class Poem",
        ),
    ],
)
def test_a_broken_package_is_named_in_one_line_and_harms_no_other_kind(install, source, attribute, problem):
    install("broken_package", source, {"poem": attribute})
    with pytest.raises(SetupError) as refused:
        KINDS.get("poem")
    line = str(refused.value)
    assert line.startswith(f"kind of task poem (broken_package:{attribute} of broken_package) {problem}")
    assert "\n" not in line
    assert KINDS.get("tagging").name == "tagging"
    assert output_line({"kind": "poem", "lines": 4}) == '{"kind": "poem", "lines": 4}'


def test_a_name_that_two_packages_use_is_refused_and_both_are_named(install):
    install("my_tags", ORDINAL, {"tagging": "Ordinal"})
    with pytest.raises(SetupError, match=r"kind of task tagging is installed twice: .*uninstall one") as refused:
        KINDS.get("tagging")
    assert all(name in str(refused.value) for name in ("my_tags:Ordinal of my_tags", "Tagging of murmura"))
    assert KINDS.get("multi_label").name == "multi_label"


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
class TestEveryKind:
    def test_a_fake_answer_is_one_that_others_can_read(self, task):
        output = FakeModel([task]).decode(["x"], [], ["x"], [[task.name]])[0][task.name]
        kind = kind_of(task)
        assert output_line(output) == kind.format_line(output)
        assert answer_of(output) == kind.name_answer(output)
        assert all(label in kind.known_labels(task) for label, _ in kind.list_answers(output))

    def test_an_answer_of_another_shape_is_json(self, task):
        assert output_line({"kind": task.kind}) == answer_of({"kind": task.kind}) == json.dumps({"kind": task.kind})

    def test_fake_logits_are_decoded(self, task):
        runner = SimulatedRunner([task], run_s=0, row_s=0)
        mask = np.ones((2, 3), np.float32)
        logits = runner.run({"input_ids": np.arange(6), "attention_mask": mask})[task.name]
        assert [len(row) for row in kind_of(task).split_rows(logits, np.array([0, 3, 6]))]
        assert logits.shape[-1] == kind_of(task).width(task)


@pytest.mark.parametrize(
    ("task", "value", "expected"),
    [
        (INTENT, "refund", None),
        (INTENT, ["refund"], "a correction of a classification task is a label"),
        (TOPICS, ["cards", "travel"], None),
        (TOPICS, "cards", "a correction of a multi_label task is a list of labels"),
        (TOPICS, [{"label": "cards", "start": 0, "end": 2}], "a correction of a multi_label task is a list of labels"),
        (ENTITIES, [{"label": "place", "start": 0, "end": 2}], None),
        (ENTITIES, ["place"], "a correction of a tagging task is a list of spans"),
        (reply_task(), "Your card is here.", None),
        (reply_task(), ["cards"], "a correction of a generation task is a text of the reply"),
    ],
)
def test_a_correction_has_the_form_of_its_kind(task, value, expected):
    fields = {"id": "1", "prediction_id": "0" * 32, "agent": "a", "task": task.name, "verdict": "correction"}
    feedback = Feedback.model_validate({**fields, "value": value, "by": "me", "at": "2025-01-31T12:00:00Z"})
    if expected is None:
        check_form(feedback, task)
    else:
        with pytest.raises(RecordError, match=expected):
            check_form(feedback, task)


def test_the_labels_of_spans_are_those_within_the_tags():
    assert known_labels(ENTITIES) == {"place", "time"}
    assert known_labels(TOPICS) == {"cards", "payments", "travel"}
