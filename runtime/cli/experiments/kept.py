"""Reads what is kept of experiments in `murmura.experiments`, from its beginning to its end, without a group."""

from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ....schemas.experiment_state import ExperimentState
    from ...settings.settings import Settings


def read_kept(settings: "Settings") -> "dict[str, ExperimentState]":
    """Return the state of each experiment by its id, the one that was looked at last at the end.

    A state that cannot be read is passed over with a line. SetupError where the topic cannot be read in time.
    """
    from ..until_signalled import run_cancellable

    topic = f"{settings.prefix}.experiments"
    found = run_cancellable(lambda stop: _read_states(settings, topic))
    return dict(sorted(found.items(), key=lambda pair: pair[1].minute))


async def _read_states(settings: "Settings", topic: str) -> "dict[str, ExperimentState]":
    from ...kafka.groupless_reader import PartitionsReader, open_reader
    from ...release.states import within

    found: dict[str, ExperimentState] = {}
    deadline = within(settings.kafka.start_timeout_s, topic)
    async with deadline, open_reader(settings.kafka, [topic], from_beginning=True) as consumer:
        ends = await consumer.end_offsets(consumer.assignment())
        reader = PartitionsReader(consumer, lambda records: _take(records, found))
        while any([await consumer.position(partition) < end for partition, end in ends.items()]):
            await reader.read_more(200)
    return found


def _take(records: "Sequence[Any]", found: "dict[str, ExperimentState]") -> None:
    """Apply records of states; those of entered units are passed over."""
    from pydantic import ValidationError

    from ....schemas.experiment_state import ExperimentState
    from ...experiments.kept_state import split_key

    for record in records:
        try:
            experiment, chunk = split_key((record.key or b"").decode(errors="replace"))
        except ValueError:
            continue
        if chunk is not None:
            continue
        if record.value is None:
            found.pop(experiment, None)
            continue
        try:
            found[experiment] = ExperimentState.model_validate_json(record.value)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            what = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
            typer.echo(f"experiment {experiment}: passed over, as {what}", err=True)
