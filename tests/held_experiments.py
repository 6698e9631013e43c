"""Holds the experiments of a world in a process of its own: held_experiments.py BOOTSTRAP PREFIX CLOCK

CLOCK is a file with the seconds by which the process's clock is ahead. A line on standard output says that it holds.
"""

import asyncio
import sys
import time
from pathlib import Path

from experiment_world import World

from murmura.runtime.observe import logs

bootstrap, prefix, clock = sys.argv[1:]
logs.configure("info", "json", stream=sys.stdout)
holder = World(bootstrap, prefix).make_holder()
holder._clock = lambda: time.time() + float(Path(clock).read_text())
asyncio.run(holder.run())
