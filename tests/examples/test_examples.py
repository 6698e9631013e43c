"""The examples do what they say, started as their first lines say."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from murmura.agents.analysis import agent as analysis
from murmura.runtime.discovery import find_agents
from murmura.runtime.model import Model
from murmura.runtime.rehearsal import rehearse
from murmura.runtime.testing import FakeModel, classified
from murmura.schemas.manifest import TaskSpec

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
MURMURA = Path(sys.executable).with_name("murmura")
SENTIMENT = TaskSpec(name="sentiment", kind="classification", labels=["positive", "negative"])
# The tiny model's answers mean nothing, but they are the same each time: some of these it calls negative.
REVIEWS = [
    "the lamp broke after a day",
    "i want one",
    "great, thanks",
    "I ordered a new card two weeks ago and it is still not here",
    "hello london",
]


def run(*command: object, cwd: Path = EXAMPLES) -> str:
    """What a command prints; it has to succeed."""
    words = [str(word) for word in command]
    done = subprocess.run(words, cwd=cwd, capture_output=True, text=True, timeout=90, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_classification_agent_answers_three_messages(tiny_model: Path):
    said = run(sys.executable, "e01_classification.py", "--model", tiny_model).splitlines()
    texts = [line for line in said if not line.startswith(" ")]
    assert len(texts) == 3
    assert [line.split(":")[0].strip() for line in said[1:4]] == ["intent", "sentiment", "topics"]


def test_the_analysis_agent_shows_entities_and_sentiment(tiny_model: Path):
    said = run(sys.executable, "e02_analysis.py", "--model", tiny_model).splitlines()
    assert sum(line.startswith("    sentiment:") for line in said) == 3


@pytest.mark.minilm
def test_without_a_model_named_the_demos_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MURMURA_CACHE", str(tmp_path))
    said = run(sys.executable, "e01_classification.py")
    lasagne = said.index("how long does lasagne")
    assert "queue: new_card" in said[:lasagne]
    assert "queue: off topic" in said[lasagne:]


@pytest.mark.parametrize("name", ["e01_classification.py", "e02_analysis.py"])
def test_an_example_without_a_model_says_so_in_one_line(name: str, tmp_path: Path):
    done = subprocess.run(
        [sys.executable, name, "--model", str(tmp_path / "none")], cwd=EXAMPLES, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "is not there" in done.stderr


async def test_complaints_are_handed_to_the_analysis_agent(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(EXAMPLES)
    (complaints,) = find_agents(["e03_own_agent:complaints"])
    model = FakeModel([SENTIMENT], {"it broke": {"sentiment": classified("negative", 0.9)}})
    answers = await rehearse([complaints, analysis], {"id": "1", "text": "it broke"}, {"text": "lovely"}, model=model)
    assert [result["agent"] for result in answers.results] == ["complaints", "complaints", "analysis"]
    assert answers.results[-1]["request_id"] == "1"


@pytest.mark.slow
def test_an_agent_of_ones_own_is_served_beside_ours(own_kafka, tiny_model: Path, tmp_path: Path):
    at = ("--bootstrap", own_kafka.bootstrap)
    agents = ("analysis", "e03_own_agent:complaints")
    run(MURMURA, "topics", "--create", "--partitions", "2", *agents, *at)
    log = tmp_path / "serve.log"
    command = [MURMURA, "serve", *agents, "--model", str(tiny_model), "--http", "127.0.0.1:0", *at]
    with log.open("wb") as stream:
        serving = subprocess.Popen(command, cwd=EXAMPLES, stdout=stream, stderr=stream)
    try:
        reviews = tmp_path / "reviews.txt"
        reviews.write_text("\n".join(REVIEWS))
        run(MURMURA, "publish", "shop.reviews", reviews, *at)
        unhappy = sum(answer["sentiment"]["label"] == "negative" for answer in Model.load(tiny_model).predict(REVIEWS))
        assert 0 < unhappy < len(REVIEWS)
        moods, analyses = (
            [
                json.loads(line)
                for line in run(MURMURA, "tail", topic, "--from-beginning", "--json", *count, *at).splitlines()
            ]
            for topic, count in (
                ("shop.moods", ("--count", str(len(REVIEWS)))),
                ("murmura.analysis.results", ("--count", str(unhappy))),
            )
        )
    finally:
        serving.send_signal(signal.SIGTERM)
        code = serving.wait(30)
    assert code == 0, log.read_text()
    complained = {mood["request_id"] for mood in moods if mood["outputs"]["sentiment"]["label"] == "negative"}
    assert {result["request_id"] for result in analyses} == complained


@pytest.mark.slow
def test_a_csv_becomes_a_model_that_answers(tmp_path: Path):
    recipe = EXAMPLES / "e04_train_on_csv/bikes.yaml"
    said = run(MURMURA, "train", recipe, "--out", tmp_path / "bikes", "--quiet", cwd=tmp_path)
    assert f"serve it: murmura serve --model {tmp_path / 'bikes'}" in said
    model = Model.load(tmp_path / "bikes")
    texts = ["when do you close on Saturdays?", "my brakes squeak", "my parcel has not arrived yet"]
    assert [answer["topic"]["label"] for answer in model.predict(texts)] == ["visit", "repair", "order"]


def test_the_ladder_names_every_example():
    ladder = (EXAMPLES / "README.md").read_text()
    names = [path.name for path in EXAMPLES.iterdir() if path.name.startswith("e0")]
    assert len(names) == 4
    assert [name for name in names if name not in ladder] == []
