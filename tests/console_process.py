"""`murmura console` in a process of its own, in which ten minutes of reviews are a few seconds: console_process.py SECONDS ARGUMENTS"""

import sys

from murmura.console.review import queue, second_copies
from murmura.runtime.cli.main import main

second_copies.OWN_S = queue.UNDO_S = float(sys.argv.pop(1))
sys.argv[1:1] = ["console"]
main()
