"""A real terminal: runs a command in tmux, sends it keys, and reads the screen."""

import os
import shlex
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from tests.support.deadlines import load_factor


class Terminal:
    def __init__(self, place: Path) -> None:
        self._command = ["tmux", "-S", str(place / "tmux"), "-f", "/dev/null"]

    @classmethod
    @contextmanager
    def opened(cls, place: Path) -> Iterator[Self]:
        terminal = cls(place)
        try:
            yield terminal
        finally:
            terminal._tmux("kill-server", check=False)

    def run(self, command: Sequence[str], environment: Mapping[str, str], *, columns: int = 80, rows: int = 24) -> None:
        """Run a command in a shell, which prints `left N` with its exit code when it ends."""
        named = [f"{name}={value}" for name, value in environment.items() if name.startswith("SOULSPOT_")]
        line = shlex.join(["env", "LC_ALL=C.UTF-8", "TERM=tmux-256color", *named, *command])
        size = ["-x", str(columns), "-y", str(rows)]
        shell = f"stty -a >/dev/null; {line}; echo left $?; exec sh"
        self._tmux("new-session", "-d", *size, shell, environment=os.environ | {"LC_ALL": "C.UTF-8"})

    def screen(self, *options: str) -> str:
        return self._tmux("capture-pane", "-p", *options)

    def lines(self) -> list[str]:
        return self.screen().splitlines()

    def type(self, *keys: str) -> None:
        self._tmux("send-keys", *keys)

    def resize(self, columns: int, rows: int) -> None:
        self._tmux("resize-window", "-x", str(columns), "-y", str(rows))

    def pane(self, variable: str) -> str:
        """Return a variable of the pane, as tmux calls it: "alternate_on", "cursor_flag" …"""
        return self._tmux("display-message", "-p", f"#{{{variable}}}").strip()

    def _tmux(self, *arguments: str, check: bool = True, environment: Mapping[str, str] | None = None) -> str:
        command = [*self._command, *arguments]
        result = subprocess.run(
            command, check=check, capture_output=True, text=True, timeout=30 * load_factor(), env=environment
        )
        return result.stdout
