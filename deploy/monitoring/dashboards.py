"""The two dashboards: serving; and models, feedback and conversations."""

from collections.abc import Iterator
from itertools import count
from typing import NamedTuple

from grafana_foundation_sdk.builders import dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.builders.common import VizLegendOptions
from grafana_foundation_sdk.models.common import LegendDisplayMode, LegendPlacement
from grafana_foundation_sdk.models.dashboard import DashboardCursorSync, DataSourceRef, VariableRefresh, VariableSort
from queries import Queries

SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
# Grafana chooses a window of a few scrapes; counts over time have their own window.
NOW = Queries("$__rate_interval", 'instance=~"$instance"')
HOUR = Queries("1h", 'instance=~"$instance"')
DAY = Queries("1d", 'instance=~"$instance"')
VERSION = ("name", "version", "variant")
BY_VERSION = "{{name}}/{{version}} {{variant}}"


class Panel(NamedTuple):
    """One graph. `queries` maps a legend to its query; `stat` shows the latest value in large figures."""

    title: str
    says: str
    queries: dict[str, str]
    unit: str = "short"
    width: int = 8
    stat: bool = False
    highest: float | None = None


def _fast(name: str, *by: str) -> dict[str, str]:
    legend = " ".join(f"{{{{{label}}}}}" for label in by)
    return {f"{legend} {100 * q:g} %".strip(): NOW.quantile(q, name, *by) for q in (0.5, 0.95, 0.99)}


def _share_of_steps() -> str:
    steps, passes = (NOW.part_rate(f"murmura_{name}_seconds", "sum") for name in ("decoder_step", "inference"))
    return f"{steps} / ({steps} + {passes})"


def _share_of_answers(outcome: str) -> str:
    part = NOW.rate("murmura_version_answers_total", *VERSION, only=f'outcome="{outcome}"')
    return f"{part} / {NOW.rate('murmura_version_answers_total', *VERSION)}"


SERVING = {
    "Traffic and lag": [
        Panel("Answers per second", "Records with an acknowledged result.",
              {"{{agent}}": NOW.rate("murmura_records_total", "agent", only='outcome="answered"')}, "reqps"),
        Panel("Lag", "Unfinished records in the topics, of the partitions assigned to these processes.",
              {"{{topic}}": NOW.gauge("murmura_consumer_lag_records", "topic")}),
        Panel("Waiting", "Of the lag, what does not wait on purpose: for a suspended agent, or a handler's next attempt.",
              {"{{topic}}": NOW.gauge("murmura_waiting_records", "topic")}),
        Panel("Oldest unfinished record", "Since it was fetched. A partition commits nothing past it.",
              {"{{topic}}": NOW.gauge("murmura_oldest_unfinished_seconds", "topic", how="max")}, "s"),
        Panel("Since the last fetch", "High: the broker is unavailable, or reading the topic is forbidden.",
              {"{{topic}}": NOW.gauge("murmura_seconds_since_fetch", "topic", how="max")}, "s"),
        Panel("Logs and fetches", "In an hour: new logs, records deleted unread, failed fetches.",
              {"new log {{topic}}": HOUR.growth("murmura_new_logs_total", "topic"),
               "deleted {{topic}}": HOUR.growth("murmura_expired_records_total", "topic"),
               "{{error}}": HOUR.growth("murmura_failed_fetches_total", "error")}),
        Panel("Records by outcome", "Silent: the agent published no result.",
              {"{{outcome}}": NOW.rate("murmura_records_total", "outcome")}, "reqps"),
        Panel("Partitions of each process", "A process without any is on standby.",
              {"{{instance}}": NOW.gauge("murmura_assigned_partitions", "instance")}),
        Panel("Paused partitions", "Full queues: the model or the output is slower than the input.",
              {"{{instance}}": NOW.gauge("murmura_paused_partitions", "instance")}),
        Panel("In flight", "Fetched and not finished.",
              {"{{instance}}": NOW.gauge("murmura_in_flight_records", "instance")}),
    ],
    "Latency": [
        Panel("From request to result", "From the request's timestamp to the acknowledgement of its result, waiting in "
              "the topic included.", _fast("murmura_end_to_end_seconds", "agent"), "s"),
        Panel("Wait for the model", "From arrival in the process to the forward pass.",
              _fast("murmura_queue_seconds"), "s"),
        Panel("Forward pass", "Over a batch.", _fast("murmura_inference_seconds"), "s"),
    ],
    "Batching and device": [
        Panel("Device busy", "Near 1 the model is the limit.",
              {"{{instance}}": NOW.gauge("murmura_device_busy_ratio", "instance", how="avg")},
              "percentunit", highest=1),
        Panel("Device fails", "1: nothing is answered, records wait, the device is probed.",
              {"{{instance}}": NOW.gauge("murmura_breaker_open", "instance", how="max")}, highest=1),
        Panel("Suspended agents", "1: the agent cannot answer, its part of each record waits, it is probed.",
              {"{{agent}}": NOW.gauge("murmura_suspended_agents", "agent", how="max")}, highest=1),
        Panel("Retries", "Records that wait for another attempt: in memory, and in the topic by partition.",
              {"in memory": NOW.gauge("murmura_retries_in_memory"),
               "{{partition}}": NOW.gauge("murmura_retries_behind_records", "partition")}),
        Panel("Retries overdue", "Time since the first untried retry was due.",
              {"{{instance}}": NOW.gauge("murmura_retries_overdue_seconds", "instance", how="max")}, "s"),
        Panel("Expired answers in an hour", "Requests that were too old; nothing was computed for them.",
              {"{{agent}} {{limit}}": HOUR.growth("murmura_expired_answers_total", "agent", "limit")}),
        Panel("Texts in a batch", "The mean.", {"texts": NOW.mean("murmura_batch_rows")}),
        Panel("Truncated texts in an hour", "Only their beginning was read; windows read more.",
              {"{{topic}}": HOUR.growth("murmura_truncated_total", "topic")}),
        Panel("Tokens in a batch", "The mean.", {"tokens": NOW.mean("murmura_batch_tokens")}),
        Panel("Decoder steps", "Each adds a piece to all replies that are worded.",
              {"steps": NOW.part_rate("murmura_decoder_step_seconds", "count")}, "ops"),
        Panel("Replies in a step", "The mean.", {"replies": NOW.mean("murmura_decoder_step_rows")}),
        Panel("Device time in steps", "The share of steps in the time of passes and steps.",
              {"share": _share_of_steps()}, "percentunit", highest=1),
        Panel("First step of a reply", "From the queueing of its text to the end of its first step.",
              _fast("murmura_reply_first_step_seconds"), "s"),
        Panel("Pieces of a reply", "The mean.", {"pieces": NOW.mean("murmura_reply_pieces")}),
        Panel("Replies of decoders", "late: past the deadline; length: cut at the maximum number of pieces.",
              {"{{outcome}}": NOW.rate("murmura_replies_total", "outcome")}, "reqps"),
        Panel("CPU per text without the model", "Meaningful under load only.",
              {"{{instance}}": NOW.gauge("murmura_host_seconds_per_record", "instance", how="avg")}, "s"),
        Panel("CPU", "Cores in use.", {"{{instance}}": NOW.rate("process_cpu_seconds_total", "instance")}),
        Panel("Memory", "Resident.",
              {"{{instance}}": NOW.gauge("process_resident_memory_bytes", "instance")}, "bytes"),
    ],
    "Dead letters and the broker": [
        Panel("Dead letters in an hour", "By reason; docs/wire.md says what each means.",
              {"{{reason}}": HOUR.growth("murmura_dead_letters_total", "reason")}, width=12),
        Panel("In the dead-letter topic", "Dead letters and the markers of those sent again.",
              {"records": NOW.gauge("murmura_dead_letter_topic_records", how="max")}, width=6),
        Panel("Oldest dead letter", "The topic deletes them after its retention.",
              {"age": NOW.gauge("murmura_dead_letter_topic_age_seconds", how="max")}, "s", width=6),
        Panel("Repeated sends", "The broker did not accept a result at the first attempt.",
              {"{{instance}}": NOW.rate("murmura_send_retries_total", "instance")}, "reqps", width=6),
        Panel("Commits", "Failed commits are retried; until then records may be delivered twice.",
              {"{{outcome}}": NOW.rate("murmura_commits_total", "outcome")}, "reqps", width=6),
    ],
}  # fmt: skip

LEARNING = {
    "Models and versions": [
        Panel("Processes by version", "Several versions for a long time: a process did not swap.",
              {"{{name}}/{{version}} {{variant}} on {{device}}, {{graph}}":
               NOW.gauge("murmura_model_info", "name", "version", "device", "graph", "variant")}, width=16),
        Panel("Releases handled in a day", "Rejected: the previous version keeps serving; see murmura.events.",
              {"{{outcome}}": DAY.growth("murmura_model_swaps_total", "outcome")}, stat=True),
        Panel("Records for a version that is only compared", "Dropped: the device was busy. Too long: for a pass.",
              {"{{model}} {{outcome}}": NOW.rate("murmura_shadow_records_total", "model", "outcome")}, "reqps", width=24),
    ],
    "Experiment": [
        Panel("Results per second, by version", "The candidate's share of them is that of its units' requests.",
              {BY_VERSION: NOW.rate("murmura_version_records_total", *VERSION, only='outcome="answered"')}, "reqps"),
        Panel("Failed records per second", "The current version answers those that a candidate fails on.",
              {BY_VERSION: NOW.rate("murmura_version_records_total", *VERSION, only='outcome="failed"')}, "reqps"),
        Panel("From request to result, 95 %", "Shown, not judged: a small queue is held on purpose.",
              {BY_VERSION: NOW.quantile(0.95, "murmura_version_end_to_end_seconds", *VERSION)}, "s"),
        Panel("Withheld below the threshold", "The share of the classifications.",
              {BY_VERSION: _share_of_answers("below_threshold")}, "percentunit", highest=1),
        Panel("Out of scope", "The share of the classifications.",
              {BY_VERSION: _share_of_answers("out_of_scope")}, "percentunit", highest=1),
        Panel("Slowness of passes, 95 %", "Device time of a pass divided by its calibrated time; the experiment stops where the "
              "candidate's is twice the other's.",
              {BY_VERSION: NOW.quantile(0.95, "murmura_version_pass_ratio", *VERSION)}),
        Panel("Candidates in a day", "And ends of their experiments, in each process; murmura.events says why.",
              {"{{outcome}}": DAY.growth("murmura_candidates_total", "outcome")}, stat=True),
        Panel("Random reviews in an hour", "Only verdicts on these promote or stop by agreement.",
              {"{{task}}": HOUR.growth("murmura_reviews_total", "task", only='why="random"')}, width=16),
        Panel("Units of the running experiment", "Each counts once, when its time is over; until then it is open.",
              {"{{model}} {{side}}": NOW.gauge("murmura_experiment_units", "model", "side"),
               "{{model}} open": NOW.gauge("murmura_experiment_open_units", "model")}),
        Panel("What the rules say", "1 for what is to be done; experiments.act says whether it is.",
              {"{{model}} {{action}}": NOW.gauge("murmura_experiment_decision", "model", "action", how="max")}),
        Panel("How far the holder is behind", "It grows while a log is not read.",
              {"{{model}} looked at, s": NOW.gauge("murmura_experiment_look_age_seconds", "model", how="max"),
               "records": NOW.gauge("murmura_experiment_behind_records")}),
    ],
    "Feedback and live accuracy": [
        Panel("Live accuracy", "Share of agreeing verdicts among the last ones. People mostly correct wrong answers, so it "
              "is biased low: watch its changes.",
              {"{{task}} version {{version}}": NOW.gauge("murmura_live_accuracy", "task", "version", how="avg")},
              "percentunit", highest=1),
        Panel("Verdicts in an hour", "",
              {"{{task}} {{verdict}}": HOUR.growth("murmura_feedback_total", "task", "verdict")}),
        Panel("Verdicts in a day, by version", "",
              {"{{agent}} {{version}}": DAY.growth("murmura_feedback_total", "agent", "version")}),
        Panel("Labels unknown to the model, in a day", "Many: retrain.",
              {"{{task}}": DAY.growth("murmura_feedback_new_labels_total", "task")}, width=12),
        Panel("Review requests in an hour", "",
              {"{{task}} {{why}}": HOUR.growth("murmura_reviews_total", "task", "why"),
               "refused by {{topic}}": HOUR.growth("murmura_dropped_messages_total", "topic")}, width=12),
    ],
    "Conversations": [
        Panel("Turns per second", "By the kind of reply.", {"{{kind}}": NOW.rate("murmura_turns_total", "kind")}, "reqps"),
        Panel("Wordings per second", "By where a reply's words come from, and why they are not the model's.",
              {"{{wording}} {{reason}}": NOW.rate("murmura_reply_wordings_total", "wording", "reason"),
               "failed: {{part}}": NOW.rate("murmura_failed_parts_total", "part")}, "reqps"),
        Panel("Conversations held", "", {"{{instance}}": NOW.gauge("murmura_conversations", "instance")}),
        Panel("Unreadable states in a day", "Their conversations restarted without state.",
              {"{{instance}}": DAY.growth("murmura_unreadable_states_total", "instance")}, stat=True),
    ],
}  # fmt: skip

DASHBOARDS = {
    "serving": ("Murmura: serving", SERVING),
    "learning": ("Murmura: models, feedback, conversations", LEARNING),
}


def build(name: str) -> dashboard.Dashboard:
    """Return a dashboard's builder: rows of panels, for all processes or one."""
    title, rows = DASHBOARDS[name]
    board = (
        dashboard.Dashboard(title)
        .uid(f"murmura-{name}")
        .tags(["murmura"])
        .readonly()
        .time("now-1h", "now")
        .refresh("10s")
        .timezone("browser")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .with_variable(dashboard.DatasourceVariable("datasource").label("Source").type("prometheus"))
        .with_variable(_instances())
    )
    number = count(1)
    for row, panels in rows.items():
        board = board.with_row(dashboard.Row(row).id(next(number)))
        for panel in panels:
            board = board.with_panel(_build_panel(panel).id(next(number)))
    return board


def _instances() -> dashboard.QueryVariable:
    return (
        dashboard.QueryVariable("instance")
        .label("Process")
        .datasource(SOURCE)
        .query("label_values(murmura_in_flight_records, instance)")
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".*")
    )


def _build_panel(panel: Panel) -> "stat.Panel | timeseries.Panel":
    made = stat.Panel() if panel.stat else timeseries.Panel()
    made = made.title(panel.title).datasource(SOURCE).unit(panel.unit).span(panel.width).height(8).min(0)
    if panel.says:
        made = made.description(panel.says)
    if panel.highest is not None:
        made = made.max(panel.highest)
    if isinstance(made, timeseries.Panel):
        bottom = VizLegendOptions().display_mode(LegendDisplayMode.LIST).placement(LegendPlacement.BOTTOM)
        made = made.legend(bottom.show_legend(True)).fill_opacity(8)
    for letter, (legend, query) in zip("ABCDEF", panel.queries.items(), strict=False):
        made = made.with_target(prometheus.Dataquery().expr(query).legend_format(legend).ref_id(letter))
    return made


def queries() -> Iterator[tuple[str, str]]:
    """Yield (panel's title, query) of every panel."""
    for _, rows in DASHBOARDS.values():
        for panels in rows.values():
            for panel in panels:
                for query in panel.queries.values():
                    yield panel.title, query
