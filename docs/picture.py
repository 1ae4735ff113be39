"""Draws docs/picture.svg, a terminal with soulspot at work, from a real run.

    python docs/picture.py [--check]

Songs are dropped into a folder while `soulspot watch` runs on a pseudo-terminal, then `soulspot status` runs; rich
draws the output of both. The scratch folder appears as a home folder. --check writes nothing, and exits with 1 when a
run now prints other words than the picture shows; numbers may differ.
"""

import contextlib
import html
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import mutagen
from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.support.deadlines import Deadline

HERE: Final = Path(__file__).parents[1]
PICTURE: Final = HERE / "docs" / "picture.svg"
COLUMNS: Final = 104
HOME: Final = "/home/me"

SONGS: Final = {
    "Nina Simone/Sinnerman.mp3": ("Nina Simone", "Sinnerman", "Pastel Blues"),
    "Sigur Rós/Vaka.flac": ("Sigur Rós", "Vaka", "( )"),
    "Autobahn.m4a": ("Kraftwerk", "Autobahn", "Autobahn"),
}
# Dark on every page: the picture has its own background.
THEME: Final = TerminalTheme(
    (24, 26, 31),
    (214, 218, 224),
    [(24, 26, 31), (240, 113, 120), (152, 195, 121), (229, 192, 123)]
    + [(97, 175, 239), (198, 120, 221), (86, 182, 194), (214, 218, 224)],
    [(128, 134, 145), (240, 113, 120), (152, 195, 121), (229, 192, 123)]
    + [(97, 175, 239), (198, 120, 221), (86, 182, 194), (255, 255, 255)],
)


class Terminal:
    """A pseudo-terminal that records what a command writes."""

    def __init__(self) -> None:
        self._ours, self.theirs = pty.openpty()
        self._text = b""

    def read(self) -> str:
        """Return everything written so far."""
        while select.select([self._ours], [], [], 0)[0]:
            with contextlib.suppress(OSError):  # the command has closed it
                if part := os.read(self._ours, 65536):
                    self._text += part
                    continue
            break
        return self._text.decode().replace("\r\n", "\n")

    def wait_for(self, words: str) -> None:
        until(lambda: words in self.read(), words)


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = Deadline(30)
    while not condition():
        if deadline.has_passed():
            sys.exit(f"timed out waiting for {what}")
        time.sleep(0.02)


@contextmanager
def watching(home: Path, environment: dict[str, str]) -> Iterator[Terminal]:
    """Run `soulspot watch ~/Music` on a terminal; end it as Ctrl-C does."""
    terminal = Terminal()
    command = [sys.executable, "-m", "soulspot", "watch", str(home / "Music")]
    theirs = terminal.theirs
    with subprocess.Popen(command, env=environment, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        terminal.wait_for("watching")
        yield terminal
        process.send_signal(signal.SIGINT)


def drop(path: Path, artist: str, title: str, album: str) -> None:
    """Copy a song in, under another name until it is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".part")
    shutil.copyfile(HERE / "tests" / "audio" / f"tone{path.suffix}", unfinished)
    song = mutagen.File(unfinished, easy=True)
    if song.tags is None:
        song.add_tags()
    song.update({"artist": artist, "title": title, "album": album})
    song.save()
    unfinished.rename(path)


def run() -> list[tuple[str, str]]:
    """Return each command of a real run, with its output."""
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch)
        music = home / "Music"
        music.mkdir()
        database = home / ".local" / "share" / "soulspot" / "soulspot.db"
        environment = {name: value for name, value in os.environ.items() if not name.startswith("SOULSPOT_")}
        environment |= {"HOME": scratch, "TERM": "xterm-256color", "COLUMNS": str(COLUMNS), "LC_ALL": "C.UTF-8"}
        environment["SOULSPOT_DATABASE__URL"] = f"sqlite+aiosqlite:///{database}"
        environment.pop("NO_COLOR", None)
        with watching(home, environment) as terminal:
            for name, tags in SONGS.items():
                drop(music / name, *tags)
                terminal.wait_for(Path(name).name)
            (music / "Kraftwerk").mkdir()
            (music / "Autobahn.m4a").rename(music / "Kraftwerk" / "Autobahn.m4a")
            terminal.wait_for("moved")
            drop(music / "Nina Simone/Sinnerman.mp3", "Nina Simone", "Sinnerman (live)", "Pastel Blues")
            terminal.wait_for("updated")
            (music / "download.ogg").write_bytes(b"<html>404 not found</html>" * 20)
            terminal.wait_for("failed")
            watched = terminal.read()
            second = Terminal()
            status = [sys.executable, "-m", "soulspot", "status"]
            subprocess.run(status, env=environment, stdout=second.theirs, check=True)
            summary = second.read()
        shown = [("soulspot watch ~/Music", watched), ("soulspot status", summary)]
        return [(command, text.replace(scratch, HOME)) for command, text in shown]


def draw(parts: list[tuple[str, str]]) -> str:
    """Return a terminal with commands and their output, as SVG."""
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        console = Console(record=True, width=COLUMNS, file=nowhere, force_terminal=True, color_system="truecolor")
        for command, text in parts:
            console.print(Text.assemble(("$ ", "green"), (command, "bold")))
            console.print(Text.from_ansi(text.rstrip("\n")), "")
    return export(console, "soulspot")


def export(console: Console, title: str) -> str:
    """Return what was printed as SVG."""
    svg = console.export_svg(title=title, theme=THEME, unique_id="soulspot")
    # An SVG in a page may not fetch fonts: name the fallbacks instead.
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)
    return re.sub(r"Fira Code", "ui-monospace, SFMono-Regular, Menlo, Consolas, DejaVu Sans Mono", svg)


def words(svg: str) -> list[str]:
    """Return the words in a picture, each number as 0."""
    return [re.sub(r"\d+", "0", html.unescape(text)) for text in re.findall(r">([^<\n]+)</text>", svg)]


if __name__ == "__main__":
    picture = draw(run())
    if "--check" in sys.argv:
        sys.exit(words(picture) != words(PICTURE.read_text(encoding="utf-8")))
    PICTURE.write_text(picture, encoding="utf-8")
    print(f"{PICTURE.relative_to(HERE)}: {len(picture.encode()) / 1000:.1f} kB")
