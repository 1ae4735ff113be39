"""Runs many watchers on one PostgreSQL, and kills connections at random: each file and artist must be added once.

    python benchmarks/watchers.py [--watchers 8] [--files 40000] [--artists 500] [--no-kill]

Imports one folder with one `soulspot watch` for comparison, then a folder each with many at once; prints the rates, and
counts what the catalogue holds in the end.
"""

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from postgres import USUAL, new_catalogue
from tests.conftest import write_song
from tests.support.postgres_server import Server, new_server

KILL = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'bench' AND pid <> pg_backend_pid()"
CHECKS = {
    "files": "SELECT count(*) FROM files WHERE status = 'catalogued'",
    "artists": "SELECT count(*) FROM artists",
    "track_added": "SELECT count(*) FROM audit_log WHERE action = 'track_added'",
    "tracks with one track_added": "SELECT count(DISTINCT entity_id) FROM audit_log WHERE action = 'track_added'",
    "artist_added": "SELECT count(*) FROM audit_log WHERE action = 'artist_added'",
}


def make_songs(place: Path, watchers: int, files: int, artists: int) -> list[Path]:
    songs = []
    for number in range(artists):
        tags = {"title": f"T{number}", "artist": f"Artist {number}", "album": f"Album {number}"}
        songs.append(write_song(place / "songs" / f"{number}.mp3", **tags))
    folders = [place / f"root{number}" for number in range(watchers)]
    for number in range(files):
        song = songs[number // watchers % artists]  # all watchers meet the same new artist at once
        target = folders[number % watchers] / str(number // watchers // 100) / f"{number}.mp3"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(song, target)
    return folders


def run(server: Server, folders: list[Path], expected: int, *, kill: bool) -> tuple[float, int]:
    """Import with one watcher per folder; return files a second, and the number of killed connections."""
    url = server.socket_url(new_catalogue(server, "bench"))
    environment = os.environ | {"SOULSPOT_DATABASE__URL": url, "SOULSPOT_LOG__LEVEL": "error"}
    environment |= {"SOULSPOT_DATABASE__CONNECTIONS": "4"}
    began, killed = time.monotonic(), 0
    command = [sys.executable, "-m", "soulspot", "watch"]
    watchers = [subprocess.Popen([*command, str(folder)], env=environment) for folder in folders]
    try:
        with server.connect("bench") as connection:
            while (count := connection.execute(CHECKS["files"].encode()).fetchall()[0][0]) < expected:
                ended = [watcher.returncode for watcher in watchers if watcher.poll() is not None]
                if ended:
                    sys.exit(f"a watcher ended with {ended} at {count} files")
                time.sleep(random.uniform(0.2, 1))
                if kill and count:
                    killed += len(connection.execute(f"{KILL} ORDER BY random() LIMIT 1".encode()).fetchall())
        return expected / (time.monotonic() - began), killed
    finally:
        for watcher in watchers:
            watcher.terminate()
        for watcher in watchers:
            watcher.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--watchers", type=int, default=8)
    parser.add_argument("--files", type=int, default=40_000)
    parser.add_argument("--artists", type=int, default=500)
    parser.add_argument("--no-kill", action="store_true")
    asked = parser.parse_args()
    server = new_server(**USUAL)
    try:
        with tempfile.TemporaryDirectory() as place:
            folders = make_songs(Path(place), asked.watchers, asked.files, asked.artists)
            share = asked.files // asked.watchers
            alone, _killed = run(server, folders[:1], share, kill=False)
            print(f"one watcher   {share:7,} files  {alone:6,.0f} files/s")
            together, killed = run(server, folders, asked.files, kill=not asked.no_kill)
            rate = f"{together:6,.0f} files/s, {killed} connections killed"
            print(f"{asked.watchers} watchers    {asked.files:7,} files  {rate}")
            with server.connect("bench") as connection:
                for name, query in CHECKS.items():
                    print(f"{name:<28} {connection.execute(query.encode()).fetchall()[0][0]:,}")
    finally:
        server.close()


if __name__ == "__main__":
    main()
