#!/usr/bin/env python3
"""Compares soulspot's tag reader with bare mutagen, on the same files in one process.

    python benchmarks/reader.py FOLDER [--files 2000] [--rounds 3]

FOLDER holds a music library. The readers take turns, format by format, so that a busy machine slows down both; the best
round of each format and reader counts. soulspot does more: it reads tags that mutagen skips, turns each into a field,
and fingerprints the audio.
"""

import argparse
import os
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import mutagen

from soulspot.infrastructure.tags.reader import read_file

AUDIO = frozenset(("mp3", "flac", "m4a", "ogg", "opus", "wav", "aiff", "wma", "wv", "mpc", "tta"))


def files_of(folder: Path, limit: int) -> dict[str, list[str]]:
    """Return files by extension, taken evenly from the whole folder."""
    found = sorted(
        os.path.join(place, name)
        for place, _folders, names in os.walk(folder)
        for name in names
        if name.rpartition(".")[2] in AUDIO
    )
    by_extension = defaultdict(list)
    for path in found[:: max(1, len(found) // limit)]:
        by_extension[path.rpartition(".")[2]].append(path)
    return dict(sorted(by_extension.items()))


def bare(path: str) -> object:
    try:
        return mutagen.File(path)
    except Exception:  # noqa: BLE001 - collections have broken files
        return None


def seconds(read: Callable[[str], object], paths: list[str]) -> float:
    began = time.perf_counter()
    for path in paths:
        read(path)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    groups = files_of(options.folder, options.files)
    best: dict[tuple[str, str], float] = defaultdict(lambda: float("inf"))
    for number in range(options.rounds + 1):
        for extension, paths in groups.items():
            for name, read in (("mutagen", bare), ("soulspot", read_file)):
                taken = seconds(read, paths)
                if number:  # the first round warms the page cache
                    best[name, extension] = min(best[name, extension], taken)
    print(f"{'':8}{'files':>7}{'mutagen':>12}{'soulspot':>12}   (microseconds per file)")
    for extension, paths in groups.items():
        theirs, ours = (best[name, extension] * 1e6 / len(paths) for name in ("mutagen", "soulspot"))
        print(f"{extension:8}{len(paths):7}{theirs:12.0f}{ours:12.0f}   {theirs / ours:.2f} x")
    number = sum(map(len, groups.values()))
    theirs, ours = (sum(best[name, each] for each in groups) for name in ("mutagen", "soulspot"))
    print(f"mutagen {number / theirs:.0f} files/s, soulspot {number / ours:.0f} files/s: {theirs / ours:.2f} x")


if __name__ == "__main__":
    main()
