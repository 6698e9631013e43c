"""Metrics: their names are a contract; batches are counted right."""

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from murmura.runtime.observe.histogram import BatchHistogram
from murmura.runtime.observe.metrics import DeviceUse, Metric, Metrics
from murmura.runtime.observe.metrics_table import SHADOW_RECORDS
from murmura.runtime.observe.version_metrics import VersionLabels

# Dashboards and alert rules are written against this list: extend it, never change a row.
CONTRACT = {
    ("murmura_records_total", "counter", ("agent", "topic", "outcome")),
    ("murmura_dead_letters_total", "counter", ("agent", "reason")),
    ("murmura_expired_answers_total", "counter", ("agent", "limit")),
    ("murmura_dead_letter_topic_records", "gauge", ()),
    ("murmura_dead_letter_topic_age_seconds", "gauge", ()),
    ("murmura_end_to_end_seconds", "histogram", ("agent",)),
    ("murmura_queue_seconds", "histogram", ()),
    ("murmura_inference_seconds", "histogram", ()),
    ("murmura_batch_rows", "histogram", ()),
    ("murmura_batch_tokens", "histogram", ()),
    ("murmura_decoder_step_seconds", "histogram", ()),
    ("murmura_decoder_step_rows", "histogram", ()),
    ("murmura_reply_first_step_seconds", "histogram", ()),
    ("murmura_reply_pieces", "histogram", ()),
    ("murmura_replies_total", "counter", ("outcome",)),
    ("murmura_in_flight_records", "gauge", ()),
    ("murmura_consumer_lag_records", "gauge", ("topic", "partition")),
    ("murmura_waiting_records", "gauge", ("topic", "partition")),
    ("murmura_oldest_unfinished_seconds", "gauge", ("topic", "partition")),
    ("murmura_seconds_since_fetch", "gauge", ("topic", "partition")),
    ("murmura_failed_fetches_total", "counter", ("error",)),
    ("murmura_new_logs_total", "counter", ("topic",)),
    ("murmura_expired_records_total", "counter", ("topic",)),
    ("murmura_assigned_partitions", "gauge", ()),
    ("murmura_paused_partitions", "gauge", ()),
    ("murmura_breaker_open", "gauge", ()),
    ("murmura_suspended_agents", "gauge", ("agent",)),
    ("murmura_retries_in_memory", "gauge", ()),
    ("murmura_retries_behind_records", "gauge", ("topic", "partition")),
    ("murmura_retries_overdue_seconds", "gauge", ()),
    ("murmura_commits_total", "counter", ("outcome",)),
    ("murmura_send_retries_total", "counter", ()),
    ("murmura_truncated_total", "counter", ("topic",)),
    ("murmura_model_swaps_total", "counter", ("outcome",)),
    ("murmura_candidates_total", "counter", ("outcome",)),
    ("murmura_version_records_total", "counter", ("name", "version", "variant", "outcome")),
    ("murmura_version_answers_total", "counter", ("name", "version", "variant", "task", "outcome")),
    ("murmura_version_end_to_end_seconds", "histogram", ("name", "version", "variant")),
    ("murmura_version_pass_ratio", "histogram", ("name", "version", "variant")),
    ("murmura_experiment_units", "gauge", ("model", "side")),
    ("murmura_experiment_open_units", "gauge", ("model",)),
    ("murmura_experiment_look_age_seconds", "gauge", ("model",)),
    ("murmura_experiment_decision", "gauge", ("model", "action")),
    ("murmura_experiment_behind_records", "gauge", ()),
    ("murmura_reviews_total", "counter", ("agent", "task", "why")),
    ("murmura_dropped_messages_total", "counter", ("topic",)),
    ("murmura_shadow_records_total", "counter", ("model", "outcome")),
    ("murmura_device_busy_ratio", "gauge", ()),
    ("murmura_host_seconds_per_record", "gauge", ()),
    ("murmura_model_info", "gauge", ("name", "version", "device", "graph", "variant")),
}


DESK = VersionLabels("desk", "3", "current")


def used_metrics() -> Metrics:
    metrics = Metrics()
    metrics.batch(3, 40, [0.001, 0.002, 0.5], 0.004)
    metrics.step(2, 0.003, [0.02, 0.03])
    metrics.reply("end", 7)
    metrics.reply("late")
    metrics.answered("classification", "tickets", [0.01, 0.02])
    metrics.silent("router", "tickets")
    metrics.answered_expired("router", "tickets", "max_age", 2)
    metrics.dead_letter(None, "tickets", "not_json")
    metrics.commit(ok=True)
    metrics.send_retry(2)
    metrics.failed_fetch("TopicAuthorizationFailedError")
    metrics.new_log("tickets")
    metrics.expired("tickets", 3)
    by_partition = {("tickets", "2"): 1.5}
    metrics.watch(oldest_unfinished=lambda: by_partition, since_fetch=lambda: by_partition)
    metrics.watch(waiting=lambda: by_partition)
    metrics.watch(suspended=lambda: {("router",): 1.0}, retries_behind=lambda: {("murmura.retries", "0"): 2.0})
    metrics.truncated("tickets")
    metrics.swap("swapped")
    metrics.review("classification", "intent", "margin")
    metrics.dropped("murmura.reviews")
    metrics.add_counter(SHADOW_RECORDS).add(("desk", "agreed"), 3)
    metrics.model("desk", 3, "cpu", "ragged")
    metrics.versions.answered(DESK, [0.1, 0.2])
    metrics.versions.failed(DESK, 1)
    metrics.versions.classified(DESK, {("intent", "out_of_scope"): 2})
    metrics.versions.passed(DESK, 1.5, 3)
    metrics.versions.count_candidate("failed")
    metrics.experiments.show("desk", (40, 60), 7, 12.5, "wait")
    metrics.experiments.set_behind(3)
    metrics.watch(in_flight=lambda: 5, assigned=lambda: 4, paused=lambda: 1, lag=lambda: {("tickets", "2"): 17})
    return metrics


def scrape(metrics: Metrics):
    text = generate_latest(metrics.registry).decode()
    return {family.name: family for family in text_string_to_metric_families(text)}


def value(metrics: Metrics, metric: str, /, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(metric, labels)


def test_names_types_and_labels_are_the_contract():
    found = set()
    for family in scrape(used_metrics()).values():
        if family.name.startswith("murmura"):
            name = family.name + ("_total" if family.type == "counter" else "")
            labels = {label for sample in family.samples for label in sample.labels} - {"le"}
            found.add((name, family.type, frozenset(labels)))
    assert found == {(name, kind, frozenset(labels)) for name, kind, labels in CONTRACT}


def test_what_is_observed_is_what_is_scraped():
    metrics = used_metrics()
    assert value(metrics, "murmura_records_total", agent="classification", topic="tickets", outcome="answered") == 2
    assert value(metrics, "murmura_records_total", agent="router", topic="tickets", outcome="silent") == 1
    assert value(metrics, "murmura_records_total", agent="", topic="tickets", outcome="dead_letter") == 1
    assert value(metrics, "murmura_dead_letters_total", agent="", reason="not_json") == 1
    assert value(metrics, "murmura_end_to_end_seconds_count", agent="classification") == 2
    assert value(metrics, "murmura_queue_seconds_count") == 3
    assert value(metrics, "murmura_batch_rows_sum") == 3
    assert value(metrics, "murmura_batch_tokens_sum") == 40
    assert value(metrics, "murmura_decoder_step_rows_sum") == 2
    assert value(metrics, "murmura_reply_first_step_seconds_count") == 2
    assert (value(metrics, "murmura_reply_pieces_sum"), value(metrics, "murmura_reply_pieces_count")) == (7, 1)
    assert value(metrics, "murmura_replies_total", outcome="late") == 1
    assert value(metrics, "murmura_consumer_lag_records", topic="tickets", partition="2") == 17
    assert value(metrics, "murmura_in_flight_records") == 5
    assert value(metrics, "murmura_send_retries_total") == 2
    desk = {"name": "desk", "version": "3", "device": "cpu", "graph": "ragged", "variant": "current"}
    assert value(metrics, "murmura_model_info", **desk) == 1


def test_what_alerts_wait_for_begins_at_0():
    metrics = Metrics()
    metrics.expect_dead_letters({"classification"})
    assert value(metrics, "murmura_dead_letters_total", agent="classification", reason="agent_failed") == 0
    assert value(metrics, "murmura_dead_letters_total", agent="", reason="hop_limit") == 0
    assert value(metrics, "murmura_model_swaps_total", outcome="rejected") == 0
    assert value(metrics, "murmura_commits_total", outcome="failed") == 0


def test_what_was_counted_before_it_was_expected_is_kept():
    metrics = Metrics()
    metrics.dead_letter(None, "tickets", "not_json")
    metrics.expect_dead_letters(set())
    assert value(metrics, "murmura_dead_letters_total", agent="", reason="not_json") == 1


def test_an_agent_adds_metrics_of_its_own_and_gets_the_same_ones_when_it_asks_again():
    metrics = Metrics()
    asked, open_ = Metric("desk_asked_total", "counter", ("kind",), "Asked"), Metric("desk_open", "gauge", (), "Open")
    for _ in range(2):
        metrics.add_counter(asked).add(("phone",))
        metrics.add_gauge(open_).set_function(lambda: 3)
    assert (value(metrics, "desk_asked_total", kind="phone"), value(metrics, "desk_open")) == (2, 3)


def test_a_revoked_partition_has_no_lag_any_more():
    metrics = used_metrics()
    metrics.watch(lag=dict)
    assert value(metrics, "murmura_consumer_lag_records", topic="tickets", partition="2") is None


def test_figures_of_a_version_end_when_it_is_unloaded():
    metrics = used_metrics()
    labels = DESK._asdict()
    assert value(metrics, "murmura_version_records_total", **labels, outcome="answered") == 2
    assert value(metrics, "murmura_version_records_total", **labels, outcome="failed") == 1
    assert value(metrics, "murmura_version_end_to_end_seconds_count", **labels) == 2
    assert value(metrics, "murmura_version_answers_total", **labels, task="intent", outcome="out_of_scope") == 2
    assert value(metrics, "murmura_version_pass_ratio_count", **labels) == 3
    metrics.model("desk", 4, "cpu", "ragged")
    metrics.versions.answered(DESK, [0.1])  # of the last batches of the version that was replaced
    families = scrape(metrics).values()
    shown = {sample.labels["version"] for each in families for sample in each.samples if "version" in sample.labels}
    assert shown == {"4"}
    assert value(metrics, "murmura_version_records_total", **labels | {"version": "4"}, outcome="failed") == 0


def test_experiments_show_what_their_holder_knows_and_nothing_elsewhere():
    metrics = used_metrics()
    assert value(metrics, "murmura_experiment_units", model="desk", side="control") == 60
    assert value(metrics, "murmura_experiment_decision", model="desk", action="wait") == 1
    metrics.experiments.clear()
    assert value(metrics, "murmura_experiment_units", model="desk", side="control") is None


def test_only_one_version_is_current_and_one_a_candidate():
    metrics = used_metrics()
    metrics.model("desk", 4, "cuda", "ragged")
    metrics.candidate(("desk", "5", "cuda", "ragged"))
    found = [sample.labels for sample in scrape(metrics)["murmura_model_info"].samples]
    assert [(each["version"], each["variant"]) for each in found] == [("4", "current"), ("5", "candidate")]
    metrics.candidate(None)
    assert len(scrape(metrics)["murmura_model_info"].samples) == 1


def test_the_process_is_measured_too():
    assert "process_resident_memory_bytes" in scrape(Metrics())


def test_a_batch_histogram_equals_the_library_s_own():
    bounds = (0.001, 0.01, 0.1, 1.0)
    values = np.random.default_rng(0).lognormal(-4, 2, 500)
    values[:4] = bounds  # a bound belongs to its own bucket
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    batch = BatchHistogram("x", "same", ("agent",), bounds)
    ours.register(batch)
    batch.observe_many(values[:300], ("a",))
    for one in values[300:]:
        batch.observe(float(one), ("a",))
    histogram = Histogram("x", "same", ("agent",), registry=theirs, buckets=bounds)
    for one in values:
        histogram.labels("a").observe(one)
    for sample in next(iter(ours.collect())).samples:
        assert sample.value == pytest.approx(theirs.get_sample_value(sample.name, sample.labels)), sample


def test_clocks_that_disagree_count_as_zero_seconds():
    batch = BatchHistogram("x", "", (), (1.0,))
    batch.observe_many([-5.0, 0.5])
    assert batch.totals() == (2, 0.5)


class Clocks:
    def __init__(self) -> None:
        self.wall = self.cpu = 100.0

    def pass_(self, wall: float, cpu: float) -> None:
        self.wall += wall
        self.cpu += cpu


def use(clocks: Clocks) -> DeviceUse:
    return DeviceUse(clock=lambda: clocks.wall, cpu_clock=lambda: clocks.cpu)


def test_busy_ratio_is_the_share_of_the_slots_time():
    clocks = Clocks()
    device = use(clocks)
    device.configure(2, runs_on_host=False)
    clocks.pass_(10, 1)
    device.ran(5, 5.0)
    assert device.busy_ratio() == pytest.approx(0.25)


def test_busy_ratio_forgets_what_lies_before_the_window():
    clocks = Clocks()
    device = use(clocks)
    for _ in range(40):
        clocks.pass_(1, 0)
        device.ran(1, 1.0)
    assert device.busy_ratio() == pytest.approx(1.0)
    clocks.pass_(35, 0)
    assert device.busy_ratio() == 0.0


def test_host_seconds_leave_out_forward_passes_on_the_cpu():
    clocks = Clocks()
    device = use(clocks)
    clocks.pass_(10, 8)
    device.ran(1000, 7.0)
    assert device.host_seconds_per_record() == pytest.approx(0.001)
    device.configure(1, runs_on_host=False)
    assert device.host_seconds_per_record() == pytest.approx(0.008)


def test_a_reading_that_raises_is_left_out_and_the_others_are_there():
    metrics = Metrics()

    def broken():
        raise AssertionError("no consumer yet")

    metrics.watch(assigned=broken, lag=broken, paused=lambda: 3)
    assert value(metrics, "murmura_paused_partitions") == 3
    text = generate_latest(metrics.registry).decode()
    assert "murmura_paused_partitions 3.0" in text
    assert "murmura_assigned_partitions " not in text.replace("HELP murmura_assigned_partitions ", "").replace(
        "TYPE murmura_assigned_partitions ", ""
    )
