"""The metrics of the shipped agents: names, types and labels are a contract, too."""

from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from murmura.agents.dialogue.metrics import METRICS as OF_DIALOGUE
from murmura.agents.dialogue.metrics import DialogueMetrics
from murmura.agents.feedback.metrics import METRICS as OF_FEEDBACK
from murmura.agents.feedback.metrics import FeedbackMetrics
from murmura.runtime.observe.metrics import Metrics

# Dashboards and alert rules are written against this list: extend it, never change a row.
CONTRACT = {
    ("murmura_feedback_total", "counter", ("agent", "task", "version", "verdict")),
    ("murmura_feedback_new_labels_total", "counter", ("task",)),
    ("murmura_live_accuracy", "gauge", ("task", "version")),
    ("murmura_turns_total", "counter", ("agent", "kind")),
    ("murmura_reply_wordings_total", "counter", ("agent", "wording", "reason")),
    ("murmura_failed_parts_total", "counter", ("agent", "part")),
    ("murmura_conversations", "gauge", ()),
    ("murmura_unreadable_states_total", "counter", ()),
}


def scrape(metrics: Metrics):
    text = generate_latest(metrics.registry).decode()
    return {family.name: family for family in text_string_to_metric_families(text)}


def test_names_types_and_labels_are_the_contract():
    assert {metric[:3] for metric in (*OF_DIALOGUE, *OF_FEEDBACK)} == CONTRACT
    metrics = Metrics()
    feedback, dialogue = FeedbackMetrics(metrics), DialogueMetrics(metrics, lambda: 7)
    feedback.count_verdict("classification", "intent", "3", "correction")
    feedback.count_new_labels("intent", 2)
    feedback.set_live_accuracy("intent", "3", 0.9)
    dialogue.count_turn("dialogue", "asked")
    dialogue.count_wording("dialogue", "generated", None)
    dialogue.count_failed_part("dialogue", "knowledge")
    dialogue.count_unreadable(4)
    found = {sample.name: (sample.labels, sample.value) for each in scrape(metrics).values() for sample in each.samples}
    verdict = {"agent": "classification", "task": "intent", "version": "3", "verdict": "correction"}
    assert {name: found[name] for name, _, _ in CONTRACT} == {
        "murmura_feedback_total": (verdict, 1),
        "murmura_feedback_new_labels_total": ({"task": "intent"}, 2),
        "murmura_live_accuracy": ({"task": "intent", "version": "3"}, 0.9),
        "murmura_turns_total": ({"agent": "dialogue", "kind": "asked"}, 1),
        "murmura_reply_wordings_total": ({"agent": "dialogue", "wording": "generated", "reason": "none"}, 1),
        "murmura_failed_parts_total": ({"agent": "dialogue", "part": "knowledge"}, 1),
        "murmura_conversations": ({}, 7),
        "murmura_unreadable_states_total": ({}, 4),
    }


def test_live_accuracy_is_kept_of_the_versions_that_were_judged_last():
    metrics = Metrics()
    feedback = FeedbackMetrics(metrics)
    for version in (1, 2, 3, 4, 5, 6, 3, 7):
        feedback.set_live_accuracy("intent", str(version), version / 10)
    feedback.set_live_accuracy("mood", "1", 0.5)
    shown = {sample.labels["version"]: sample.value for sample in scrape(metrics)["murmura_live_accuracy"].samples
             if sample.labels["task"] == "intent"}  # fmt: skip
    assert shown == {"5": 0.5, "6": 0.6, "3": 0.3, "7": 0.7}
    assert metrics.registry.get_sample_value("murmura_live_accuracy", {"task": "mood", "version": "1"}) == 0.5
