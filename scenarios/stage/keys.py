"""Reads what a person types while the screen is redrawn: key by key, without the terminal's echo."""

import asyncio
import codecs
import contextlib
import os
import sys
import termios
import tty
from collections.abc import Callable, Iterator
from typing import Final

LONGEST: Final = 500
KEYS: Final = "+ right, - wrong, =LABEL what is right"
_BACKSPACE: Final = "\x7f\b"
_ENTER: Final = "\r\n"
_AT_ONCE: Final = "+-"
_CLEAR: Final = "\x15\x17"  # Ctrl-U, Ctrl-W


class Line:
    """A line being typed. Takes characters as a terminal sends them; returns the text at Enter.

    A `+` or a `-` at the start is a complete line: these keys are verdicts.
    """

    def __init__(self) -> None:
        self.typed = ""
        self._escape = ""

    def feed(self, characters: str) -> list[str]:
        """Add characters; return the lines that they complete."""
        finished = []
        for character in characters:
            if self._in_escape(character):
                continue
            if character in _ENTER:
                if self.typed.strip():
                    finished.append(self.typed.strip())
                self.typed = ""
            elif character in _AT_ONCE and not self.typed:
                finished.append(character)
            elif character in _BACKSPACE:
                self.typed = self.typed[:-1]
            elif character in _CLEAR:
                self.typed = ""
            elif character.isprintable() and len(self.typed) < LONGEST:
                self.typed += character
        return finished

    def _in_escape(self, character: str) -> bool:
        """Skip escape sequences of arrow and function keys: ESC, optional `[` or `O`, parameters, a letter or `~`."""
        if character == "\x1b":
            self._escape = character
            return True
        if not self._escape:
            return False
        first = len(self._escape) == 1
        self._escape += character
        if (first and character not in "[O") or (not first and "@" <= character <= "~"):
            self._escape = ""
        return True


@contextlib.contextmanager
def typing_into(line: Line, on_line: Callable[[str], None], on_key: Callable[[], None]) -> Iterator[bool]:
    """Read the keyboard during the block; yields False where stdin is no terminal. Ctrl-C remains a signal.

    Enter it on the event loop: both callbacks are called there.
    """
    if not sys.stdin.isatty():
        yield False
        return
    descriptor = sys.stdin.fileno()
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    loop = asyncio.get_running_loop()

    def read() -> None:
        data = os.read(descriptor, 4096)
        if not data:
            loop.remove_reader(descriptor)
        for text in line.feed(decoder.decode(data)):
            on_line(text)
        on_key()

    before = termios.tcgetattr(descriptor)
    tty.setcbreak(descriptor)
    loop.add_reader(descriptor, read)
    try:
        yield True
    finally:
        loop.remove_reader(descriptor)
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
