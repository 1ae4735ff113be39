"""A terminal that is drawn on as a whole: entered, left as it was, and never written twice with the same line.

Each line is put at its place by itself and no line wraps, so that a name whose width a terminal sees otherwise than we
do spoils nothing but its own line.
"""

import asyncio
import os
import signal
import sys
import termios
import tty
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final, Self

from soulspot.errors import SoulspotError

_ENTER: Final = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[2J"
_LEAVE: Final = "\x1b[?7h\x1b[?25h\x1b[?1049l"
_BEGIN, _END = "\x1b[?2026h", "\x1b[?2026l"  # drawn at once, by terminals that know that


class Terminal:
    """The terminal that this process has, from entering it to leaving it.

    Args:
        on_key: called with each character that is typed.
        on_change: called when everything is to be drawn anew.

    """

    def __init__(self, on_key: Callable[[str], None], on_change: Callable[[], None]) -> None:
        self._on_key = on_key
        self._on_change = on_change
        self._in, self._out = sys.stdin.fileno(), sys.stdout.fileno()
        self._drawn: Sequence[str] = ()
        self._encoding = sys.stdout.encoding or "utf-8"
        self.left = asyncio.Event()

    def __enter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._before = termios.tcgetattr(self._in)
        self._take()
        loop.add_reader(self._in, self._read)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self.left.set)
        loop.add_signal_handler(signal.SIGWINCH, self._redraw)
        loop.add_signal_handler(signal.SIGTSTP, self._suspend)
        return self

    def __exit__(self, *_error: object) -> None:
        with suppress(OSError):  # whoever looked at it has gone
            asyncio.get_running_loop().remove_reader(self._in)
            self._give_back()

    @property
    def size(self) -> tuple[int, int]:
        """Return columns and rows."""
        try:
            size = os.get_terminal_size(self._out)
        except OSError:
            return 80, 24
        return max(size.columns, 20), max(size.lines, 5)

    def draw(self, lines: Sequence[str]) -> None:
        """Show these lines, from the top; only those are written that are others than before."""
        rows = self.size[1]
        padded = [*lines[:rows], *[""] * (rows - len(lines))]
        before = self._drawn if len(self._drawn) == rows else ["\0"] * rows
        written = [
            f"\x1b[{number};1H{line}\x1b[0m\x1b[K"
            for number, (line, old) in enumerate(zip(padded, before, strict=True), 1)
            if line != old
        ]
        self._drawn = padded
        if written:
            self._write(_BEGIN + "".join(written) + _END)

    def _take(self) -> None:
        tty.setcbreak(self._in)
        self._write(_ENTER)

    def _give_back(self) -> None:
        self._write(_LEAVE)
        termios.tcsetattr(self._in, termios.TCSADRAIN, self._before)

    def _redraw(self) -> None:
        self._drawn = ()
        self._write("\x1b[2J")
        self._on_change()

    def _suspend(self) -> None:
        self._give_back()
        signal.raise_signal(signal.SIGSTOP)
        self._take()
        self._redraw()

    def _read(self) -> None:
        try:
            typed = os.read(self._in, 64)
        except OSError:
            typed = b""
        if not typed:  # the terminal is gone
            self.left.set()
            asyncio.get_running_loop().remove_reader(self._in)
        elif typed == b"\x0c":
            self._redraw()
        elif not typed.startswith(b"\x1b"):  # an arrow, a mouse: nothing that is asked for here
            for key in typed.decode(errors="ignore"):
                self._on_key(key)

    def _write(self, text: str) -> None:
        left = text.encode(self._encoding, "replace")
        try:
            while left:
                left = left[os.write(self._out, left) :]
        except OSError:
            self.left.set()


def require_terminal(instead: str) -> None:
    """Raise SoulspotError unless there is a terminal that can be drawn on."""
    if os.environ.get("TERM", "dumb") in {"dumb", "unknown", ""} or not (sys.stdin.isatty() and sys.stdout.isatty()):
        msg = f"this takes a terminal that can be drawn on: {instead}"
        raise SoulspotError(msg)
