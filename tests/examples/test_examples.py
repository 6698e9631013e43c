"""The examples do what they say, started as their first lines say."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cli_in_process import run_here
from installed_package import PAIRS, installed_example

from murmura.agents.analysis import agent as analysis
from murmura.agents.dialogue import Dialogue
from murmura.agents.dialogue.policy.policy_file import check_against_model, load_policy
from murmura.runtime.agent.discovery import find_agents
from murmura.runtime.model.folders.folder import read_manifest
from murmura.runtime.model.inputs import TextPair
from murmura.runtime.model.model import Model
from murmura.runtime.testing.fakes import FakeModel, abstained, classified, tagged
from murmura.runtime.testing.rehearsal import rehearse
from murmura.schemas.manifest import TaskSpec
from murmura.training.export.export import export
from murmura.training.fit.loop import fit

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


DIALOGUE = EXAMPLES / "e08_dialogue"
POLICY = EXAMPLES.parent / "scenarios/support/policy.yaml"
DEMO = EXAMPLES.parent / "scenarios/support/model"
TURNS = (DIALOGUE / "turns.txt").read_text().splitlines()
STOLEN, CHARGED = classified("lost_or_stolen_card", 0.9), classified("transaction_charged_twice", 0.9)
SCRIPT = {
    "my card was stolen": {"intent": STOLEN},
    "yesterday": {"entities": tagged("yesterday", date="yesterday")},
    "and Tesco charged me twice": {
        "intent": CHARGED,
        "entities": tagged("and Tesco charged me twice", company_name="Tesco"),
    },
    "it was £14.99": {"entities": tagged("it was £14.99", amount_of_money="£14.99")},
}
NOTHING = {"intent": abstained("card_arrival", 0.2)}
KINDS = ["greeted", "asked", "answered", "asked", "answered", "not_understood", "handed_over"]


def run(*command: object, cwd: Path = EXAMPLES) -> str:
    """What a command prints; it has to succeed."""
    words = [str(word) for word in command]
    done = subprocess.run(words, cwd=cwd, capture_output=True, text=True, timeout=90, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def murmura(*words: object, cwd: Path = EXAMPLES) -> str:
    """What a command prints that serves nothing; it runs in this process, and has to succeed."""
    done = run_here(*words, cwd=cwd)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@contextmanager
def served(*words: object, model: Path, log: Path, cwd: Path = EXAMPLES) -> Iterator[None]:
    """`murmura serve` while the block lasts; it has to end well."""
    command = [str(word) for word in (MURMURA, "serve", *words, "--model", model, "--http", "127.0.0.1:0")]
    with log.open("wb") as stream:
        serving = subprocess.Popen(command, cwd=cwd, stdout=stream, stderr=stream)
    try:
        yield
    finally:
        serving.send_signal(signal.SIGTERM)
        code = serving.wait(30)
    assert code == 0, log.read_text()


def tailed(topic: str, count: int, *words: object) -> list[dict]:
    """The first values of a topic, as `murmura tail` shows them."""
    said = murmura("tail", topic, "--from-beginning", "--json", "--count", count, *words)
    return [json.loads(line) for line in said.splitlines()]


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
    assert "does not exist" in done.stderr


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
    murmura("topics", "--create", "--partitions", "2", *agents, *at)
    with served(*agents, *at, model=tiny_model, log=tmp_path / "serve.log"):
        reviews = tmp_path / "reviews.txt"
        reviews.write_text("\n".join(REVIEWS))
        murmura("publish", "shop.reviews", reviews, *at)
        unhappy = sum(answer["sentiment"]["label"] == "negative" for answer in Model.load(tiny_model).predict(REVIEWS))
        assert 0 < unhappy < len(REVIEWS)
        moods = tailed("shop.moods", len(REVIEWS), *at)
        analyses = tailed("murmura.analysis.results", unhappy, *at)
    complained = {mood["request_id"] for mood in moods if mood["outputs"]["sentiment"]["label"] == "negative"}
    assert {result["request_id"] for result in analyses} == complained


@pytest.mark.slow
@pytest.mark.minilm
def test_a_pipeline_is_routed_by_rules(own_kafka, tmp_path: Path):
    at = ("--config", "examples/e09_routing/murmura.yaml", "--bootstrap", own_kafka.bootstrap)
    agents = ("classification", "analysis", "dialogue")
    cwd, model, tickets = EXAMPLES.parent, "scenarios/support/model", "examples/e09_routing/tickets.jsonl"
    murmura("topics", "--create", "--partitions", "2", *agents, *at, cwd=cwd)
    with served(*agents, *at, model=model, log=tmp_path / "serve.log", cwd=cwd):
        murmura("publish", "desk.tickets", tickets, "--key-field", "customer", *at, cwd=cwd)
        classified = tailed("desk.classified", 6, *at[2:])
        analysed = tailed("murmura.analysis.results", 2, *at[2:])
        replies = tailed("murmura.dialogue.replies", 3, *at[2:])
        people = tailed("desk.people", 2, *at[2:])
    assert {result["request_id"] for result in classified} == {"t1", "t2", "t3", "t4", "t5", "t6"}
    assert {result["request_id"] for result in analysed} == {"t2", "t4"}
    assert {(reply["conversation"], reply["kind"]) for reply in replies} == {
        ("ann", "answered"),
        ("cai", "answered"),
        ("dan", "answered"),
    }
    assert {ticket["id"] for ticket in people} == {"t5", "t6"}


@pytest.mark.slow
def test_a_csv_becomes_a_model_that_answers(tmp_path: Path):
    recipe = EXAMPLES / "e04_train_on_csv/bikes.yaml"
    said = murmura("train", recipe, "--out", tmp_path / "bikes", "--quiet", cwd=tmp_path)
    assert f"serve it: murmura serve --model {tmp_path / 'bikes'}" in said
    model = Model.load(tmp_path / "bikes")
    texts = ["when do you close on Saturdays?", "my brakes squeak", "my parcel has not arrived yet"]
    assert [answer["topic"]["label"] for answer in model.predict(texts)] == ["visit", "repair", "order"]


@pytest.mark.slow
def test_a_kind_of_task_of_ones_own_is_trained_and_served(tmp_path: Path):
    with installed_example(tmp_path / "package"):
        fit(EXAMPLES / "e10_own_kind/reviews.yaml", EXAMPLES, tmp_path / "run", quiet=True)
        export(tmp_path / "run", tmp_path / "reviews")
        model = Model.load(tmp_path / "reviews")
        assert model.tasks["stars"].labels == ["1", "2", "3", "4", "5"]
        worst, best = (answer["stars"] for answer in model.predict(["rubbish, it broke", "perfect, I love it"]))
    assert worst["kind"] == best["kind"] == "ordinal"
    assert 1 <= worst["mean"] < best["mean"] <= 5


@pytest.mark.slow
def test_a_kind_that_reads_two_texts_is_trained_and_served(tmp_path: Path):
    with installed_example(tmp_path / "package", PAIRS):
        fit(EXAMPLES / "e11_pair_of_texts/pairs.yaml", EXAMPLES, tmp_path / "run", quiet=True)
        export(tmp_path / "run", tmp_path / "pairs")
        model = Model.load(tmp_path / "pairs")
        text = "The refund was paid on Friday."
        given = [TextPair(text, "The money has been paid back."), TextPair(text, "No refund was paid.")]
        assert [answer["follows"]["label"] for answer in model.predict(given)] == ["yes", "no"]


def test_a_kind_of_task_takes_two_files_and_one_line():
    package = EXAMPLES / "e10_own_kind"
    lines = [line for path in package.rglob("*.py") for line in path.read_text().splitlines()]
    project = (package / "pyproject.toml").read_text().splitlines()
    assert len(lines) + len(project) < 120
    assert [line for line in project if "murmura_ordinal." in line] == ['ordinal = "murmura_ordinal.serving:Ordinal"']


def test_the_policy_fits_the_demos_model():
    manifest = read_manifest(DEMO)
    check_against_model(load_policy(POLICY), manifest.tasks, manifest.name)


async def test_the_desk_asks_acts_and_hands_over():
    model = FakeModel(read_manifest(DEMO).tasks, lambda text: {**NOTHING, **SCRIPT.get(text, {})})
    said = [("c-1", {"text": text}) for text in TURNS]
    went = await rehearse([Dialogue(POLICY)], *said, model=model)
    assert [reply["kind"] for reply in went.values("murmura.dialogue.replies")] == KINDS
    assert went.values("bank.cards.block")[0]["last_seen"] == "yesterday"
    (refund,) = went.values("bank.refunds")
    assert refund == {"customer": "c-1", "shop": "Tesco", "amount": "£14.99", "said": "it was £14.99"}
    (handed,) = went.values("murmura.handoffs")
    assert [turn["text"] for turn in handed["turns"]] == TURNS


@pytest.mark.minilm
@pytest.mark.slow
def test_it_is_served_and_talked_to_as_its_first_lines_say(own_kafka, tmp_path: Path):
    at = ("--bootstrap", own_kafka.bootstrap)
    desk, cwd = ("dialogue", "--config", "examples/e08_dialogue/murmura.yaml", *at), EXAMPLES.parent
    murmura("topics", "--create", "--partitions", "2", *desk, cwd=cwd)
    with served(*desk, model=Path("scenarios/support/model"), log=tmp_path / "serve.log", cwd=cwd):
        with (DIALOGUE / "turns.txt").open() as turns:
            chat = subprocess.run(
                [MURMURA, "chat", "--json", "--patience", "60", *at],
                stdin=turns, capture_output=True, text=True, timeout=110,
            )  # fmt: skip
        assert chat.returncode == 0, chat.stderr
        replies = [json.loads(line) for line in chat.stdout.splitlines()]
        (refund,) = tailed("bank.refunds", 1, *at)
    assert [reply["kind"] for reply in replies] == KINDS
    assert (refund["shop"], refund["customer"]) == ("Tesco", replies[0]["conversation"])


def test_the_ladder_names_every_example():
    ladder = (EXAMPLES / "README.md").read_text()
    names = [path.name for path in EXAMPLES.iterdir() if path.name.startswith("e0")]
    assert [name for name in names if name not in ladder] == []
