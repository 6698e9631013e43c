"""The curves of a run in its folder."""

import math
from pathlib import Path

from murmura.training.run_folders.curves import CURVES, Curves, read_curves


def test_a_run_that_goes_on_drops_the_entries_of_steps_that_it_takes_again(tmp_path: Path) -> None:
    curves = Curves(tmp_path)
    curves.begin(0)
    for step in (20, 40, 60):
        curves.add(step, {"loss/intent": 1 / step})
    again = Curves(tmp_path)
    again.begin(40)
    again.add(60, {"loss/intent": 0.5})
    found = read_curves(tmp_path)
    assert [entry["step"] for entry in found] == [20, 40, 60]
    assert found[-1]["loss/intent"] == 0.5
    assert found[-1]["seconds"] >= found[0]["seconds"]


def test_a_torn_line_and_figures_that_are_no_numbers_harm_no_other_entry(tmp_path: Path) -> None:
    curves = Curves(tmp_path)
    curves.begin(0)
    curves.add(20, {"loss/intent": math.nan, "gradient/all": 2.0})
    with (tmp_path / CURVES).open("a") as file:
        file.write('{"step": 40, "loss/in')
    (entry,) = read_curves(tmp_path)
    assert set(entry) == {"step", "seconds", "gradient/all"}


def test_a_run_without_curves_has_none(tmp_path: Path) -> None:
    assert read_curves(tmp_path) == []
