"""How feedback is weighted and divided."""

from collections import Counter
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from tiny_loop import write_corrections, write_job
from tiny_training import write_jsonl

from murmura.runtime.model.model import Model
from murmura.training.data.example import Example, labels_of, near_forms
from murmura.training.mix.balance import MOST_REPEATS, by_repeats, divided, replayed
from murmura.training.mix.corrections import read_corrections
from murmura.training.mix.plan import plan_mix
from murmura.training.mix.write import write_mix
from murmura.training.recipe.job import read_job


def rows(label: str, count: int) -> list[Example]:
    return [Example(f"{label} {n}", (label,), place=f"{label}.jsonl:{n + 1}") for n in range(count)]


def seen(groups: dict[int, list[Example]]) -> Counter:
    found: Counter = Counter()
    for times, examples in groups.items():
        for example in examples:
            found[example.labels[0]] += times
    return found


def test_a_label_of_five_rows_is_seen_as_often_as_an_old_one_beside_one_of_two_hundred():
    found = seen(by_repeats([*rows("big", 200), *rows("small", 5)], before=60))
    assert found == {"big": 200, "small": 60}


def test_no_row_is_seen_more_than_twenty_times():
    assert set(by_repeats(rows("small", 2), before=1000)) == {MOST_REPEATS}


def test_a_text_of_several_labels_is_seen_as_often_as_its_rarest_needs():
    several = [Example(f"both {n}", ("common", "rare")) for n in range(4)]
    found = by_repeats([*rows("common", 96), *several], before=20)
    assert {times: len(examples) for times, examples in found.items()} == {1: 96, 5: 4}


def test_of_five_rows_four_are_learned_from_and_of_fewer_all():
    mine = [example for number in range(30) for example in rows(f"new{number}", 5)]
    learned, validation = divided([*mine, *rows("stray", 3)], seed=0)
    kept = Counter(example.labels[0] for example in learned)
    assert {kept[f"new{number}"] for number in range(30)} == {4}
    assert kept["stray"] == 3
    assert len(validation) == 30


@given(st.lists(st.integers(1, 60), min_size=1, max_size=8), st.integers(0, 5))
def test_no_row_is_lost_and_none_stands_on_both_sides(sizes: list[int], seed: int):
    every = [example for number, size in enumerate(sizes) for example in rows(f"l{number}", size)]
    learned, validation = divided(every, seed)
    assert sorted(e.place for e in (*learned, *validation)) == sorted(e.place for e in every)
    assert {label for e in every for label in labels_of(e)} == {label for e in learned for label in labels_of(e)}


def talked(number: int, *, spellings: int, share: int) -> list[Example]:
    """Texts in several spellings; those of `share` following texts are one conversation."""
    forms = ("I lost card {}", "i lost  card {}", "I LOST CARD {} ")[:spellings]
    return [
        Example(form.format(n), ("lost",), place=f"f:{n}.{at}", meta={"conversation": f"c{n // share}"})
        for n in range(number)
        for at, form in enumerate(forms)
    ]


@given(st.integers(5, 40), st.integers(1, 3), st.integers(1, 4), st.integers(0, 5))
def test_neither_a_text_nor_a_conversation_is_learned_and_validated_on(number, spellings, share, seed):
    every = talked(number, spellings=spellings, share=share)
    learned, validation = divided(every, seed)
    assert sorted(e.place for e in (*learned, *validation)) == sorted(e.place for e in every)
    assert not near_forms(learned) & near_forms(validation)
    assert not {e.meta["conversation"] for e in learned} & {e.meta["conversation"] for e in validation}
    assert len(validation) <= len(every) / 3


def test_of_texts_in_three_spellings_a_tenth_is_validated_on():
    assert len(divided(talked(20, spellings=3, share=1), 0)[1]) == 6
    assert len(divided(talked(5, spellings=3, share=1), 0)[1]) == 3  # a fifth: no text is a tenth


def test_rows_of_a_conversation_that_was_learned_from_earlier_are_learned_from():
    every = talked(20, spellings=1, share=2)
    earlier = [Example("other", ("lost",), meta={"conversation": f"c{n}"}) for n in range(9)]
    assert {e.meta["conversation"] for e in divided(every, 0, earlier)[1]} == {"c9"}


def test_replaying_a_tenth_leaves_no_label_out():
    drawn = replayed([*rows("common", 1000), *rows("rare", 6)], 0.1, seed=0)
    counted = Counter(example.labels[0] for example in drawn)
    assert counted["rare"] >= 5
    assert counted["common"] <= 101
    assert replayed(rows("common", 50), 0.0, seed=0) == []


def test_a_share_of_less_than_a_row_still_replays_five_rows_of_each_label():
    drawn = replayed([*rows("one", 20), *rows("two", 20), *rows("few", 3)], 0.01, seed=0)
    assert Counter(example.labels[0] for example in drawn) == {"one": 5, "two": 5, "few": 3}


@pytest.fixture
def mixed(desk_base: Path, tmp_path: Path) -> Path:
    """What `mix` writes for two new labels of unlike size, with an old recipe that has more to say."""
    folder = write_corrections(tmp_path / "corrections")
    lines = [{"text": f"big {n}", "label": "big"} for n in range(200)]
    lines += [{"text": f"small {n}", "label": "small"} for n in range(5)]
    write_jsonl(folder / "intent.train.jsonl", lines)
    old = yaml.safe_load((desk_base / "base.yaml").read_text()) | {
        "word_dropout": 0.1,
        "temperature": 2.0,
        "normalise": True,
    }
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(old))
    job = read_job(write_job(tmp_path, desk_base, old={"recipe": "base.yaml", "data": str(desk_base), "replay": 0.5}))
    manifest = Model.load(desk_base / "desk").manifest
    mix = plan_mix(job.value, manifest, read_corrections(folder, manifest, 5))
    (tmp_path / "mix").mkdir()
    write_mix(mix, desk_base / "desk", tmp_path / "mix")
    return tmp_path / "mix"


def test_the_recipe_of_a_run_has_a_source_for_each_number_of_repeats(mixed: Path):
    sources = yaml.safe_load((mixed / "recipe.yaml").read_text())["tasks"]["intent"]["train"]
    repeats = {source["path"]: source["repeat"] for source in sources if "repeat" in source}
    assert repeats == {"intent.feedback-x1.jsonl": 1, "intent.feedback-x14.jsonl": 14}
    assert len((mixed / "intent.feedback-x14.jsonl").read_text().splitlines()) == 4


def test_word_dropout_the_temperature_between_tasks_and_normalise_are_those_of_the_old_recipe(mixed: Path):
    recipe = yaml.safe_load((mixed / "recipe.yaml").read_text())
    assert (recipe["word_dropout"], recipe["normalise"]) == (0.1, True)
    assert recipe["sampling"] == {"method": "temperature", "temperature": 2.0}
