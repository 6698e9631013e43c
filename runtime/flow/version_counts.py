"""Counts what a batch says of the version that answered it."""

from collections import Counter
from collections.abc import Iterable, Sequence

from ..batching.queues.entry import Entry
from ..errors import Closed
from ..observe.version_metrics import VersionLabels, VersionMetrics
from ..output.delivery import Delivery

LABELLED = "labelled"


def find_version(entry: Entry) -> VersionLabels:
    """Return the version that answered an entry, or failed on it."""
    delivery: Delivery = entry.context
    manifest = entry.model.manifest
    return VersionLabels(manifest.name, str(manifest.version), delivery.asked[0][0].variant)


def count_batch(metrics: VersionMetrics, version: VersionLabels, entries: Sequence[Entry]) -> None:
    """Count the answers of a batch of one version, and the records that it failed on."""
    outcomes: Counter[tuple[str, str]] = Counter()
    failed = 0
    for entry in entries:
        if entry.outputs is None:
            failed += entry.error is not None and not isinstance(entry.error, Closed)
            continue
        for task, output in entry.outputs.items():
            if "abstained" in output:
                outcomes[task, output.get("reason") or LABELLED] += 1
    metrics.classified(version, outcomes)
    if failed:
        metrics.failed(version, failed)
    if entries and (ratio := entries[0].pass_ratio) is not None:
        metrics.passed(version, ratio, len(entries))


def count_failed(metrics: VersionMetrics, entries: Iterable[Entry]) -> None:
    """Count the records that a candidate failed on, which another version answers."""
    for entry in entries:
        if entry.error is not None:
            metrics.failed(find_version(entry), 1)
