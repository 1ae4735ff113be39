"""Compares soulspot's first import with that of other music servers, on the same files in one run.

    python benchmarks/peers.py [--files 10000] [--cover-share 0.5] [--library FOLDER] [--only minidlna,mpd]

Measures the servers that are installed, each in a scratch folder without a catalogue, with a warm page cache, from the
start of its process until its catalogue has the last file:

    minidlna     apt install minidlna                     polls its database, which it never syncs to disk
    mpd          apt install mpd                          fills a new database when it starts; polls its protocol
    beets        pip install beets                        `beet import -A -C -W -q`: copies and writes nothing
    supysonic    pip install supysonic 'watchdog<7'       `supysonic-cli folder scan`; newer watchdogs find nothing

Commands are searched on the PATH and beside this interpreter. Some skip formats, which their number of rows shows.
"""

import argparse
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import mutagen
from library import songs_in, write_library

GIVE_UP_AFTER = 900.0
QUIET = 3.0
"""Seconds without a new row after which an import that skips files counts as done."""


class UnusableError(Exception):
    """A server is installed but does not work."""


def found(command: str) -> str | None:
    return shutil.which(command) or shutil.which(
        command, path=f"{Path(sys.executable).parent}:/usr/sbin:/usr/local/sbin"
    )


@contextmanager
def running(command: list[str], folder: Path, **environment: str) -> Iterator["subprocess.Popen[bytes]"]:
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, env=os.environ | environment)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def until_filled(process: "subprocess.Popen[bytes]", count: Callable[[], int], expected: int) -> tuple[float, int]:
    """Return when the last row appeared, on the monotonic clock, and how many there were."""
    rows, last = 0, time.monotonic()
    deadline = last + GIVE_UP_AFTER
    while rows < expected and time.monotonic() < deadline and process.poll() is None:
        if (now := count()) != rows:
            rows, last = now, time.monotonic()
        elif rows and time.monotonic() - last > QUIET:
            break
        time.sleep(0.02)
    if not rows:
        msg = "it imported nothing"
        raise UnusableError(msg)
    return last, rows


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def rows_of(database: Path, query: str) -> int:
    """Return the result of a query without locking out the writer; 0 while there is no database."""
    with suppress(sqlite3.Error):
        connection = sqlite3.connect(f"file:{database}?mode=ro&immutable=1", uri=True)
        try:
            return int(connection.execute(query).fetchone()[0])
        finally:
            connection.close()
    return 0


def soulspot(library: Path, folder: Path, _expected: int) -> tuple[float, int]:
    database = folder / "soulspot.db"
    command = [sys.executable, "-m", "soulspot", "scan", str(library)]
    began = time.monotonic()
    environment = os.environ | {"SOULSPOT_DATABASE__URL": f"sqlite+aiosqlite:///{database}"}
    subprocess.run(command, check=True, capture_output=True, env=environment)
    seconds = time.monotonic() - began
    with sqlite3.connect(database) as connection:
        return seconds, int(connection.execute("SELECT count(*) FROM tracks").fetchone()[0])


def minidlna(library: Path, folder: Path, expected: int) -> tuple[float, int]:
    (folder / "minidlna.conf").write_text(
        f"media_dir=A,{library}\ndb_dir={folder}\nlog_dir={folder}\nport={free_port()}\ninotify=no\nfriendly_name=benchmark\n"
    )
    command = [found("minidlnad") or "", "-S", "-f", f"{folder}/minidlna.conf", "-P", f"{folder}/pid"]
    query = "SELECT count(*) FROM DETAILS WHERE MIME LIKE 'audio/%'"
    began = time.monotonic()
    with running(command, folder) as process:
        last, rows = until_filled(process, lambda: rows_of(folder / "files.db", query), expected)
    return last - began, rows


def mpd(library: Path, folder: Path, expected: int) -> tuple[float, int]:
    address = folder / "mpd.socket"
    (folder / "mpd.conf").write_text(
        f'music_directory "{library}"\ndb_file "{folder}/db"\nbind_to_address "{address}"\n'
        'auto_update "no"\naudio_output {\n type "null"\n name "none"\n}\n'
    )

    def count() -> int:
        with suppress(OSError, ValueError), socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(address))
            connection.sendall(b"status\nstats\nclose\n")
            answer = dict(line.split(": ", 1) for line in connection.makefile().read().splitlines() if ": " in line)
            return (
                0 if "updating_db" in answer else int(answer.get("songs", 0))
            )  # during an update the count may be stale
        return 0

    began = time.monotonic()
    with running([found("mpd") or "", "--no-daemon", f"{folder}/mpd.conf"], folder) as process:
        last, rows = until_filled(process, count, expected)
    return last - began, rows


def beets(library: Path, folder: Path, _expected: int) -> tuple[float, int]:
    (folder / "config.yaml").write_text(f"library: {folder}/library.db\ndirectory: {library}\nplugins: []\n")
    command = [found("beet") or "", "-c", f"{folder}/config.yaml", "import", "-A", "-C", "-W", "-q", str(library)]
    began = time.monotonic()
    subprocess.run(command, check=True, capture_output=True, env=os.environ | {"BEETSDIR": str(folder)})
    return time.monotonic() - began, rows_of(folder / "library.db", "SELECT count(*) FROM items")


def supysonic(library: Path, folder: Path, _expected: int) -> tuple[float, int]:
    database = folder / "supysonic.db"
    (folder / "supysonic.conf").write_text(f"[base]\ndatabase_uri = sqlite:///{database}\n")
    command = found("supysonic-cli") or ""
    subprocess.run([command, "folder", "add", "library", str(library)], cwd=folder, check=True, capture_output=True)
    began = time.monotonic()
    scan = [command, "folder", "scan", "--foreground", "library"]
    subprocess.run(scan, cwd=folder, check=True, capture_output=True)
    return time.monotonic() - began, rows_of(database, "SELECT count(*) FROM track")


Measure = Callable[[Path, Path, int], tuple[float, int]]
"""Takes a library, a scratch folder and the number of files; returns the seconds and the number of rows."""

PEERS = {"minidlna": (minidlna, "minidlnad"), "mpd": (mpd, "mpd"), "beets": (beets, "beet")}
PEERS["supysonic"] = (supysonic, "supysonic-cli")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=10_000, help="files in the library that is made")
    parser.add_argument("--cover-share", type=float, default=0.5)
    parser.add_argument("--library", type=Path, help="use this one instead; it is only read")
    parser.add_argument("--only", default=",".join(PEERS), help="the servers to measure, separated by commas")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soulspot-peers-") as scratch:
        library = options.library or Path(scratch) / "library"
        if options.library is None:
            write_library(library, options.files, cover_share=options.cover_share)
        songs = songs_in(library)
        for path in songs:
            mutagen.File(path)  # into the page cache
        print(f"{len(songs):,} files, page cache warm, {os.cpu_count()} cores")
        print(f"{'':<12}{'rows':>8}{'seconds':>10}{'files/s':>10}{'× soulspot':>12}")
        ours = measured("soulspot", soulspot, library, Path(scratch))
        show("soulspot", ours, None)
        for name in options.only.split(","):
            measure, command = PEERS[name]
            if found(command) is None:
                print(f"{name:<12}not installed")
            else:
                show(name, measured(name, measure, library, Path(scratch)), ours)


def measured(name: str, measure: Measure, library: Path, scratch: Path) -> tuple[float, int] | None:
    """Return the seconds and the number of rows; on a failure, print the reason and return None."""
    folder = scratch / name
    folder.mkdir()
    try:
        return measure(library, folder, len(songs_in(library)))
    except (UnusableError, OSError, subprocess.CalledProcessError) as error:
        output = (getattr(error, "stderr", None) or b"").decode(errors="replace")[-200:]
        print(f"{name:<12}failed: {error} {output}")
        return None


def show(name: str, taken: tuple[float, int] | None, ours: tuple[float, int] | None) -> None:
    if taken is not None:
        seconds, rows = taken
        share = f"{rows / seconds / (ours[1] / ours[0]):.2f}" if ours is not None else ""
        print(f"{name:<12}{rows:>8,}{seconds:>10.2f}{rows / seconds:>10,.0f}{share:>12}", flush=True)


if __name__ == "__main__":
    main()
