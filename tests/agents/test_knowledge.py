"""Questions with reviewed answers: reading them, finding the nearest, choosing a threshold, and what a check finds."""

import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from tiny_model import INTENT, write_tiny_model
from typer.testing import CliRunner

from murmura.agents.dialogue.commands.knowledge import knowledge_app
from murmura.agents.dialogue.knowledge import entries as knowledge
from murmura.agents.dialogue.knowledge.entries import Entry, read_knowledge, rows_of
from murmura.agents.dialogue.knowledge.index import (
    KnowledgeIndex,
    Scored,
    build_index,
    choose_threshold,
    measure,
    score_rows,
)
from murmura.agents.dialogue.knowledge.report import Finding, find_faults, find_unanswered
from murmura.agents.dialogue.knowledge.whitening import fit_whitening, whiten
from murmura.runtime.errors import SetupError
from murmura.runtime.testing.fakes import FakeModel

DAY = 86_400_000.0
NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC).timestamp() * 1000
FAQ = """entries:
  - question: When do you open?
    wordings: ["Opening hours?"]
    answer: At nine.
  - question: What does a card cost?
    answer: Two euros.
    valid_until: 2025-12-31
  - question: What does a card cost?
    answer: Three euros.
    valid_from: 2026-01-01
"""
AXES = {"When do you open?": 0, "Opening hours?": 1, "What does a card cost?": 2}


def vector_of(text: str) -> np.ndarray:
    """A unit vector an axis for each question; other texts lie between axis 0 and axis 3, as near as their length says."""
    vector = np.zeros(4, np.float32)
    if text in AXES:
        vector[AXES[text]] = 1
    else:
        vector[0], vector[3] = len(text) / 10, np.sqrt(1 - (len(text) / 10) ** 2)
    return vector


MODEL = FakeModel([INTENT], vectors=vector_of)


def written(folder: Path, text: str, name: str = "faq.yaml") -> Path:
    (folder / name).write_text(text)
    return folder / name


@pytest.fixture
def index(tmp_path: Path) -> KnowledgeIndex:
    return build_index(read_knowledge(written(tmp_path, FAQ)), MODEL)


def test_yaml_and_json_lines_read_alike(tmp_path: Path) -> None:
    entries = read_knowledge(written(tmp_path, FAQ))
    lines = "\n\n".join(entry.model_dump_json(exclude_none=True) for entry in entries)
    assert read_knowledge(written(tmp_path, lines, "faq.jsonl")) == entries
    assert [question for question, _ in rows_of(entries)] == [*AXES, "What does a card cost?"]


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        ("entries: []", "f.yaml", r"f\.yaml:1: entries: "),
        ("entries:\n- {question: a}", "f.yaml", r"f\.yaml:2: entries\.answer: this key is missing"),
        ("entries:\n- {question: a, anwser: b}", "f.yaml", r"f\.yaml:2: entries\.anwser: unknown key"),
        ('entries:\n- {question: a, answer: b, wordings: ["A?"]}', "f.yaml", r"f\.yaml:2: .*'A\?' stands twice"),
        (
            "entries:\n- {question: a, answer: b, valid_from: 2026-02-01, valid_until: 2026-01-01}",
            "f.yaml",
            "valid_until 2026-01-01 lies before valid_from 2026-02-01",
        ),
        (
            "entries:\n- {question: a, answer: b, valid_from: 2026-02-01 10:00:00}",
            "f.yaml",
            r"f\.yaml:2: entries\.valid_from: expected a date like 2026-01-31",
        ),
        (
            '{"question": "a", "answer": "b", "valid_from": "2026-02-01T00:00:00+05:00"}',
            "f.jsonl",
            "expected a date like",
        ),
        ('{"question": "a", "answer": "b", "valid_from": "1767225600"}', "f.jsonl", "expected a date like 2026-01-31"),
        ('{"question": "a", "answer": "b", "valid_from": "2026-02-31"}', "f.jsonl", r"f\.jsonl:1: valid_from: "),
        ("nothing: 1", "f.yaml", r"f\.yaml:1: nothing: unknown key"),
        ('{"question": "a", "answer": "b"}\n[1]', "f.jsonl", r"f\.jsonl:2: expected an object, found list"),
        ('\n{"question": "a"}', "f.jsonl", r"f\.jsonl:2: answer: this key is missing"),
        ('{"question": "a", "answer": "b", "x": 1}', "f.jsonl", r"f\.jsonl:1: x: unknown key; expected one of answer"),
        ("{", "f.jsonl", r"f\.jsonl:1: not JSON"),
        ("", "f.jsonl", r"f\.jsonl: 0 entries, expected 1 to 2000"),
    ],
)
def test_a_mistake_is_one_line_with_file_line_and_key(tmp_path: Path, text: str, name: str, message: str) -> None:
    with pytest.raises(SetupError, match=message) as raised:
        read_knowledge(written(tmp_path, text, name))
    assert "\n" not in str(raised.value)


def test_knowledge_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, FAQ)
    monkeypatch.setattr(knowledge, "MOST_QUESTIONS", 3)
    with pytest.raises(SetupError, match="4 questions and wordings, expected at most 3"):
        read_knowledge(path)
    monkeypatch.setattr(knowledge, "MOST_BYTES", 10)
    with pytest.raises(SetupError, match="expected at most 10: divide the knowledge"):
        read_knowledge(path)
    with pytest.raises(SetupError, match="cannot read the knowledge: No such file"):
        read_knowledge(tmp_path / "none.yaml")


@pytest.mark.parametrize(("at", "answer"), [(NEW_YEAR - 1, "Two euros."), (NEW_YEAR, "Three euros.")])
def test_the_answer_is_the_one_that_is_valid_at_the_time_of_the_question(
    index: KnowledgeIndex, at: float, answer: str
) -> None:
    found = index.search(vector_of("What does a card cost?"), at)
    assert found is not None
    assert (found.entry.answer, found.score) == (answer, 1.0)


def test_the_nearest_wording_answers_with_its_similarity(index: KnowledgeIndex) -> None:
    found = index.search(vector_of("12345678"), NEW_YEAR)
    assert found is not None
    assert (found.question, found.score) == ("When do you open?", pytest.approx(0.8))


def test_the_last_day_of_the_calendar_means_for_ever(tmp_path: Path) -> None:
    entry = read_knowledge(written(tmp_path, "entries:\n- {question: a, answer: b, valid_until: 9999-12-31}"))[0]
    assert entry.ends > NEW_YEAR


def test_where_no_entry_is_valid_nothing_is_found() -> None:
    entry = Entry.model_validate({"question": "a", "answer": "b", "valid_until": "2025-12-31"})
    index = KnowledgeIndex([entry], np.ones((1, 1), np.float32))
    assert index.search(np.ones(1), NEW_YEAR) is None
    assert index.search(np.ones(1), NEW_YEAR - DAY) is not None


def test_the_nearest_entry_without_an_answer_leaves_a_text_unanswered() -> None:
    entries = [
        Entry(question="Do you offer loans?", answer="Yes."),
        Entry(question="Do you offer home loans?", answer=None),
    ]
    index = KnowledgeIndex(entries, np.eye(2, dtype=np.float32))
    rows = [("loans", "Do you offer loans?"), ("home loans", None)]
    scored = score_rows(index, rows, np.array([[0.9, 0.1], [0.6, 0.7]], np.float32), NEW_YEAR)
    assert [(row.score > 0.9, row.is_right) for row in scored] == [(True, True), (False, False)]
    near = KnowledgeIndex(entries, np.array([[1, 0], [0.95, 0.31]], np.float32))
    assert [*find_faults(near, NEW_YEAR)] == []


def test_what_wordings_of_one_question_differ_in_counts_less() -> None:
    random = np.random.default_rng(0)
    owners = np.repeat(np.arange(5), 10)
    vectors = np.eye(8, dtype=np.float32)[owners]
    vectors[:, 7] = random.normal(size=50)
    matrix = fit_whitening(vectors, owners)
    kept, ignored = np.linalg.norm(matrix[0]), np.linalg.norm(matrix[7])
    assert ignored < 0.4 * kept
    text = np.array([0, 1, 0, 0, 0, 0, 0, 3], np.float32)
    assert whiten(text, matrix) @ whiten(np.eye(8, dtype=np.float32)[1], matrix) > 2 * text[1] / np.linalg.norm(text)
    assert np.array_equal(fit_whitening(vectors[:20], owners[:20]), np.eye(8))  # too few to know their spread
    assert np.array_equal(fit_whitening(vectors[:0], owners[:0]), np.eye(8))


def test_an_index_is_built_in_chunks_and_given_up_between_them(tmp_path: Path) -> None:
    entries = [Entry(question=f"{number}", answer="a") for number in range(150)]
    sizes: list[int] = []

    class Counting:
        def embed(self, texts: list[str]) -> np.ndarray:
            sizes.append(len(texts))
            return np.ones((len(texts), 2), np.float32)

    assert len(build_index(entries, Counting()).vectors) == 150
    assert sizes == [64, 64, 22]
    with pytest.raises(TimeoutError):
        build_index(entries, Counting(), lambda: len(sizes) > 3)
    assert len(sizes) == 4


def test_the_lowest_threshold_with_few_wrong_answers_is_chosen(index: KnowledgeIndex) -> None:
    rows = [
        ("When do you open?", "When do you open?"),
        ("123456", None),
        ("123456789", "When do you open?"),
        ("12", None),
    ]
    scored = score_rows(index, rows, MODEL.embed([text for text, _ in rows]), NEW_YEAR)
    assert [row.is_right for row in scored] == [True, False, True, False]
    chosen = choose_threshold(scored)
    assert chosen == (0.61, 1.0, 0.0, 0.0)
    assert measure(scored, 0.5) == (0.5, 1.0, 0.0, 0.5)
    assert choose_threshold([Scored(1.0, False, True)]).threshold > 1
    with pytest.raises(ValueError, match="expected a row or more"):
        measure([], 0.5)


def test_near_duplicates_contradictions_and_expired_entries_are_found() -> None:
    entries = [
        Entry(question="How much?", answer="Two."),
        Entry(question="How  much", answer="Three."),
        Entry(question="What price?", answer="Two."),
        Entry.model_validate({"question": "Old?", "answer": "Yes.", "valid_until": "2025-12-31"}),
        Entry.model_validate({"question": "Old?", "answer": "No.", "valid_from": "2026-01-01"}),
    ]
    vectors = np.array([[1, 0], [1, 0], [0.95, 0.31], [0, 1], [0, 1]], np.float32)
    assert [*find_faults(KnowledgeIndex(entries, vectors), NEW_YEAR)] == [
        Finding("contradiction", "How  much", "How much?", 1.0, "entries 1 and 2"),
        Finding("near duplicate", "What price?", "How much?", 0.95, "entries 1 and 3"),
        Finding("near duplicate", "What price?", "How  much", 0.95, "entries 2 and 3"),
        Finding("expired", "Old?", detail="valid until 2025-12-31"),
    ]


def test_texts_of_a_log_that_nothing_answers_are_found_with_what_is_nearest(index: KnowledgeIndex) -> None:
    texts = [("Opening hours?", NEW_YEAR), ("123", NEW_YEAR)]
    found = [*find_unanswered(index, texts, MODEL.embed([text for text, _ in texts]), 0.8)]
    assert [each.as_json for each in found] == [
        {"problem": "unanswered", "text": "123", "nearest": "When do you open?", "similarity": 0.3}
    ]


@pytest.fixture(scope="module")
def pooled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny", [INTENT], pooled=True)


def check(*arguments: object) -> Result:
    result = CliRunner().invoke(knowledge_app, ["check", *map(str, arguments)])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_a_check_prints_what_it_finds_and_fails_for_faults_alone(pooled: Path, tmp_path: Path) -> None:
    faq = written(tmp_path, "entries:\n- {question: my card was lost, answer: a}\n- {question: thanks, answer: b}")
    log = written(tmp_path, '{"text": "weather tomorrow", "timestamp": 1}\n{"text": "thanks"}\n', "log.jsonl")
    rows = written(tmp_path, '{"text": "thanks", "question": "thanks"}\n{"text": "hello", "question": null}', "r.jsonl")
    given = ("--model", pooled, faq, "--log", log, "--threshold", "0.999", "--similar", "1")
    clean = check(*given, "--json", "--rows", rows)
    assert clean.exit_code == 0
    assert [json.loads(line)["text"] for line in clean.stdout.splitlines()] == ["weather tomorrow"]
    assert "2 entries, 2 questions, 2 texts of a log; unanswered: 1" in clean.stderr
    assert "(used, 2 rows): answered right 100.0%, wrong 0.0%, and 0.0% of what" in clean.stderr
    expired = written(tmp_path, faq.read_text() + "\n- {question: hello, answer: c, valid_until: 2020-01-01}")
    faulty = check("--model", pooled, expired, "--similar", "1")
    assert (faulty.exit_code, faulty.stdout.split("\t")[:2]) == (1, ["expired", "hello"])


def test_what_a_check_cannot_read_is_one_line(pooled: Path, tiny_model: Path, tmp_path: Path) -> None:
    faq = written(tmp_path, FAQ)
    log = written(tmp_path, '{"text": "a"}\n{"txt": "b"}', "log.jsonl")
    with pytest.raises(SetupError, match=r"log\.jsonl:2: text: expected a text that is not blank"):
        check("--model", pooled, faq, "--log", log)
    rows = written(tmp_path, '{"text": "a", "question": "b"}', "rows.jsonl")
    with pytest.raises(SetupError, match=r"rows\.jsonl:1: question: no entry with an answer has it"):
        check("--model", pooled, faq, "--rows", rows)
    with pytest.raises(SetupError, match="model tiny gives no vectors of texts; train it with `pooled: true`"):
        check("--model", tiny_model, faq)
