"""The page of a model: what stands in it, what never does, and that it loads nothing. Made of answers without a model."""

import json
import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Encoding

from murmura.schemas.manifest import EncoderSpec, FileEntry, GenerationSpec, ModelManifest, TaskSpec, Thresholds
from murmura.training.data.example import Example, Span
from murmura.training.evaluate.evaluate import record_score, score_answers
from murmura.training.kinds.answers import Answer, Score
from murmura.training.report.figures import shown
from murmura.training.report.page import SECTIONS, make_page, write_pages
from murmura.training.report.page_data import PageData, count_parameters
from murmura.training.report.sections.balance import make_balance
from murmura.training.report.sections.training import make_training
from murmura.training.run_folders.provenance import Environment
from murmura.training.run_folders.run_folder import PhaseRecord, RunRecord

pytestmark = pytest.mark.usefixtures("drawings")
SHA = "0" * 64
NASTY = "<script>alert(\"x\")</script> & 'quotes'"
RTL = "אני רוצה לבטל את הכרטיס"
LONG = "long " * 2000
INTENT = TaskSpec(name="intent", kind="classification", labels=["card", "money"], thresholds=Thresholds(accept=0.6))
MOODS = TaskSpec(name="moods", kind="multi_label", labels=["joy", "fear"])
PLACES = TaskSpec(name="places", kind="tagging", labels=["O", "B-city", "I-city", "B-land", "I-land"])
REPLY = TaskSpec(
    name="reply",
    kind="generation",
    labels=["</s>", "hi"],
    generation=GenerationSpec(context=1, acts=False, layers=1, slots=[]),
)
DATA: dict[str, Any] = {
    "intent": {
        "kind": "classification",
        "parts": {
            "train": {"rows": 1234, "left_out": {"rows without a label": 7}, "labels": {"card": 1000, "money": 234}, "duplicates": 3},
            "test": {"rows": 40, "labels": {"card": 20, "money": 20}, "duplicates": 0, "tokens": {"empty": 0, "cut": 5, "unknown": 0.0123, "mostly_unknown": 0.0}},
        },
        "overlap": {"test": {"train": {"exact": 2, "near": 1}}},
        "notes": ["labels 'card' and 'Card' have nearly the same name"],
        "probe": {"rows": 900, "scores": {"test": {"rows": 40, "accuracy": 0.8125, "macro_f1": 0.7531, "sha256": SHA}}},
    }
}  # fmt: skip


def classified(text: str, label: str, said: str, score: float, **meta: Any) -> Answer:
    both = [{"label": said, "score": score}, {"label": {"card": "money", "money": "card"}[said], "score": 1 - score}]
    withheld = score < 0.6
    output = {"label": None if withheld else said, "score": score, "abstained": withheld, "alternatives": both}
    output["reason"] = "below_threshold" if withheld else None
    odds = np.log([score, 1 - score] if said == "card" else [1 - score, score])
    return Answer(Example(text, (label,), meta=meta), Encoding(), output, odds)


def intents() -> list[Answer]:
    draw, made = np.random.default_rng(0), []
    for number in range(60):
        label, score = ("card", "money")[number % 2], 0.5 + draw.random() / 2
        said = label if draw.random() < score else {"card": "money", "money": "card"}[label]
        made.append(classified(f"text {number}", label, said, score, channel=("app", "secret-branch")[number % 2]))
    made += [classified(text, "card", "money", 0.99, channel="app") for text in (NASTY, RTL, LONG)]
    return made


def tagged(label: str, said: str) -> Answer:
    example, item = Example("to Paris", spans=(Span(3, 8, label),)), {"start": 3, "end": 8, "label": said, "score": 0.9}
    return Answer(example, Encoding(), {"spans": [item]}, np.zeros((1, 5)))


ANSWERS = {
    "intent": (INTENT, intents()),
    "moods": (
        MOODS,
        [
            Answer(Example("so good", ("joy",)), Encoding(), {"labels": [{"label": "joy", "score": 0.8}]}, np.zeros(2)),
            Answer(Example("oh no", ("fear",)), Encoding(), {"labels": [{"label": "joy", "score": 0.7}]}, np.zeros(2)),
            Answer(Example("well", ()), Encoding(), {"labels": []}, np.zeros(2)),
        ],
    ),
    "places": (PLACES, [tagged("city", "city"), tagged("land", "city")]),
    "reply": (
        REPLY,
        [
            Answer(Example("hello", reply="hi there"), Encoding(), {"text": "hi you", "score": 0.5, "finish": "end"}, np.empty(0)),
            Answer(Example("bye", reply="see you"), Encoding(), {"text": "see you", "score": 0.5, "finish": "end"}, np.empty(0)),
        ],
    ),
}  # fmt: skip
CURVES = [
    {"step": 20, "seconds": 3.0, "loss/intent": 1.2, "learning_rate/encoder": 2e-4, "gradient/all": 2.5, "gradient/clipped_share": 0.5},
    {"step": 40, "seconds": 6.0, "loss/intent": 0.4, "learning_rate/encoder": 1e-4, "gradient/all": 1.5, "validation/intent/main": 0.9},
]  # fmt: skip


def scores() -> dict[str, dict[str, Score]]:
    failed: list[str] = []
    found = {name: {"test": score_answers(given, spec, None, failed.append)} for name, (spec, given) in ANSWERS.items()}
    assert not failed
    found["intent"]["test"].figures["probe_accuracy"] = 0.8125
    return found


@pytest.fixture(scope="module")
def page() -> PageData:
    sizes = {"vocab_size": 9, "hidden_size": 8, "layers": 2, "heads": 2, "intermediate_size": 8, "max_positions": 8}
    manifest = ModelManifest(
        name="desk",
        encoder=EncoderSpec(source="scratch", sha256=SHA, **sizes),
        tasks=[spec for spec, _ in ANSWERS.values()],
        data=DATA,
        files=[FileEntry(path="model.ragged.onnx", role="graph:ragged", sha256=SHA, bytes=2_340_000)],
    )
    record = RunRecord(
        name="desk",
        encoder=manifest.encoder,
        tasks=manifest.tasks,
        max_tokens=128,
        recipe_sha256=SHA,
        seed=7,
        steps=40,
        planned_steps=60,
        best_step=40,
        cpu_seconds=201.0,
        validation={},
        phases=[
            PhaseRecord(
                name="one",
                tasks=["intent"],
                steps=20,
                best_step=20,
                validation={"intent": {"main": 0.9}, "moods": {"main": 0.5}},
            )
        ],
        environment=Environment(
            device="cpu", precision="fp32", threads=1, python="3.11.7", libraries={"torch": "2.13.0"}
        ),
        data_files={"train.csv": SHA},
    )
    recipe = "tasks: {}\n# <b>\n"
    return PageData(manifest, scores(), "A <desk>.", recipe, record, CURVES, parameters=22_713_216)


class Parsed(HTMLParser):
    """Text, elements and what they name."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements, self.ids, self.loads, self.text = Counter[str](), Counter[str](), list[str](), ""
        self._style = False
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements[tag] += 1
        self._style = tag == "style"
        for name, value in attrs:
            if name == "id":
                self.ids[value or ""] += 1
            if name in {"src", "href", "xlink:href", "srcset", "data", "action"}:
                self.loads.append(value or "")

    def handle_endtag(self, tag: str) -> None:
        self._style = False

    def handle_data(self, data: str) -> None:
        self.text += "" if self._style else f" {data}"


def refuse(line: str) -> None:
    raise AssertionError(line)


def with_texts(page: PageData) -> str:
    return make_page(PageData(**{**vars(page), "with_texts": True}), say=refuse)


def test_every_figure_of_every_kind_stands_in_the_page_and_so_do_intervals_and_the_probe(page: PageData) -> None:
    text = Parsed(make_page(page, say=refuse)).text
    for by_set in page.scores.values():
        for score in by_set.values():
            for figure, value in record_score(score).items():
                if figure != "intervals":
                    assert f" {figure} " in text
                    assert f" {shown(value)} " in text
    low, high = page.scores["intent"]["test"].interval("accuracy") or (0, 0)
    assert f"{round(low, 4):g} – {round(high, 4):g}" in text
    assert "0.8125" in text
    assert "0.7531" in text


def test_what_was_read_what_it_cost_and_the_recipe_stand_in_the_page(page: PageData) -> None:
    text = " ".join(Parsed(make_page(page, say=refuse)).text.split())
    for said in (
        *("1,234", "7 rows without a label", "3 also in train (2 exactly)", "have nearly the same name", "1.23 %"),
        *("40 of 60 steps; the checkpoint of step 40 was kept", "3 min 21 s", "torch 2.13.0", "cpu, fp32, 1 thread"),
        *("22,713,216", "2.34 MB", "tasks: {}", "A <desk>.", "withheld below 0.6", "Most confused labels"),
    ):
        assert said in text


def test_texts_of_rows_are_escaped_cut_and_shown_in_their_direction(page: PageData) -> None:
    html = with_texts(page)
    found = Parsed(html)
    assert not found.elements["script"]
    assert found.elements["b"] == 0
    assert NASTY in found.text
    assert RTL in found.text
    assert f"({len(LONG):,} characters)" in found.text
    assert LONG not in found.text
    assert 'dir="auto"' in html


def test_a_page_without_texts_shows_neither_texts_nor_values_of_columns(page: PageData) -> None:
    shown_text, hidden = Parsed(with_texts(page)).text, Parsed(make_page(page, say=refuse)).text
    for said in (RTL, "secret-branch", "channel"):
        assert said in shown_text
        assert said not in hidden
    assert "characters" in hidden  # slices by length tell nothing of a row


def test_the_page_loads_nothing_and_its_anchors_are_its_own(page: PageData) -> None:
    html = with_texts(page)
    found = Parsed(html)
    assert "http" not in html.replace(NASTY, "")
    assert not re.search(r"@import|url\((?!#)", html)
    assert not found.elements["link"] + found.elements["img"] + found.elements["iframe"]
    assert all(target.startswith("#") and target[1:] in found.ids for target in found.loads)
    assert set(found.ids.values()) == {1}


def test_drawings_have_titles_and_the_colours_of_both_themes(page: PageData) -> None:
    html = make_page(page, say=refuse)
    found = Parsed(html)
    assert found.elements["svg"] >= 6
    assert found.elements["figcaption"] == found.elements["svg"] == html.count('role="img"') == html.count("<desc")
    assert "prefers-color-scheme: dark" in html
    assert "@media print" in html
    style, drawings = (
        re.search(r"<style>.*?</style>", html, re.DOTALL),
        "".join(re.findall(r"<svg.*?</svg>", html, re.DOTALL)),
    )
    assert style
    assert not re.search(r"#[0-9a-f]{6}\b", re.sub(r'(href="|\(|id=")#?[^"]*', "", drawings))
    assert all(f"{name}:" in style[0] for name in re.findall(r"var\((--[a-z0-9]+)\)", drawings))


@pytest.mark.parametrize(
    ("steps", "planned", "said"), [(1, 80, "1 of 80 steps;"), (1, 1, "1 step;"), (2, 2, "2 steps;")]
)
def test_a_number_of_steps_is_one_step_or_several(page: PageData, steps: int, planned: int, said: str) -> None:
    assert page.record is not None
    record = page.record.model_copy(update={"steps": steps, "planned_steps": planned})
    text = " ".join(Parsed(make_page(replace(page, record=record), say=refuse)).text.split())
    assert f"{said} the checkpoint of step 40 was kept" in text


def test_a_training_of_one_step_has_no_curves(page: PageData) -> None:
    step = page.curves[0]
    scored = {"step": step["step"], "validation/intent/main": 0.5}
    made = make_training(replace(page, curves=[step, scored]))
    assert made is not None
    assert "<svg" not in made.body
    assert "<svg" in make_training(page).body  # type: ignore[union-attr]


def test_the_same_scores_give_the_same_page(page: PageData) -> None:
    make_page(page, say=refuse)
    again = PageData(**{**vars(page), "drawings": {**page.drawings}})
    del again.drawings["curve-loss"]
    assert make_page(again, say=refuse) == make_page(page, say=refuse)


def test_tasks_that_share_an_encoder_show_their_weights_and_whether_their_gradients_agree(page: PageData) -> None:
    weights = {"weight/intent": 0.7, "weight/moods": 0.3}
    joint = [{"step": 20, **weights, "cosine/intent/moods": 0.2}, {"step": 40, **weights, "cosine/intent/moods": -0.5}]
    made = make_balance(PageData(page.manifest, {}, curves=joint))
    assert made is not None
    text = " ".join(Parsed(str(made.body)).text.split())
    assert "intent moods -0.150 -0.500" in text
    assert "Weights of the tasks" in text
    assert "At the end: intent 0.7, moods 0.3." in text
    assert (
        make_balance(PageData(page.manifest, {}, curves=[{"step": 20, "weight/intent": 1.0, "weight/moods": 1.0}]))
        is None
    )


def test_a_model_that_was_evaluated_without_its_run_has_a_page(page: PageData) -> None:
    bare = page.manifest.model_copy(update={"data": {}})
    found = Parsed(make_page(PageData(bare, {"intent": page.scores["intent"]}), say=refuse))
    assert "training" not in found.ids
    assert "task-intent" in found.ids


def test_a_section_that_fails_is_left_out_and_said_in_one_line(page: PageData) -> None:
    said: list[str] = []

    def make_worse(page: PageData) -> None:
        raise ValueError("two\nlines")

    html = make_page(page, say=said.append, sections=[make_worse, *SECTIONS])
    assert said == ["note: report.html: make_worse failed: ValueError: two lines"]
    assert "At a glance" in html


def test_pages_are_written_with_texts_beside_the_run_and_without_into_the_model_and_fail_nothing(
    page: PageData, tmp_path: Path
) -> None:
    said: list[str] = []
    model, run = tmp_path / "desk", tmp_path / "desk.run"
    model.mkdir()
    write_pages(page, model, run, texts=True, say=said.append)
    assert RTL not in (model / "report.html").read_text()
    assert len(said) == 1
    assert said[0].startswith(f"note: no {run / 'report.html'}: FileNotFoundError: ")
    run.mkdir()
    write_pages(page, model, run, texts=False, say=said.append)
    assert not [*run.iterdir()]
    write_pages(page, model, run, texts=True, say=said.append)
    assert RTL in (run / "report.html").read_text()


def test_parameters_are_counted_from_the_header_alone(tmp_path: Path) -> None:
    header = {"__metadata__": {"a": "b"}, "x": {"shape": [3, 4]}, "y": {"shape": [5]}}
    raw = json.dumps(header).encode()
    (tmp_path / "w").write_bytes(len(raw).to_bytes(8, "little") + raw)
    assert count_parameters(tmp_path / "w") == 17
    (tmp_path / "w").write_bytes(b"no header")
    assert count_parameters(tmp_path / "w") is None
