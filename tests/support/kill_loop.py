"""Kills soulspot at random moments, and checks after each kill that the catalogue kept its promises.

    python tests/support/kill_loop.py [--kills 200] [--seed N]

In each turn files are added, renamed and removed; then a new process (a fork, so that it starts in milliseconds) brings
the catalogue up to date, and gets SIGKILL after a random time. The pipeline, the database and the parser are real; only
the tags are read in the same process. 10,000 kills take about twenty minutes.
"""

import argparse
import asyncio
import os
import random
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.conftest import AUDIO

from soulspot.bootstrap import open_ingest
from soulspot.config import Settings
from soulspot.infrastructure.filesystem import ignore_lease_signals
from soulspot.infrastructure.persistence.database import Database
from soulspot.infrastructure.persistence.schema import bring_up_to_date
from soulspot.infrastructure.tags import Reading
from soulspot.infrastructure.tags.reader import read_file
from soulspot.infrastructure.tags.readers.pool import TagReaders
from soulspot.ingest.outcome import Outcome

KILL_WITHIN = 0.08
"""Seconds from the start of the import within which it is killed."""


class InProcessReaders(TagReaders):
    """Reads tags in this process."""

    def start(self) -> None:
        """Start no reader processes."""

    async def read(self, path: str, *, is_urgent: bool = False) -> Reading:  # noqa: ARG002 - there is no queue
        return await asyncio.to_thread(read_file, path)


async def update_catalogue(database_file: Path, music: Path, acknowledged: int) -> None:
    """Bring the catalogue up to date; write a line to `acknowledged` for each outcome, after its commit."""

    def acknowledge(outcome: Outcome) -> None:
        os.write(acknowledged, f"{outcome.kind} {outcome.path}\n".encode())

    settings = Settings.model_validate(
        {
            "database": {"url": f"sqlite+aiosqlite:///{database_file}"},
            "library": {"folders": [str(music)], "quiet_period": 0.0, "leases": False, "missing_after": 0.0},
        }
    )
    async with open_ingest(
        settings, "watch", report=acknowledge, confirm_missing=True, readers=InProcessReaders(1)
    ) as ingest:
        running = asyncio.create_task(ingest.pipeline.run(), name="pipeline")
        os.write(acknowledged, b"started\n")
        await ingest.pipeline.reconciler.reconcile(ingest.roots[0])
        await ingest.pipeline.wait(give_up_after=10)
        running.cancel()


class KillLoop:
    def __init__(self, place: Path, seed: int) -> None:
        self.random = random.Random(seed)
        self.music, self.database = place / "music", place / "catalogue.db"
        self.music.mkdir()
        self.songs = [(AUDIO / f"tone.{kind}").read_bytes() for kind in ("mp3", "flac", "ogg", "opus")]
        self.number = 0
        self.acknowledged = 0
        asyncio.run(self._make_catalogue())

    async def _make_catalogue(self) -> None:
        async with Database(f"sqlite+aiosqlite:///{self.database}") as database:
            await bring_up_to_date(database)

    def run_once(self, *, kill: bool) -> bool:
        """Change the folder, run an import, maybe kill it; return whether the kill came before its end."""
        self._change_folder()
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(reading)
            try:
                ignore_lease_signals()
                asyncio.run(update_catalogue(self.database, self.music, writing))
                os._exit(0)
            except BaseException:  # noqa: BLE001 - a fork must not go on as its parent
                import traceback

                traceback.print_exc()
                os._exit(1)
        os.close(writing)
        with os.fdopen(reading) as acknowledged:
            acknowledged.readline()
            if kill:
                time.sleep(self.random.uniform(0, KILL_WITHIN))
                os.kill(pid, signal.SIGKILL)
            status = os.waitpid(pid, 0)[1]
            lines = acknowledged.read().splitlines()
        if not os.WIFSIGNALED(status) and status != 0:
            sys.exit(f"the process failed in turn {self.number}")
        self._check(lines)
        return os.WIFSIGNALED(status)

    def _change_folder(self) -> None:
        there = list(self.music.iterdir())
        for _each in range(4):
            self.number += 1
            path = self.music / f"{self.number}.mp3"
            path.write_bytes(self.random.choice(self.songs))
        for song in self.random.sample(there, min(2, len(there))):
            self.number += 1
            song.rename(self.music / f"{self.number}.mp3")
        if len(there) > 40:
            for song in self.random.sample(list(self.music.iterdir()), 3):
                song.unlink()

    def _check(self, lines: list[str]) -> None:
        connection = sqlite3.connect(self.database)
        one = lambda query, *values: connection.execute(query, values).fetchone()[0]  # noqa: E731
        assert one("PRAGMA quick_check") == "ok"
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        added = "SELECT count(*) FROM audit_log WHERE action = 'track_added'"
        assert one("SELECT count(*) FROM tracks") == one(added)
        assert one("SELECT count(*) FROM tracks WHERE id NOT IN (SELECT track_id FROM files)") == 0
        assert one("SELECT count(*) FROM tracks WHERE id NOT IN (SELECT track_id FROM track_artists)") == 0
        doubled = "SELECT count(*) - count(DISTINCT entity_id) FROM audit_log WHERE action = 'track_added'"
        assert one(doubled) == 0
        self.acknowledged += len(lines)
        for line in lines:
            kind, path = line.split(" ", 1)
            found = one("SELECT count(*) FROM audit_log WHERE action = ? AND path = ?", f"track_{kind}", path)
            assert found >= 1, f"{line!r} was acknowledged and is lost"
        connection.close()

    def check_end(self) -> None:
        """Run once without a kill, and compare the catalogue with the folder."""
        self.run_once(kill=False)
        connection = sqlite3.connect(self.database)
        query = "SELECT path FROM files WHERE status = 'catalogued'"
        assert sorted(path for (path,) in connection.execute(query)) == sorted(os.listdir(self.music))
        connection.close()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=None)
    arguments = parser.parse_args()
    seed = arguments.seed if arguments.seed is not None else random.randrange(1 << 32)
    print(f"seed {seed}", flush=True)
    place = Path(tempfile.mkdtemp(prefix="soulspot-kill-"))
    try:
        loop, killed, began = KillLoop(place, seed), 0, time.monotonic()
        while killed < arguments.kills:
            killed += loop.run_once(kill=True)
        loop.check_end()
    finally:
        shutil.rmtree(place)
    done = f"{loop.acknowledged} changes committed, none lost, none doubled"
    print(f"{killed} kills in {time.monotonic() - began:.0f} s: {done}")


if __name__ == "__main__":
    main()
