"""Measures what an idle daemon costs: its share of a core, and the memory of all its processes.

    python benchmarks/idle.py --library FOLDER [--seconds 60]
    python benchmarks/idle.py --folders 20000 [--seconds 60]

Memory is PSS, in which shared pages count once, so that the processes add up.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

from daemon import running, song, until


def make_folders(place: Path, folders: int) -> Path:
    content = song()
    for number in range(folders):
        folder = place / f"a{number // 20}" / f"b{number % 20}"
        folder.mkdir(parents=True)
        if number % 20 == 0:
            (folder / "song.mp3").write_bytes(content)
    return place


def measure(music: Path, seconds: float) -> None:
    files = sum(len(names) for _folder, _folders, names in os.walk(music))
    folders = sum(1 for _each in os.walk(music))
    with running(music) as daemon:
        until(lambda: daemon.count("status IN ('catalogued', 'failed')") >= files, 900, every=0.5)
        time.sleep(12)  # let the work after an import end: a last scan, a checkpoint
        before, began = daemon.cpu_seconds(), time.monotonic()
        time.sleep(seconds)
        share = (daemon.cpu_seconds() - before) / (time.monotonic() - began)
        memory, processes = daemon.pss_megabytes(), len(daemon.processes())
    print(f"{files} files in {folders} folders: {share:.2%} of a core over {seconds:g} s,", end=" ")
    print(f"{memory:.0f} MB PSS in {processes} processes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--library", type=Path)
    parser.add_argument("--folders", type=int)
    parser.add_argument("--seconds", type=float, default=60.0)
    arguments = parser.parse_args()
    if arguments.library:
        measure(arguments.library, arguments.seconds)
    if arguments.folders:
        with tempfile.TemporaryDirectory(prefix="soulspot-idle-", dir=os.environ.get("SCRATCH")) as place:
            measure(make_folders(Path(place), arguments.folders), arguments.seconds)


if __name__ == "__main__":
    main()
