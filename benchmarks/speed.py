"""Measures how fast soulspot scans, as ratios to references measured in the same run on the same files.

    python benchmarks/speed.py [--files 10000 [100000]] [--runs 3] [--library FOLDER] [--json FILE] [--guard]

Makes a library, or uses one, then measures by turns, so that other load on the machine slows down all of them:

    bare mutagen      `mutagen.File` on every file, in one process
    bare SQLite       only the rows of the tracks and their audit entries, one transaction a file, through `sqlite3`
    bare walk         `os.scandir` and `os.stat` of every entry
    first import      `soulspot scan` without a database, from the start of the process to its end
    unchanged rescan  `soulspot scan` again
    retag             `soulspot scan` after every file got a new title
    rename            `soulspot scan` after the top folder got a new name

The page cache is warm. Retag and rename change files, so a library given by --library skips them. With several sizes,
each is measured, and the cost of a file is compared from size to size. --guard fails when a ratio is below its bound.
"""

import argparse
import compileall
import itertools
import json
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import mutagen
from library import songs_in, write_library, write_tags

import soulspot

GUARD = {"import / mutagen": 0.15, "import / SQLite": 0.015, "rescan, inside / walk": 0.02}
"""The smallest ratios that CI accepts: at most a third of what a quiet machine reaches."""


def measure(act: Callable[[], object]) -> float:
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


def bare_mutagen(songs: list[str]) -> None:
    code = "import sys, mutagen\nfor path in sys.stdin.read().split('\\0'): mutagen.File(path)"
    subprocess.run([sys.executable, "-c", code], input="\0".join(songs), text=True, check=True)


def bare_sqlite(rows: Sequence[tuple[object, ...]], folder: Path) -> None:
    connection = sqlite3.connect(folder / "bare.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")
    connection.execute(
        "CREATE TABLE tracks (id TEXT PRIMARY KEY, title TEXT, artist TEXT, path TEXT UNIQUE, tags TEXT)"
    )
    connection.execute("CREATE TABLE audit_log (sequence INTEGER PRIMARY KEY, action TEXT, entity_id TEXT, path TEXT)")
    for row in rows:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("INSERT INTO tracks VALUES (?, ?, ?, ?, ?)", row)
        connection.execute("INSERT INTO audit_log VALUES (NULL, 'track_added', ?, ?)", (row[0], row[3]))
        connection.execute("COMMIT")
    connection.close()
    for file in folder.glob("bare.db*"):
        file.unlink()


def bare_walk(folder: Path) -> None:
    unvisited = [str(folder)]
    while unvisited:
        with os.scandir(unvisited.pop()) as entries:
            for entry in entries:
                entry.stat(follow_symlinks=False)
                if entry.is_dir(follow_symlinks=False):
                    unvisited.append(entry.path)


class Soulspot:
    """The installed command, on a catalogue of its own."""

    def __init__(self, state: Path) -> None:
        # As pip does for a wheel; without it each start in a checkout that Python cannot write to compiles everything.
        compileall.compile_dir(os.path.dirname(soulspot.__file__), quiet=1)
        self.database = state / "soulspot.db"
        self.peak = 0  # bytes of memory, PSS of the process and its workers

    def scan(self, folder: Path) -> dict[str, float]:
        """Return the summary of a scan, with the seconds from the start of its process to its end as "whole"."""
        url = {"SOULSPOT_DATABASE__URL": f"sqlite+aiosqlite:///{self.database}"}
        command = [sys.executable, "-m", "soulspot", "scan", "--json", str(folder)]
        began = time.perf_counter()
        with subprocess.Popen(command, env=os.environ | url, stdout=subprocess.PIPE, start_new_session=True) as process:
            memory = Memory(process)
            assert process.stdout is not None
            summary: dict[str, float] = json.loads(process.stdout.read())
            process.wait()
            summary["whole"] = time.perf_counter() - began
        self.peak = max(self.peak, memory.peak())
        if process.returncode != 0:
            sys.exit(f"soulspot scan ended with {process.returncode}")
        return summary

    def forget(self) -> None:
        for file in self.database.parent.glob("soulspot.db*"):
            file.unlink()

    def count(self, query: str) -> int:
        with sqlite3.connect(self.database) as connection:
            return int(connection.execute(query).fetchone()[0])


class Memory:
    """Samples the memory of a session leader and its children until it ends."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self._most = 0
        self._watching = threading.Thread(target=self._watch, args=(process,))
        self._watching.start()

    def peak(self) -> int:
        """Wait for the end; return the highest sample, in bytes of PSS."""
        self._watching.join()
        return self._most

    def _watch(self, process: "subprocess.Popen[bytes]") -> None:
        while process.poll() is None:
            self._most = max(self._most, group_memory(process.pid))
            time.sleep(0.2)


def group_memory(session: int) -> int:
    """Return the PSS of all processes of a session, in bytes: each shared page counts once (proc(5))."""
    total = 0
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.getsid(int(name)) == session:
                lines = Path(f"/proc/{name}/smaps_rollup").read_text().splitlines()
                total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024
        except (OSError, StopIteration):
            continue
    return total


def one_run(library: Path, songs: list[str], state: Path, command: Soulspot, *, may_change: bool) -> dict[str, float]:
    """Return the seconds of each measurement."""
    rows = [(f"{number:036d}", os.path.basename(path), "artist", path, "x" * 200) for number, path in enumerate(songs)]
    command.forget()
    seconds = {
        "mutagen": measure(lambda: bare_mutagen(songs)),
        "SQLite": measure(lambda: bare_sqlite(rows, state)),
        "walk": measure(lambda: bare_walk(library)),
        "import": expected(command.scan(library), added=len(songs)),
    }
    added = "SELECT count(DISTINCT entity_id) FROM audit_log WHERE action = 'track_added'"
    if (counted := command.count(added)) != len(songs):
        sys.exit(f"{counted} of {len(songs)} tracks have an audit entry")
    before = command.count("SELECT max(sequence) FROM audit_log")
    rescan = command.scan(library)
    seconds["rescan"], seconds["rescan, inside"] = expected(rescan, unchanged=len(songs)), rescan["seconds"]
    if command.count("SELECT max(sequence) FROM audit_log") != before:
        sys.exit("a scan that found no change wrote an audit entry")
    if may_change:
        for path in songs:
            write_tags(Path(path), {"title": f"Again {time.time_ns()}"})
        os.sync()
        seconds["retag"] = expected(command.scan(library), updated=len(songs))
        top = next(entry for entry in sorted(library.iterdir()) if entry.is_dir())
        ids = "SELECT count(*) FROM tracks"
        tracks = command.count(ids)
        top.rename(renamed := library / "renamed")
        seconds["rename"] = expected(command.scan(library), moved=len(songs_in(renamed)))
        renamed.rename(top)
        if command.count(ids) != tracks:
            sys.exit("a rename added tracks")
    return seconds


def expected(summary: dict[str, float], **counts: int) -> float:
    """Return the seconds of a scan; exit unless its summary has these counts."""
    if any(summary[kind] != count for kind, count in counts.items()):
        sys.exit(f"expected {counts}, but the scan reports {summary}")
    return summary["whole"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, nargs="+", default=[10_000], help="files in each library that is made")
    parser.add_argument("--cover-share", type=float, default=0.5)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--library", type=Path, help="use this one instead; it is only read")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    parser.add_argument("--guard", action="store_true", help="fail when a ratio is below its bound")
    options = parser.parse_args()
    measured = [measure_library(files, options) for files in ([0] if options.library else options.files)]
    for smaller, larger in itertools.pairwise(measured):
        print_growth(smaller, larger)
    if options.json:
        figures = [asdict(each) for each in measured]
        options.json.write_text(json.dumps(figures[0] if len(figures) == 1 else figures, indent=2))
    ratios = measured[0].ratios
    if options.guard and (low := {name: ratio for name, ratio in ratios.items() if ratio < GUARD.get(name, 0)}):
        sys.exit(f"too slow: {low}, the bounds are {GUARD}")


@dataclass(frozen=True, slots=True)
class Measured:
    """The seconds of each measurement in each run on one library, and the ratios of rates."""

    files: int
    runs: list[dict[str, float]]
    ratios: dict[str, float]
    memory: int  # bytes


def measure_library(files: int, options: argparse.Namespace) -> Measured:
    with tempfile.TemporaryDirectory(prefix="soulspot-speed-") as scratch:
        library, state = options.library or Path(scratch) / "library" / "top", Path(scratch) / "state"
        state.mkdir()
        if options.library is None:
            write_library(library, files, cover_share=options.cover_share)
            library = library.parent
        songs = songs_in(library)
        for path in songs:
            mutagen.File(path)  # into the page cache
        os.sync()  # else the disk writes this out while we measure
        command = Soulspot(state)
        runs = [
            one_run(library, songs, state, command, may_change=options.library is None) for _run in range(options.runs)
        ]
    return Measured(len(songs), runs, report(runs, len(songs), command.peak), command.peak)


def print_growth(smaller: Measured, larger: Measured) -> None:
    """Print the cost of a file in the larger library, as a multiple of that in the smaller one."""

    def cost(measured: Measured, name: str) -> float:
        return statistics.median(run[name] for run in measured.runs) / measured.files

    times = {name: cost(larger, name) / cost(smaller, name) for name in smaller.runs[0] if name != "rename"}
    print(f"cost per file in {larger.files:,}, relative to {smaller.files:,}:", end=" ")
    print(", ".join(f"{name} {ratio:.2f}" for name, ratio in times.items()))


def report(runs: list[dict[str, float]], files: int, peak: int) -> dict[str, float]:
    """Print the table; return the ratios of rates, each the median of the runs."""
    print(f"{files:,} files, {len(runs)} runs, page cache warm, {os.cpu_count()} cores: median (min to max)")
    print(f"{'':<18}{'seconds':>24}{'files/s':>10}")
    for name in runs[0]:
        values = [run[name] for run in runs]
        middle = statistics.median(values)
        spread = f"{middle:.2f} ({min(values):.2f} to {max(values):.2f})"
        print(f"{name:<18}{spread:>24}{files / middle:>10,.0f}")
    pairs = [("import", "mutagen"), ("import", "SQLite"), ("rescan", "walk"), ("rescan, inside", "walk")]
    pairs += [("retag", "import"), ("rename", "walk")]
    ratios = {
        f"{ours} / {reference}": statistics.median(run[reference] / run[ours] for run in runs)
        for ours, reference in pairs
        if ours in runs[0]
    }
    print("ratios of rates:", ", ".join(f"{name} {ratio:.2f}" for name, ratio in ratios.items()))
    print(f"peak memory of the process and its readers: {peak / 1e6:.0f} MB PSS")
    return ratios


if __name__ == "__main__":
    main()
