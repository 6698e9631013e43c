"""The pure parts of `benchmarks/generation.py`: figures beside aims, what is sent, joint against alone, recipes, absent data."""

import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from murmura.training.gate.seed_statistics import compare_seeds
from murmura.training.kinds.figures.outcome import of_accuracy
from murmura.training.recipe.recipe import load_recipe

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(autouse=True)
def _with_benchmarks(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)


def drawn(share: float, seed: int, rows: int = 400):
    return of_accuracy(np.random.default_rng(seed).random(rows) < share)


def test_a_row_has_each_figure_beside_its_aim():
    from reply_table import Figure, describe_row

    figures = [Figure("BLEU", 23.16, 21.5), Figure("missing %", 16.0, at_most=15), Figure("CPU-s", 297.4)]
    assert describe_row("seen", figures) == "seen | BLEU 23.2 (>= 21.5) | missing % 16.0 (<= 15, missed) | CPU-s 297.4"
    assert [figure.reached for figure in figures] == [True, False, True]
    assert str(Figure("missing %", None, at_most=15)) == "missing % - (<= 15, missed)"


def test_a_reply_goes_out_where_it_has_ended_and_names_the_slots_that_have_a_value():
    from reply_table import count_sent

    reference, values = "Meet at {time} in {city} with {person}.", {"time", "city", "date"}
    replies = {
        "At {time} in {city}.": True,  # {person} has no value: no template could name it
        "At {time} in {city} on {date}.": True,
        "At {time}.": True,
        "At {time} in {city} with {person}.": True,
        "": True,
        "At {time} in {city}": False,
    }
    found = count_sent([*replies], [*replies.values()], [reference] * 6, [values] * 6)
    assert found.generated == pytest.approx(100 * 2 / 6)
    assert found.missing == pytest.approx(100 * 2 / 18)
    assert found.further == pytest.approx(100 * 1 / 18)
    assert count_sent(["Hello."], [True], ["Hi."], [set()]) == (100, None, None)


def test_the_interval_holds_the_rows_and_the_spread_of_the_seeds():
    from reply_table import describe_difference

    before = [drawn(0.8, 0)] * 3
    after = [drawn(0.9, seed) for seed in (1, 2, 3)]
    wide = compare_seeds(before, after)
    rows_alone = compare_seeds(before[:2], [after[0]] * 2)  # both seeds differ alike
    assert wide.difference == pytest.approx(np.mean(wide.by_seed))
    assert None not in {wide.low, wide.high, rows_alone.low, rows_alone.high}
    assert wide.low < wide.difference < wide.high
    spread = 4.303 * np.std(wide.by_seed, ddof=1) / 3**0.5
    assert wide.difference - wide.low > spread
    assert rows_alone.difference - rows_alone.low == pytest.approx(1.96 * (0.9 * 0.1 + 0.8 * 0.2) ** 0.5 * 5, rel=0.15)
    line, reached = describe_difference("intent", wide, -1.0)
    assert reached
    assert line.startswith(f"intent | alone {wide.alone:.1f} | joint {wide.joint:.1f} | {wide.difference:+.2f} [")
    assert not describe_difference("intent", compare_seeds(after, before), -1.0)[1]


def test_one_seed_has_no_interval_and_reaches_nothing():
    from reply_table import describe_difference

    found = compare_seeds([drawn(0.5, 0)], [drawn(0.9, 1)])
    line, reached = describe_difference("slots", found, -1.0)
    assert "one seed, no interval (> -1, missed)" in line
    assert not reached


@pytest.mark.parametrize("most", [None, 64])
@pytest.mark.parametrize(
    ("what", "tasks"),
    [
        ("acts", ["reply"]),
        ("context", ["reply"]),
        ("intent", ["intent"]),
        ("slots", ["slots"]),
        ("joint", ["intent", "reply", "slots"]),
    ],
)
def test_each_training_has_a_sound_recipe(tmp_path, what, tasks, most):
    from reply_trainings import make_recipe

    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(make_recipe(what, most)))
    recipe = load_recipe(tmp_path / "recipe.yaml")
    assert sorted(recipe.tasks) == tasks
    assert [source.rows for task in recipe.tasks.values() for source in task.train] == [most] * len(tasks)
    if "reply" in tasks:
        reply = recipe.tasks["reply"]
        assert (reply.train[0].path, reply.acts, reply.test) == (str(tmp_path / "train.jsonl"), what != "context", None)


@pytest.mark.parametrize(
    ("arguments", "absent"), [(["--short"], "sgd_subset"), (["--full"], "sgd_subset, clinc150, snips")]
)
def test_absent_data_get_one_line(tmp_path, monkeypatch, arguments, absent):
    import generation

    monkeypatch.setattr(sys, "argv", ["generation.py", "--data", str(tmp_path), *arguments])
    with pytest.raises(SystemExit) as ended:
        generation.main()
    assert ended.value.code == f"no {absent} in {tmp_path}: --data names the folder of the public data sets"
