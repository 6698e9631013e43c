"""Reads what was found about a version that is only compared, from `murmura.shadow`."""

from typing import TYPE_CHECKING, Any

from ...errors import SetupError

if TYPE_CHECKING:
    import asyncio

    from ...settings.settings import Settings


def write_shadow_report(settings: "Settings", name: str, version: int) -> str:
    """Return the report as Markdown: by hour, by task, and the most frequent changes. SetupError where nothing was found."""
    from pydantic import ValidationError

    from ....schemas.shadow import ShadowRecord
    from ...kafka import offset_ranges
    from ...shadow.report import ShadowReport, format_report
    from ..until_signalled import run_cancellable

    report, topic = ShadowReport(name, version), f"{settings.prefix}.shadow"

    def take(number: int, records: list[Any]) -> None:
        for record in records:
            try:
                report.add(ShadowRecord.model_validate_json(record.value or b""))
            except ValidationError:
                continue

    async def main(stop: "asyncio.Event") -> None:
        chosen = await offset_ranges.freeze(settings.kafka, [[topic]])
        await offset_ranges.read(settings.kafka, chosen, take)

    run_cancellable(main)
    if not report.hours and not report.changes:
        raise SetupError(
            f"nothing about {name} {version} is in {topic}; counts come once a minute while it is compared"
        )
    return "\n".join(format_report(report)) + "\n"
