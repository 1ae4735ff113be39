"""Measures the time from a file's last close to its row in the catalogue, while the daemon watches a library.

    python benchmarks/latency.py [--library FOLDER [--during-import]] [--drops 200] [--albums 20] [--songs 20]

--library is a folder of songs that is imported first, as hard links where possible, else as copies; with
--during-import the drops start while that import runs. Prints p50, p95, p99 and the maximum for single drops, then for
whole albums in new folders.
"""

import argparse
import os
import shutil
import sqlite3
import statistics
import sys
import time
from pathlib import Path

from daemon import Daemon, running, song, until


def wait_for_rows(daemon: Daemon, expected: int, seconds: float) -> float | None:
    """Return when a reader saw `expected` files in the catalogue, None if it did not in time."""
    connection = sqlite3.connect(f"file:{daemon.database}?mode=ro", uri=True, timeout=30)
    deadline = time.monotonic() + seconds
    try:
        while time.monotonic() < deadline:
            # By the index on folder and path, so that the query takes no time from the daemon.
            found = connection.execute(
                "SELECT count(*) FROM files WHERE folder_id = (SELECT id FROM folders LIMIT 1)"
                " AND path > 'zz' AND missing_since IS NULL AND status = 'catalogued'"
            ).fetchone()
            if found[0] >= expected:
                return time.monotonic()
            time.sleep(0.0005)
    finally:
        connection.close()
    return None


def single_drops(daemon: Daemon, drops: int) -> tuple[list[float], int]:
    content, latencies, missed = song(), [], 0
    for number in range(drops):
        (daemon.music / f"zz-{number}.mp3").write_bytes(content)
        closed = time.monotonic()
        seen = wait_for_rows(daemon, number + 1 - missed, 10)
        if seen is None:
            missed += 1
        else:
            latencies.append((seen - closed) * 1000)
        time.sleep(0.05)
    return latencies, missed


def albums(daemon: Daemon, number_of_albums: int, songs: int, before: int) -> tuple[list[float], int]:
    content, latencies, missed = song(), [], 0
    for number in range(number_of_albums):
        folder = daemon.music / f"zz-artist-{number}" / "album"
        folder.mkdir(parents=True)
        for index in range(songs):
            (folder / f"{index:02}.mp3").write_bytes(content)
        closed = time.monotonic()
        before += songs
        seen = wait_for_rows(daemon, before, 10)
        if seen is None:
            missed += 1
        else:
            latencies.append((seen - closed) * 1000)
        time.sleep(0.3)
    return latencies, missed


def figures(name: str, latencies: list[float], missed: int) -> str:
    if len(latencies) < 2:  # noqa: PLR2004
        return f"{name}: {len(latencies)} seen, {missed} missed"
    cuts = statistics.quantiles(latencies, n=100, method="inclusive")
    shown = f"p50 {cuts[49]:.1f} ms, p95 {cuts[94]:.1f} ms, p99 {cuts[98]:.1f} ms, max {max(latencies):.1f} ms"
    return f"{name}: {shown}, {missed} missed"


def adopt(library: Path, music: Path) -> None:
    """Put the files of a library below a folder, as hard links where possible, else as copies."""
    try:
        shutil.copytree(library, music / "library", copy_function=os.link)
    except OSError:
        shutil.rmtree(music / "library", ignore_errors=True)
        shutil.copytree(library, music / "library")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--library", type=Path)
    parser.add_argument("--during-import", action="store_true")
    parser.add_argument("--drops", type=int, default=200)
    parser.add_argument("--albums", type=int, default=20)
    parser.add_argument("--songs", type=int, default=20)
    arguments = parser.parse_args()
    with running() as daemon:
        if arguments.library:
            adopt(arguments.library, daemon.music)
            count = sum(len(files) for _folder, _folders, files in os.walk(arguments.library))
            if arguments.during_import:
                until(lambda: daemon.count() > 0)
                print(f"while {count} files are imported:")
            else:
                until(lambda: daemon.count() >= count, 600)
                time.sleep(12)  # let the work after an import end: a last scan, a checkpoint
                print(f"while {daemon.count()} files are watched:")
        dropped, missed = single_drops(daemon, arguments.drops)
        print(figures(f"{arguments.drops} single drops, close to row", dropped, missed), flush=True)
        whole, incomplete = albums(daemon, arguments.albums, arguments.songs, arguments.drops - missed)
        print(figures(f"{arguments.albums} albums of {arguments.songs}, last close to last row", whole, incomplete))
    sys.exit(1 if missed or incomplete else 0)


if __name__ == "__main__":
    main()
