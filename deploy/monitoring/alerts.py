"""The alert rules: critical ones page the person on call, warnings can wait until the next working day."""

from typing import Any, Literal, NamedTuple

from queries import Queries

NOW = Queries("5m")
TEN = Queries("10m")
QUARTER = Queries("15m")
HOUR = Queries("1h")
DAY = Queries("1d")

OURS = 'reason=~"agent_failed|model_failed|expired_retries|hop_limit|unreadable"'
"""Reasons of dead letters caused by the service; all others are caused by the sender."""
AGREED, JUDGED = 'verdict=~"confirmed|up"', 'verdict=~"confirmed|up|correction|down"'
DEAD, FAILED, REJECTED = 'outcome="dead_letter"', 'outcome="failed"', 'outcome="rejected"'
CURRENT = 'variant!="candidate"'
CANDIDATE = 'variant="candidate"'
LATE, STOPPED = 'outcome="late"', 'outcome="stopped"'


class Alert(NamedTuple):
    name: str
    severity: Literal["critical", "warning"]
    expr: str
    lasts: str
    summary: str
    """One sentence, which may contain labels and the value."""

    def rule(self) -> dict[str, Any]:
        return {
            "alert": self.name,
            "expr": self.expr,
            "for": self.lasts,
            "labels": {"severity": self.severity},
            "annotations": {"summary": self.summary, "runbook": "docs/operations.md#alerts"},
        }


def _lag(*by: str) -> str:
    return NOW.gauge("murmura_consumer_lag_records", "job", *by)


def _verdicts(window: Queries, only: str) -> str:
    """Count verdicts on all versions: a bad version is compared with earlier ones, not with itself."""
    return window.growth("murmura_feedback_total", "job", "task", only=only)


ALERTS = (
    Alert("MurmuraDown", "critical", 'up{job="murmura"} == 0', "1m", "{{ $labels.instance }} does not answer."),
    Alert("MurmuraGone", "critical", 'absent(up{job="murmura"} == 1)', "2m", "No process of Murmura answers."),
    Alert("MurmuraReadsNothing", "critical",
          f"{NOW.gauge('murmura_assigned_partitions', 'job')} == 0", "5m", "No process has a partition assigned."),
    Alert("MurmuraStuck", "critical",
          f"{NOW.gauge('murmura_waiting_records', 'job', 'instance')} > 0"
          f" unless {NOW.rate('murmura_records_total', 'job', 'instance')} > 0", "5m",
          "{{ $value }} records wait for {{ $labels.instance }}, which has finished none in five minutes."),
    Alert("MurmuraRecordWaits", "warning",
          f"{NOW.gauge('murmura_oldest_unfinished_seconds', 'job', 'topic', 'partition', how='max')} > 600", "1m",
          "A record of {{ $labels.topic }}/{{ $labels.partition }} has waited for {{ $value | humanizeDuration }}."),
    Alert("MurmuraRepliesLate", "warning",
          f"{TEN.growth('murmura_replies_total', 'job', only=LATE)} > 5"
          f" and {TEN.growth('murmura_replies_total', 'job', only=LATE)}"
          f" > 0.05 * {TEN.growth('murmura_replies_total', 'job')}", "1m",
          "{{ $value | humanize }} generated replies of the last ten minutes were not worded in time."),
    Alert("MurmuraNotFetching", "critical",
          f"{NOW.gauge('murmura_seconds_since_fetch', 'job', 'topic', how='max')} > 120", "0m",
          "{{ $labels.topic }} has not been fetched for {{ $value | humanizeDuration }}."),
    Alert("MurmuraNewLog", "warning",
          f"{TEN.growth('murmura_new_logs_total', 'job', 'topic')} > 0", "0m",
          "{{ $labels.topic }} has a new log; it is answered from its beginning."),
    Alert("MurmuraRecordsExpired", "critical",
          f"{TEN.growth('murmura_expired_records_total', 'job', 'topic')} > 0", "0m",
          "{{ $value }} records of {{ $labels.topic }} were deleted before they were read."),
    Alert("MurmuraLagGrows", "warning",
          f"{_lag('topic')} > 100 and deriv(({_lag('topic')})[10m:1m]) > 0", "10m",
          "{{ $labels.topic }} is {{ $value }} records behind, and the lag grows."),
    Alert("MurmuraSlow", "warning",
          f"{NOW.quantile(0.95, 'murmura_end_to_end_seconds', 'job', 'agent')} > 5", "15m",
          "One in twenty answers of {{ $labels.agent }} takes longer than {{ $value | humanizeDuration }}."),
    Alert("MurmuraRequestsExpire", "warning",
          f"{QUARTER.rate('murmura_expired_answers_total', 'job', 'agent')}"
          f" / {QUARTER.rate('murmura_records_total', 'job', 'agent')} > 0.05", "15m",
          "{{ $value | humanizePercentage }} of the requests to {{ $labels.agent }} are too old to be answered."),
    Alert("MurmuraNoHeadroom", "warning",
          f"{NOW.gauge('murmura_device_busy_ratio', 'job', how='avg')} > 0.95", "30m",
          "The model has been busy for {{ $value | humanizePercentage }} of the time."),
    Alert("MurmuraFails", "critical",
          f"{TEN.growth('murmura_dead_letters_total', 'job', 'agent', 'reason', only=OURS)} > 0", "0m",
          "Dead letters with the reason {{ $labels.reason }}{{ with $labels.agent }}, from agent {{ . }}{{ end }}."),
    Alert("MurmuraAgentSuspended", "critical",
          f"{NOW.gauge('murmura_suspended_agents', 'job', 'agent', how='max')} > 0", "30s",
          "Agent {{ $labels.agent }} answers nothing; its part of each record waits."),
    Alert("MurmuraRetriesOverdue", "warning",
          f"{NOW.gauge('murmura_retries_overdue_seconds', 'job', how='max')} > 600", "1m",
          "Retries have been due for {{ $value | humanizeDuration }}."),
    Alert("MurmuraDeviceFails", "critical",
          f"{NOW.gauge('murmura_breaker_open', 'job', 'instance', how='max')} > 0", "30s",
          "The device of {{ $labels.instance }} answers nothing; its records wait."),
    Alert("MurmuraBadRequests", "warning",
          f"{QUARTER.rate('murmura_records_total', 'job', 'topic', only=DEAD)}"
          f" / {QUARTER.rate('murmura_records_total', 'job', 'topic')} > 0.05", "15m",
          "{{ $value | humanizePercentage }} of {{ $labels.topic }} are dead letters."),
    Alert("MurmuraDeadLettersPile", "warning",
          f"delta(({NOW.gauge('murmura_dead_letter_topic_records', 'job', how='max')})[1d:5m]) > 1000", "15m",
          "{{ $value }} records were added to the dead-letter topic in a day."),
    Alert("MurmuraSendsRepeat", "warning",
          f"{NOW.rate('murmura_send_retries_total', 'job')} > 0", "5m", "Results must be sent more than once."),
    Alert("MurmuraCommitsFail", "warning",
          f"{NOW.growth('murmura_commits_total', 'job', only=FAILED)} > 0", "10m",
          "Offsets cannot be committed."),
    Alert("MurmuraReleaseRejected", "warning",
          f"{TEN.growth('murmura_model_swaps_total', 'job', 'instance', only=REJECTED)} > 0", "0m",
          "{{ $labels.instance }} refused a released version and serves the previous one."),
    Alert("MurmuraCandidateFailed", "warning",
          f"{TEN.growth('murmura_candidates_total', 'job', 'instance', only=FAILED)} > 0", "0m",
          "The candidate failed in {{ $labels.instance }}; the current version answers, and the experiment stops."),
    Alert("MurmuraExperimentStopped", "warning",
          f"{TEN.growth('murmura_candidates_total', 'job', only=STOPPED)} > 0", "0m",
          "An experiment was stopped; the current version answers everything."),
    Alert("MurmuraExperimentUnheld", "warning",
          f"{QUARTER.rate('murmura_version_records_total', 'job', 'name', only=CANDIDATE)} > 0 unless on (job)"
          f" {NOW.gauge('murmura_experiment_look_age_seconds', 'job', how='min')} < 1800", "30m",
          "A candidate of {{ $labels.name }} answers, and nobody looks at the experiment: nothing is decided."),
    Alert("MurmuraVersionsDiffer", "warning",
          f"count by (job, name) ({NOW.gauge('murmura_model_info', 'job', 'name', 'version', only=CURRENT)}) > 1", "15m",
          "Processes serve {{ $value }} versions of {{ $labels.name }}."),
    Alert("MurmuraLiveAccuracyFalls", "warning",
          f"{_verdicts(HOUR, AGREED)} / ({_verdicts(HOUR, JUDGED)} >= 20)"
          f" < 0.9 * {_verdicts(DAY, AGREED)} / {_verdicts(DAY, JUDGED)}", "30m",
          "In the last hour people agreed with {{ $labels.task }} in {{ $value | humanizePercentage }} only, less than"
          " in the last day."),
    Alert("MurmuraNewLabels", "warning",
          f"{DAY.growth('murmura_feedback_new_labels_total', 'job', 'task')} > 100", "0m",
          "{{ $value }} verdicts in a day name labels that {{ $labels.task }} does not have."),
    Alert("MurmuraStatesUnreadable", "warning",
          f"{TEN.growth('murmura_unreadable_states_total', 'job')} > 0", "0m",
          "{{ $value }} conversations restarted without their state."),
)  # fmt: skip


def rules() -> dict[str, Any]:
    """Return the rules file of Prometheus."""
    return {"groups": [{"name": "murmura", "rules": [alert.rule() for alert in ALERTS]}]}
