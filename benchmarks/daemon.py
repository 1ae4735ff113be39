"""Runs `soulspot watch` on a folder and a database of its own, for the other benchmarks to measure."""

import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class Daemon:
    """A running daemon, and its catalogue."""

    def __init__(self, place: Path, music: Path | None = None, **settings: str) -> None:
        self.music = music or place / "music"
        self.music.mkdir(exist_ok=True)
        self.database = place / "soulspot.db"
        self.log = place / "log"
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("SOULSPOT_")}
        self.environment |= {"SOULSPOT_DATABASE__URL": f"sqlite+aiosqlite:///{self.database}"} | settings
        self._connection: sqlite3.Connection | None = None

    def start(self) -> None:
        log = self.log.open("ab")
        already = self.log.read_bytes().count(b" watching ")
        command = [sys.executable, "-m", "soulspot", "watch", str(self.music)]
        self.process = subprocess.Popen(command, env=self.environment, stderr=log)
        log.close()
        until(lambda: self.log.read_bytes().count(b" watching ") > already or self.process.poll() is not None)
        if self.process.poll() is not None:
            sys.exit(self.log.read_text())

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)

    def count(self, where: str = "status = 'catalogued'") -> int:
        return int(self.rows(f"SELECT count(*) FROM files WHERE {where}")[0][0])  # noqa: S608 - only constants

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        if self._connection is None:
            self._connection = sqlite3.connect(f"file:{self.database}?mode=ro", uri=True, timeout=30)
        return self._connection.execute(query).fetchall()

    def processes(self) -> list[int]:
        """Return the process ids of the daemon and of its tag readers."""
        pid = self.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [pid, *map(int, children)]

    def cpu_seconds(self) -> float:
        ticks = 0
        for pid in self.processes():
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def pss_megabytes(self) -> float:
        total = 0
        for pid in self.processes():
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            total += next(int(line.split()[1]) for line in rollup if line.startswith("Pss:"))
        return total / 1024


def until(condition: Callable[[], object], seconds: float = 60.0, every: float = 0.02) -> bool:
    """Wait until a condition holds; return whether it did in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(every)
    return True


@contextmanager
def running(music: Path | None = None, **settings: str) -> Iterator[Daemon]:
    """Run a daemon in a scratch folder that is removed afterwards."""
    with scratch() as place, run_in(place, music, **settings) as daemon:
        yield daemon


@contextmanager
def scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="soulspot-benchmark-", dir=os.environ.get("SCRATCH")) as place:
        yield Path(place)


@contextmanager
def run_in(place: Path, music: Path | None = None, **settings: str) -> Iterator[Daemon]:
    daemon = Daemon(place, music, **settings)
    daemon.start()
    try:
        yield daemon
    finally:
        daemon.stop()


def song() -> bytes:
    """Return a small valid song."""
    return (Path(__file__).parents[1] / "tests" / "audio" / "tone.mp3").read_bytes()
