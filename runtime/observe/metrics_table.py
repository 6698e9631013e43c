"""The metrics contract: names, types, labels and help. Dashboards, alert rules and documents are tested against it.

An agent that has metrics of its own has a table of them beside it.
"""

from typing import Final, Literal, NamedTuple


class Metric(NamedTuple):
    name: str
    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    help: str


SHADOW_RECORDS: Final = Metric(
    "murmura_shadow_records_total", "counter", ("model", "outcome"),
    "Records for a version that is only compared: agreed, differed, dropped (the device was busy), too_long (for a pass), failed",
)  # fmt: skip

METRICS: Final = (
    Metric("murmura_records_total", "counter", ("agent", "topic", "outcome"),
           "Records finished: answered, silent (the agent chose to say nothing), expired, dead_letter"),
    Metric("murmura_expired_answers_total", "counter", ("agent", "limit"),
           "Requests that were too old to be answered: past the agent's max_age, or past the sender's deadline"),
    Metric("murmura_dead_letters_total", "counter", ("agent", "reason"), "Dead letters; no agent: not even decoded"),
    Metric("murmura_truncated_total", "counter", ("topic",), "Texts longer than what was read of them"),
    Metric("murmura_dead_letter_topic_records", "gauge", (),
           "Log end less log start of the dead-letter topic, over all partitions; markers count"),
    Metric("murmura_dead_letter_topic_age_seconds", "gauge", (), "Age of the oldest record of the dead-letter topic"),
    Metric("murmura_end_to_end_seconds", "histogram", ("agent",),
           "From the request's timestamp to the acknowledgement of its result"),
    Metric("murmura_queue_seconds", "histogram", (), "A record's wait between its arrival and its forward pass"),
    Metric("murmura_inference_seconds", "histogram", (), "One forward pass over a batch"),
    Metric("murmura_batch_rows", "histogram", (), "Texts in a batch"),
    Metric("murmura_batch_tokens", "histogram", (), "Tokens in a batch"),
    Metric("murmura_decoder_step_seconds", "histogram", (), "One step of a decoder: a piece for each of its replies"),
    Metric("murmura_decoder_step_rows", "histogram", (), "Replies in a step"),
    Metric("murmura_reply_first_step_seconds", "histogram", (),
           "From the queueing of what a reply is worded from to the end of its first step"),
    Metric("murmura_reply_pieces", "histogram", (), "Pieces of a reply"),
    Metric("murmura_replies_total", "counter", ("outcome",),
           "Replies of decoders: end, length (cut at the maximum number of pieces), failed, late (past its deadline)"),
    Metric("murmura_in_flight_records", "gauge", (), "Records fetched and not yet finished"),
    Metric("murmura_consumer_lag_records", "gauge", ("topic", "partition"),
           "Log end less what is finished, for the partitions of this process"),
    Metric("murmura_waiting_records", "gauge", ("topic", "partition"),
           "Records that are not finished, without those that wait on purpose: for suspended agents, or a handler's next attempt"),
    Metric("murmura_oldest_unfinished_seconds", "gauge", ("topic", "partition"),
           "Since the oldest record that is not finished was fetched"),
    Metric("murmura_seconds_since_fetch", "gauge", ("topic", "partition"),
           "Since the last successful fetch, with or without records"),
    Metric("murmura_failed_fetches_total", "counter", ("error",), "Fetches that raised, by the client's error"),
    Metric("murmura_new_logs_total", "counter", ("topic",),
           "Partitions whose log began anew: the topic was made again, or the log was cut"),
    Metric("murmura_expired_records_total", "counter", ("topic",),
           "Offsets that the broker deleted before they were read"),
    Metric("murmura_assigned_partitions", "gauge", (), "Partitions that the group gave to this process"),
    Metric("murmura_paused_partitions", "gauge", (), "Partitions whose fetching waits for room"),
    Metric("murmura_breaker_open", "gauge", (), "1 while the device fails and records wait for it"),
    Metric("murmura_suspended_agents", "gauge", ("agent",), "1 while an agent cannot answer and its records wait"),
    Metric("murmura_retries_in_memory", "gauge", (), "Records that wait in the process for another attempt"),
    Metric("murmura_retries_behind_records", "gauge", ("topic", "partition"),
           "Records of the topic of retries that are not finished, for the partitions of this process; other apps' count"),
    Metric("murmura_retries_overdue_seconds", "gauge", (), "For how long the first record of the topic of retries has been due"),
    Metric("murmura_commits_total", "counter", ("outcome",), "Offset commits: ok, failed"),
    Metric("murmura_send_retries_total", "counter", (), "Results and dead letters that had to be sent again"),
    Metric("murmura_device_busy_ratio", "gauge", (),
           "Seconds of passes and decoder steps in the last 30 s, against what the run slots had"),
    Metric("murmura_host_seconds_per_record", "gauge", (),
           "CPU seconds of the process outside passes and steps, for each text answered in the last 30 s"),
    Metric("murmura_model_swaps_total", "counter", ("outcome",),
           "Releases considered: swapped, rejected, stale (a generation that does not increase)"),
    Metric("murmura_candidates_total", "counter", ("outcome",),
           "Candidates beside a serving version: loaded, rejected, failed; and ends of their experiments: stopped, completed"),
    Metric("murmura_version_records_total", "counter", ("name", "version", "variant", "outcome"),
           "What a loaded version did: answered (results of agents), failed (records)"),
    Metric("murmura_version_answers_total", "counter", ("name", "version", "variant", "task", "outcome"),
           "Classifications of a loaded version: labelled, below_threshold, out_of_scope"),
    Metric("murmura_version_end_to_end_seconds", "histogram", ("name", "version", "variant"),
           "From the request's timestamp to the acknowledgement of a result of a loaded version"),
    Metric("murmura_version_pass_ratio", "histogram", ("name", "version", "variant"),
           "Device time of the pass of each text, divided by the time calibrated for a pass of its size, each at least 1 ms"),
    Metric("murmura_experiment_units", "gauge", ("model", "side"),
           "Units that have entered the running experiment, in the process that holds it"),
    Metric("murmura_experiment_open_units", "gauge", ("model",), "Units whose time is not over yet"),
    Metric("murmura_experiment_look_age_seconds", "gauge", ("model",),
           "Since the minute of the records up to which the experiment was looked at"),
    Metric("murmura_experiment_decision", "gauge", ("model", "action"),
           "1 for what is to be done: wait, promote, complete, stop"),
    Metric("murmura_experiment_behind_records", "gauge", (),
           "Records that experiments count and their holder has not read yet"),
    Metric("murmura_reviews_total", "counter", ("agent", "task", "why"), "Predictions that people were asked about"),
    Metric("murmura_dropped_messages_total", "counter", ("topic",),
           "Messages sent as best effort (requests for review, what a compared version found) that were dropped"),
    SHADOW_RECORDS,
    Metric("murmura_model_info", "gauge", ("name", "version", "device", "graph", "variant"),
           "1 for each version that answers: the current one, and a candidate beside it"),
)  # fmt: skip
