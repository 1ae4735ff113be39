"""Measures how long queries on the views of docs/schema.md take on a large SQLite catalogue.

    python benchmarks/views.py [--tracks 100000]

Runs each query three times, and prints the fastest.
"""

import argparse
import asyncio
import sqlite3
import sys
import tempfile
import time
from pathlib import Path

from soulspot.infrastructure.persistence.database import Database
from soulspot.infrastructure.persistence.schema import bring_up_to_date

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.support.large_catalogue import statements

TRACK = "01900000-0000-7000-8000-c00000000007"
QUERIES = {
    "one album's tracks": "SELECT * FROM catalogue_tracks WHERE album_id = (SELECT id FROM albums LIMIT 1)",
    "one artist's tracks, by name": "SELECT * FROM catalogue_tracks WHERE artist = 'Artist 7'",
    "one full path": "SELECT * FROM catalogue_tracks WHERE path = '/srv/music/Artist 7/Album 88/1066.mp3'",
    "every track, all columns": "SELECT * FROM catalogue_tracks",
    "every artist": "SELECT * FROM catalogue_artists",
    "every album": "SELECT * FROM catalogue_albums",
    "the folders": "SELECT * FROM catalogue_folders",
    "the failures": "SELECT * FROM catalogue_failures",
    "the newest 20 entries": "SELECT * FROM catalogue_history ORDER BY sequence DESC LIMIT 20",
    "the history of one track": f"SELECT * FROM catalogue_history WHERE entity_id = '{TRACK}'",  # noqa: S608 - only constants
    "additions by day": "SELECT date(at), count(*) FROM catalogue_history WHERE action = 'track_added' GROUP BY 1",
}


async def make(file: Path) -> None:
    async with Database(f"sqlite+aiosqlite:///{file}") as database:
        await bring_up_to_date(database)


def seconds(connection: sqlite3.Connection, query: str) -> tuple[float, int]:
    began = time.perf_counter()
    rows = sum(1 for _row in connection.execute(query))
    return time.perf_counter() - began, rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tracks", type=int, default=100_000)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "catalogue.db"
        asyncio.run(make(file))
        connection = sqlite3.connect(file)
        for statement in statements("sqlite", asked.tracks):
            connection.execute(statement)
        connection.commit()
        for name, query in QUERIES.items():
            took, rows = min(seconds(connection, query) for _time in range(3))
            print(f"{1000 * took:8.1f} ms  {rows:7} rows  {name}")
        connection.close()


if __name__ == "__main__":
    main()
