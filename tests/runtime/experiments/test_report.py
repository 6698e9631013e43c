"""What the kept sums of an experiment say, in rows and as Markdown."""

import math
from dataclasses import astuple
from datetime import UTC, datetime

import pytest

from murmura.runtime.cli.experiments.markdown import write_report
from murmura.runtime.experiments.report import report_experiment
from murmura.runtime.experiments.sums import sum_units
from murmura.schemas.experiment import Experiment, Measure, Rules
from murmura.schemas.experiment_state import Decided, Ended, ExperimentState

NOON = datetime(2025, 1, 31, 12, tzinfo=UTC)
MINUTE = int(NOON.timestamp()) // 60
RULES = Rules(
    goals=[Measure(measure="agreement"), Measure(measure="ratio", name="orders", better="higher")],
    guardrails=[Measure(measure="agreement"), Measure(measure="withheld", margin=-0.05)],
)


def sums(right: int, wrong: int) -> list[float]:
    return [float(value) for value in astuple(sum_units([(1.0, 1.0)] * right + [(0.0, 1.0)] * wrong))]


def state(units: tuple[int, int] = (2000, 2000), **fields: object) -> ExperimentState:
    """Of 2,000 units a side the candidate is right in 90 %, the current version in 80 %."""
    control, candidate = units
    return ExperimentState.model_validate(
        {
            "experiment": Experiment(id="desk-3", share=0.5, started=NOON, rules=RULES),
            "model": "desk",
            "current": 2,
            "candidate": 3,
            "minute": MINUTE + 90,
            "units": {"control": control, "candidate": candidate},
            "expected": (control + candidate) / 2,
            "variance": (control + candidate) / 4,
            "sums": {
                "agreement": {"control": sums(1600, 400), "candidate": sums(1800, 200)},
                "withheld": {"control": sums(100, 1900), "candidate": sums(400, 1600)},
                "withheld/intent": {"control": sums(100, 1900), "candidate": sums(400, 1600)},
                "other_agreement": {"control": sums(5, 5), "candidate": sums(5, 6)},
            },
            "skipped": {"unexposed": 7},
            "answers": {"control": 2100, "candidate": 2000, "fallback": 3},
            **fields,
        }
    )


def test_each_measure_has_a_row_for_what_it_decides():
    report = report_experiment(state())
    rows = {(row.key, row.role): row for row in report.rows}
    assert {key: row.verdict for key, row in rows.items()} == {
        ("agreement", "goal"): "reached",
        ("ratio/orders", "goal"): "no interval yet",
        ("agreement", "guardrail"): "open",
        ("withheld", "guardrail"): "broken",
        ("other_agreement", "shown"): "",
    }
    agreement = rows["agreement", "goal"]
    assert (agreement.control, agreement.candidate, agreement.units) == (0.8, 0.9, (2000, 2000))
    assert agreement.difference == pytest.approx(0.1)
    assert 0.0 < agreement.low < 0.1 < agreement.high
    withheld = rows["withheld", "guardrail"]
    assert (withheld.margin, withheld.difference) == (-0.05, pytest.approx(0.15))
    assert math.isnan(rows["ratio/orders", "goal"].low)
    assert [row.key for row in report.by_task] == ["withheld/intent"]
    assert (report.hours, report.action) == (1.5, "stop")
    assert report.why.startswith("withheld is worse by 0.150")


def test_uneven_sides_conclude_nothing():
    report = report_experiment(state((2000, 1500)))
    assert report.is_uneven
    assert report.action == "wait"
    assert ", nothing is concluded |" in write_report(report)


def test_the_report_is_markdown_of_tables_of_as_many_cells_in_each_line():
    text = write_report(
        report_experiment(
            state(
                pass_ratios={"latest": [2.5, 1.0]},
                decided=[Decided(action="stop", why="a | b\nc", at=NOON)],
                ended=Ended(by="stopped", generation=4, at=NOON),
                sampled=0.5,
            )
        )
    )
    assert text.startswith("# Experiment desk-3\n\nModel desk: version 3 beside version 2.\n")
    assert "| agreement | goal | 0.8000 | 0.9000 | +0.1000 | [+0." in text
    assert "| ratio/orders | goal | - | - | - | - | 0 | no interval yet | 0 / 0 |" in text
    assert "| units | 2,000 current, 2,000 candidate, 0 open, 0 moved |" in text
    assert "| passes | p95 of time / calibrated: 1.00 current, 2.50 candidate |" in text
    assert "| 2025-01-31 12:00Z | stop | a \\| b c |" in text
    assert "| ended | stopped, 2025-01-31 12:00:00Z |" in text
    assert "| current in place of the candidate | 3 |" in text
    assert "| unexposed | 7 |" in text
    for block in text.split("\n\n"):
        if block.startswith("|"):
            assert len({line.replace("\\|", "").count("|") for line in block.splitlines()}) == 1


def test_scores_and_latency_stand_by_side_in_the_report():
    text = write_report(
        report_experiment(
            state(
                scores={"intent": {"control": {"10": 50, "19": 50}, "candidate": {"19": 10}}},
                latency={"control": {"0": 10}, "candidate": {"40": 98, "41": 2}},
            )
        )
    )
    assert f"| intent | current | 100 | 0.51 | 0.55 | 0.99 | {'▁' * 10}█{'▁' * 8}█ |" in text
    assert f"| intent | candidate | 10 | 0.96 | 0.97 | 0.99 | {'▁' * 19}█ |" in text
    assert "| current | 10 | 1 ms | 1 ms | 1 ms |" in text
    assert "| candidate | 100 | 1,119 ms | 1,211 ms | 1,328 ms |" in text


def test_an_experiment_without_a_record_yet_is_a_report_too():
    text = write_report(report_experiment(state(units=(0, 0), sums={}, skipped={}, answers={})))
    assert "wait: agreement: no interval before 20 units" in text
