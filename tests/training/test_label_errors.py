"""Planted label errors are found, and shown where texts may be shown."""

from collections.abc import Callable, Collection
from pathlib import Path

import numpy as np
import pytest
from tiny_few_rows import INTENT
from tiny_training import rows, write_jsonl

from murmura.schemas.manifest import ModelManifest
from murmura.training.fit.label_quality import check
from murmura.training.fit.label_quality.find import find_in_flags, find_in_labels, find_in_tags
from murmura.training.fit.label_quality.out_of_fold import draw_folds
from murmura.training.fit.setup import Fitting
from murmura.training.report.page import make_page
from murmura.training.report.page_data import PageData
from murmura.training.run_folders.label_errors import read_label_errors

DRAW = np.random.default_rng(0)
CENTRES = DRAW.normal(size=(4, 8)) * 2


def precision_and_recall(found: Collection[object], planted: Collection[object]) -> tuple[float, float]:
    right = len({*found} & {*planted})
    return right / max(1, len(found)), right / len(planted)


def test_flipped_labels_are_found() -> None:
    draw = np.random.default_rng(1)
    labels = np.arange(400) % 4
    features = CENTRES[labels] + draw.normal(size=(400, 8)) * 0.7
    planted = draw.choice(400, 20, replace=False)
    given = labels.copy()
    given[planted] = (given[planted] + draw.integers(1, 4, 20)) % 4
    found = find_in_labels(features, given.tolist(), range(400), 0).found
    precision, recall = precision_and_recall([each.row for each in found], planted.tolist())
    assert precision >= 0.9
    assert recall >= 0.95
    assert all(each.scores.argmax() == labels[each.row] for each in found if each.row in planted)


def test_flipped_flags_are_found() -> None:
    draw = np.random.default_rng(2)
    features = draw.normal(size=(300, 3)) + draw.choice([-3, 3], (300, 3))
    flags = (features > 0).astype(np.float32)
    planted = draw.choice(300, 15, replace=False)
    flags[planted, planted % 3] = 1 - flags[planted, planted % 3]
    flags = np.concatenate([flags, np.zeros((300, 1), np.float32)], axis=1)  # a label that no row has
    found = find_in_flags(features, flags, range(300), 0).found
    precision, recall = precision_and_recall([each.row for each in found], planted.tolist())
    assert precision >= 0.8
    assert recall >= 0.8


def test_flipped_tags_are_found_at_their_words() -> None:
    draw = np.random.default_rng(3)
    tags = [draw.integers(0, 3, 6) for _ in range(80)]
    features = [CENTRES[each] + draw.normal(size=(6, 8)) * 0.7 for each in tags]
    planted = [(row, row % 6) for row in range(0, 80, 5)]
    for row, word in planted:
        tags[row][word] = (tags[row][word] + 1) % 3
    found = find_in_tags(features, tags, range(80), 0).found
    precision, recall = precision_and_recall([(each.row, each.token) for each in found], planted)
    assert precision >= 0.8
    assert recall >= 0.9


def test_equal_texts_are_in_one_fold_and_folds_are_of_one_size() -> None:
    folds = draw_folds([number // 2 for number in range(100)], 0)
    assert all(folds[0::2] == folds[1::2])
    assert np.bincount(folds).tolist() == [20] * 5


def test_labels_that_no_other_row_teaches_are_not_judged() -> None:
    labels = np.append(np.arange(200) % 4, [7, 7])
    groups = [*range(200), "alone", "alone"]
    features = np.concatenate([CENTRES[labels[:200]], np.full((2, 8), 9.0)])
    found = find_in_labels(features, labels.tolist(), groups, 0)
    assert (found.found, found.rows, found.unjudged) == ([], 200, [7])
    flags = np.zeros((202, 5), np.float32)
    flags[np.arange(200), labels[:200]] = flags[200:, 4] = 1
    assert find_in_flags(features, flags, groups, 0).unjudged == [4]
    tags = [labels[at : at + 2] for at in range(0, 202, 2)]
    found = find_in_tags([features[at : at + 2] for at in range(0, 202, 2)], tags, range(101), 0)
    assert (found.found, found.rows, found.unjudged) == ([], 100, [7])


@pytest.fixture
def opened(open_run: Callable[..., Fitting], tmp_path: Path) -> Fitting:
    """A run over 150 rows, of which ten have the label of another intent."""
    folder = tmp_path / "flipped"
    folder.mkdir()
    made = rows(150, 1)
    for row in made[::15]:
        row["label"] = "transfer" if row["label"] == "lost" else "lost"
    write_jsonl(folder / "train.jsonl", made)
    write_jsonl(folder / "test.jsonl", rows(6, 2))
    (tmp_path / "run").mkdir(exist_ok=True)
    tags = {"kind": "tagging", "train": "train.jsonl", "test": "test.jsonl"}
    topics = {**tags, "kind": "multi_label", "columns": {"label": "topics"}}
    tasks = {"intent": INTENT, "topics": topics, "places": tags}
    return open_run(folder, tasks=tasks, report={"label_errors": True})


def test_a_run_writes_what_it_found_and_only_a_page_with_texts_shows_them(opened: Fitting, tmp_path: Path) -> None:
    lines = check.find_label_errors(opened, tmp_path / "run")
    assert [line.split(":")[:2] for line in lines] == [
        [name, " label errors"] for name in ("intent", "topics", "places")
    ]
    found = read_label_errors(tmp_path / "run")
    assert all(each.rows >= 20 and not each.reason for each in found.values())
    error = found["intent"].errors[0]
    manifest = ModelManifest(
        name="desk",
        encoder=opened.checkpoint.spec,
        tasks=[data.spec for data in opened.tasks],
        files=[],
    )
    page = PageData(manifest, {}, label_errors=found)
    assert "Labels that may be wrong" in make_page(page)
    assert error.place not in make_page(page)
    assert error.place in make_page(PageData(manifest, {}, label_errors=found, with_texts=True))
    assert any(error.text for error in found["intent"].errors)
    check.find_label_errors(opened, tmp_path / "run", texts=False)
    bare = read_label_errors(tmp_path / "run")
    assert [error.place for error in bare["intent"].errors] == [error.place for error in found["intent"].errors]
    assert not any(row.text in (tmp_path / "run" / "label_errors.json").read_text() for row in opened.tasks[0].train)


def test_without_the_extra_a_line_says_how_to_get_it(
    opened: Fitting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "is_installed", lambda: False)
    assert check.find_label_errors(opened, tmp_path) == [
        "label errors are not looked for: pip install 'murmura[labels]'"
    ]
