"""Counts the files that the daemon misses in storms of file operations: one line each, exit 1 if it misses any.

    python benchmarks/storms.py [--files 20000] [--only NAME]...

The periodic scan is set to an hour, so that only the watcher and its repairs find files. A file counts as missed if it
is not in the catalogue once nothing has been added for --patience seconds.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from daemon import Daemon, running, song
from tests.support.http_endpoints import ask, free_port

SETTINGS = {"SOULSPOT_LIBRARY__RECONCILE_INTERVAL": "3600", "SOULSPOT_LOG__LEVEL": "info"}


def make_tree(folder: Path, files: int, content: bytes, *, per_folder: int = 18) -> Path:
    """Write a tree of songs, three levels deep."""
    for number in range(files):
        place = folder / f"a{number // per_folder // 20}" / f"b{number // per_folder % 20}"
        if number % per_folder == 0:
            place.mkdir(parents=True, exist_ok=True)
        (place / f"{number}.mp3").write_bytes(content)
    return folder


def cp_r(music: Path, source: Path, files: int) -> int:
    subprocess.run(["cp", "-r", f"{source}/.", str(music)], check=True)
    return files


def eight_cp_r(music: Path, source: Path, files: int) -> int:
    parts = sorted(source.iterdir())
    copies = [
        subprocess.Popen(["cp", "-r", *map(str, parts[number::8]), str(music)])
        for number in range(8)
        if parts[number::8]
    ]
    for copy in copies:
        copy.wait()
    return files


def tar(music: Path, source: Path, files: int) -> int:
    pack = subprocess.Popen(["tar", "-C", str(source), "-cf", "-", "."], stdout=subprocess.PIPE)
    subprocess.run(["tar", "-C", str(music), "-xf", "-"], stdin=pack.stdout, check=True)
    return files


def moved_tree(music: Path, source: Path, files: int) -> int:
    copy = source.with_name("moved")
    shutil.copytree(source, copy)
    copy.rename(music / "moved")
    return files


def mkdir_p(music: Path, _source: Path, _files: int) -> int:
    content = song()
    for number in range(300):
        folder = music / f"x{number}" / "y" / "z"
        os.makedirs(folder)
        (folder / "song.mp3").write_bytes(content)
    return 300


def renamed_folder(music: Path, _source: Path, _files: int) -> int:
    content = song()
    for number in range(200):
        folder = music / f"old{number}"
        folder.mkdir()
        time.sleep(0.01)
        folder.rename(music / f"new{number}")
        (music / f"new{number}" / "song.mp3").write_bytes(content)
    return 200


def overflow(music: Path, _source: Path, files: int) -> int:
    """Create small files from six processes, as fast as they can."""
    each = files
    script = (
        "import os, sys\n"
        "folder, number, count = sys.argv[1], sys.argv[2], int(sys.argv[3])\n"
        "content = b'no audio, and short'\n"
        "for n in range(count):\n"
        "    d = os.open(f'{folder}/{number}-{n}.mp3', os.O_WRONLY | os.O_CREAT, 0o644)\n"
        "    os.write(d, content); os.close(d)\n"
    )
    writers = [
        subprocess.Popen([sys.executable, "-c", script, str(music), str(number), str(each)]) for number in range(6)
    ]
    for writer in writers:
        writer.wait()
    return 6 * each


STORMS: dict[str, Callable[[Path, Path, int], int]] = {
    "cp-r": cp_r,
    "8-cp-r": eight_cp_r,
    "tar": tar,
    "moved-tree": moved_tree,
    "mkdir-p": mkdir_p,
    "renamed-folder": renamed_folder,
    "overflow": overflow,
}


def run_storm(name: str, source: Path, files: int, patience: float) -> int:
    port = free_port()
    with running(None, **SETTINGS, SOULSPOT_METRICS__LISTEN=f"127.0.0.1:{port}") as daemon:
        began = time.monotonic()
        expected = STORMS[name](daemon.music, source, files)
        made = time.monotonic() - began
        missed = wait_for(daemon, expected, patience)
        seconds = time.monotonic() - began
        overflows, found_late, restarts = repairs(ask(port, "/metrics").text)
    figures = f"{expected} files, made in {made:.1f} s, catalogued after {seconds:.1f} s, missed {missed}"
    print(f"{name:<15} {figures} (overflows {overflows}, found late {found_late}, restarts {restarts})", flush=True)
    return missed


def repairs(metrics: str) -> list[int]:
    """Return how often the watcher repaired something, by the daemon's own metrics."""
    names = [f"soulspot_watcher_{each}_total" for each in ("overflows", "missed", "restarts")]
    values = dict(line.rsplit(" ", 1) for line in metrics.splitlines() if not line.startswith("#"))
    return [round(float(values[name])) for name in names]


def wait_for(daemon: Daemon, expected: int, patience: float) -> int:
    """Wait until all files are known, or no new one for `patience` seconds; return how many are missing."""
    known, since = -1, time.monotonic()
    while time.monotonic() - since < patience:
        now = daemon.count("status IN ('catalogued', 'failed')")
        if now >= expected:
            return expected - now
        if now != known:
            known, since = now, time.monotonic()
        time.sleep(0.2)
    return expected - known


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--files", type=int, default=20_000, help="files in the tree, and per writer in the overflow storm"
    )
    parser.add_argument("--only", action="append", choices=STORMS)
    parser.add_argument("--patience", type=float, default=20.0, metavar="SECONDS")
    arguments = parser.parse_args()
    missed = 0
    with tempfile.TemporaryDirectory(prefix="soulspot-storm-", dir=os.environ.get("SCRATCH")) as place:
        source = make_tree(Path(place) / "source", arguments.files, song())
        for name in arguments.only or STORMS:
            missed += abs(run_storm(name, source, arguments.files, arguments.patience))
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
