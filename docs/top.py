"""Draws docs/top.svg, `soulspot top` in a terminal of 80 columns and 24 rows, from a real run.

    python docs/top.py

A daemon watches a scratch folder, which appears as a home folder, with some hundred songs, a broken one, and one that
is still being copied. The terminal is tmux; rich draws its screen.
"""

import os
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from picture import HERE, HOME, SONGS, drop, export, until, watching
from rich.console import Console
from rich.text import Text

PICTURE = HERE / "docs" / "top.svg"
COLUMNS, ROWS = 80, 24


def screen(home: Path, environment: dict[str, str]) -> str:
    """Return the screen with its colours, once it shows everything."""
    music = home / "Music"
    tmux = ["tmux", "-S", str(home / "tmux"), "-f", "/dev/null"]
    command = f"{sys.executable} -m soulspot top"
    with ExitStack() as ends:
        ends.enter_context(watching(home, environment))
        subprocess.run([*tmux, "new-session", "-d", f"-x{COLUMNS}", f"-y{ROWS}", command], env=environment, check=True)
        ends.callback(subprocess.run, [*tmux, "kill-server"], check=True)

        def shown(*options: str) -> str:
            return subprocess.run(
                [*tmux, "capture-pane", "-p", *options], capture_output=True, text=True, check=True
            ).stdout

        until(lambda: "pause" in shown(), "the live view")
        for number in range(120):
            drop(
                music / f"Ensemble/Anthology {number // 30 + 1}/{number % 30 + 1:02}.flac",
                "Ensemble",
                f"No. {number + 1}",
                "Anthology",
            )
        for name, tags in SONGS.items():
            drop(music / name, *tags)
        (music / "download.ogg").write_bytes(b"<html>404 not found</html>" * 20)
        with (music / "Live at the Village Gate.flac").open("wb") as growing:
            growing.write((HERE / "tests" / "audio" / "tone.flac").read_bytes()[:3000])
            growing.flush()
            wanted = ("settles", "1 failed", "123 catalogued")
            until(lambda: all(words in shown() for words in wanted), ", ".join(wanted))
            return shown("-e")


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch)
        (home / "Music").mkdir()
        database = home / ".local" / "share" / "soulspot" / "soulspot.db"
        environment = {name: value for name, value in os.environ.items() if not name.startswith("SOULSPOT_")}
        environment |= {"HOME": scratch, "TERM": "xterm-256color", "LC_ALL": "C.UTF-8"}
        environment["SOULSPOT_DATABASE__URL"] = f"sqlite+aiosqlite:///{database}"
        environment.pop("NO_COLOR", None)
        drawn = screen(home, environment).replace(scratch, HOME)
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        console = Console(record=True, width=COLUMNS, file=nowhere, force_terminal=True, color_system="truecolor")
        console.print(Text.from_ansi(drawn.rstrip("\n")), "")
    PICTURE.write_text(export(console, "soulspot top"), encoding="utf-8")
    print(f"{PICTURE.relative_to(HERE)}: {PICTURE.stat().st_size / 1000:.1f} kB")


if __name__ == "__main__":
    main()
