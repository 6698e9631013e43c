"""What is printed before an experiment: units, and the hours that they take at the rate of the latest hour."""

import asyncio
import json
import re

import pytest
from aiokafka.structs import ConsumerRecord
from kafka_topics import create_topics

from murmura.runtime.cli.experiments.expectation import print_expectation
from murmura.runtime.cli.experiments.inputs import check_units_per_hour
from murmura.runtime.cli.experiments.unit_rate import UnitCounts, UnitRate, measure_unit_rate
from murmura.runtime.errors import SetupError
from murmura.runtime.kafka.sending.producer import producer_factory
from murmura.runtime.settings.settings import KafkaSettings, ProducerSettings, Settings
from murmura.schemas.experiment import Measure, Rules


def result(number: int, **changes: object) -> ConsumerRecord:
    output = {"kind": "classification", "label": "a", "abstained": False, "score": 0.5, "reason": None}
    fields = {"request_id": f"r{number}", "prediction_id": f"{number:032x}", "outputs": {"intent": output}}
    value = json.dumps(fields | {"model": {"name": "desk", "version": 2}} | changes).encode()
    return ConsumerRecord("t", 0, number, 1, 0, f"customer-{number % 4}".encode(), value, None, 0, 0, ())


def test_units_are_hours_by_their_rate_and_a_line_says_why_where_it_is_not_known(capsys, monkeypatch):
    monkeypatch.setattr("murmura.runtime.cli.experiments.expectation.RUNS", 20)
    rules = Rules(goals=[Measure(measure="withheld")], tuning=1000, attribution_hours=3.0)
    print_expectation(rules, 0.5, 0.1, UnitRate(50.0, "as given"))
    lines = capsys.readouterr().out.splitlines()
    units, hours = re.fullmatch(r"([\d,]+) units, ([\d.]+) hours", lines[5].split("\t")[3]).groups()
    assert float(hours) == pytest.approx(int(units.replace(",", "")) / 50 + 3, rel=0.01)
    assert lines[6].startswith("hours are those of 50 units an hour with a value of withheld, as given")
    print_expectation(rules, 0.5, 0.1, UnitRate(1234.5, "as given"))
    assert "of 1,234 units an hour" in capsys.readouterr().out
    print_expectation(rules, 0.5, 0.1, UnitRate(None, "nothing came"))
    assert "how many hours these are is not known: nothing came; --units-per-hour says it\n" in capsys.readouterr().out
    with pytest.raises(SetupError, match="--units-per-hour: expected a number above 0, found 0"):
        check_units_per_hour(0.0)


def test_units_of_a_model_that_have_a_value_of_the_goal_are_counted():
    records = [result(number) for number in range(10)]
    records += [result(11, model={"name": "other", "version": 1}), result(13, outputs={})]
    cases = {
        ("key", "agreement"): 4,
        ("request", "agreement"): 11,
        ("request", "withheld"): 10,
        ("metadata.x", "errors"): 0,
    }
    for (unit, measure), expected in cases.items():
        counts = UnitCounts("desk", unit, Measure(measure=measure))
        counts.add(records)
        assert (counts.units, unit, measure) == (expected, unit, measure)


def test_how_many_units_come_is_not_known_where_nobody_is_asked_about_all_of_them():
    goals = [[Measure(measure="agreement")], [Measure(measure="agreement", task="intent")]]
    found = [measure_unit_rate(Settings(), "desk", "key", Rules(goals=goal)) for goal in goals]
    assert [each.per_hour for each in found] == [None, None]
    assert "reviews.random_share is 0" in found[0].why


def test_the_rate_is_that_of_the_results_of_the_latest_hour(kafka, unique):
    settings = Settings(kafka={"bootstrap_servers": kafka}, prefix=unique("p"), reviews={"random_share": 0.5})
    assert "desk answered nothing in the latest hour in p-" in measure_unit_rate(settings, "desk", "key", Rules()).why
    asyncio.run(answer_ten(settings.kafka, f"{settings.prefix}.classification.results"))
    found = measure_unit_rate(settings, "desk", "key", Rules())
    assert found == UnitRate(2.0, "by the results of the latest 60 minutes, 50 % of 4")


async def answer_ten(kafka: KafkaSettings, topic: str) -> None:
    await create_topics(kafka.bootstrap_servers, [topic], 2, {})
    producer = producer_factory(kafka, ProducerSettings())()
    await producer.start()
    for number in range(10):
        await producer.send_and_wait(topic, result(number).value, result(number).key)
    await producer.stop()
