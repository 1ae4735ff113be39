"""The whole terminal, drawn by rich's Live: entered, read key by key, resized, and restored however it ends."""

import asyncio
import os
import signal
import sys
import termios
import tty
from collections.abc import Callable
from contextlib import suppress
from io import TextIOWrapper
from typing import Final, Self

from rich.console import Console, RenderableType
from rich.live import Live

from soulspot.errors import SoulspotError

# rich cannot turn off line wrap: a name that is wider than rich measures must not push the lines below it down.
_WRAP_OFF: Final = "\x1b[?7l"
_WRAP_ON: Final = "\x1b[?7h"
_CTRL_L: Final = b"\x0c"


class Terminal:
    """Owns the terminal from `__enter__` to `__exit__`.

    Args:
        on_key: called with each character typed.
        on_change: called when everything has to be drawn again.

    Attributes:
        closed: set when the user, a signal or the end of the terminal asks to stop.

    """

    def __init__(self, on_key: Callable[[str], None], on_change: Callable[[], None]) -> None:
        self._on_key = on_key
        self._on_change = on_change
        self._input = sys.stdin.fileno()
        if isinstance(sys.stdout, TextIOWrapper):
            sys.stdout.reconfigure(errors="replace")  # a terminal without UTF-8 shows question marks
        for name in ("COLUMNS", "LINES"):  # rich would believe them rather than the terminal
            os.environ.pop(name, None)
        self._console = Console()
        self._live = Live(
            console=self._console, screen=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False
        )
        self.closed = asyncio.Event()

    def __enter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._before = termios.tcgetattr(self._input)
        self._start()
        loop.add_reader(self._input, self._read)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self.closed.set)
        loop.add_signal_handler(signal.SIGWINCH, self._redraw)
        loop.add_signal_handler(signal.SIGTSTP, self._suspend)
        return self

    def __exit__(self, *_error: object) -> None:
        asyncio.get_running_loop().remove_reader(self._input)
        with suppress(OSError, termios.error):  # the terminal has gone
            self._stop()

    @property
    def size(self) -> tuple[int, int]:
        """Return columns and rows."""
        return max(self._console.width, 20), max(self._console.height, 5)

    def draw(self, shown: RenderableType) -> None:
        """Replace the content of the screen with this."""
        try:
            self._live.update(shown, refresh=True)
        except OSError:
            self.closed.set()

    def _start(self) -> None:
        tty.setcbreak(self._input)
        self._live.start()
        self._write(_WRAP_OFF)

    def _stop(self) -> None:
        try:
            self._write(_WRAP_ON)
            self._live.stop()
        finally:
            termios.tcsetattr(self._input, termios.TCSADRAIN, self._before)

    def _redraw(self) -> None:
        self._console.clear()
        self._on_change()

    def _suspend(self) -> None:
        self._stop()
        signal.raise_signal(signal.SIGSTOP)
        self._start()
        self._redraw()

    def _read(self) -> None:
        try:
            typed = os.read(self._input, 64)
        except OSError:
            typed = b""
        if not typed:  # the terminal has gone
            self.closed.set()
            asyncio.get_running_loop().remove_reader(self._input)
        elif typed == _CTRL_L:
            self._redraw()
        elif not typed.startswith(b"\x1b"):  # an arrow key or the mouse
            for key in typed.decode(errors="ignore"):
                self._on_key(key)

    def _write(self, codes: str) -> None:
        self._console.file.write(codes)
        self._console.file.flush()


def require_terminal(instead: str) -> None:
    """Raise SoulspotError unless standard input and output are a terminal that can be drawn on."""
    if os.environ.get("TERM", "dumb") in {"dumb", "unknown", ""} or not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise SoulspotError(f"this needs a terminal: {instead}")
