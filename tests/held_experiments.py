"""Holds the experiments of a world in a process of its own: held_experiments.py BOOTSTRAP PREFIX CLOCK [GROUP MEETING]

CLOCK is a file with the seconds by which the process's clock is ahead. A line on standard output says that it holds. With a GROUP of
its own it holds them beside another process, and before it sends a release state it waits in the folder MEETING for the other one.
"""

import asyncio
import sys
import time
from pathlib import Path

from experiment_world import World

from murmura.runtime.observe import logs
from murmura.runtime.release import states

MEET_S = 25.0


def meet_before_sending(meeting: Path, group: str) -> None:
    """Let two processes that have both read the newest release state send their next one at the same time."""
    make_factory, sends = states.producer_factory, iter(range(100))

    def factory(*settings):
        def make():
            producer = make_factory(*settings)()
            start = producer.start

            async def meet():
                await start()
                number = next(sends)
                (meeting / f"{number}-{group}").touch()
                end = time.monotonic() + MEET_S
                while len([*meeting.glob(f"{number}-*")]) < 2 and time.monotonic() < end:
                    await asyncio.sleep(0.001)

            producer.start = meet
            return producer

        return make

    states.producer_factory = factory


bootstrap, prefix, clock, *rest = sys.argv[1:]
logs.configure("info", "json", stream=sys.stdout)
world = World(bootstrap, prefix)
if rest:
    group, meeting = rest
    kafka = world.settings.kafka.model_copy(update={"group": group})
    world.settings = world.settings.model_copy(update={"kafka": kafka})
    meet_before_sending(Path(meeting), group)
holder = world.make_holder()
holder._clock = lambda: time.time() + float(Path(clock).read_text())
asyncio.run(holder.run())
