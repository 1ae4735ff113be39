"""Fuzzes the tag reader: damages files as disks, networks and people do; each must end as tags or as a failure.

    python -m tests.support.fuzz_tags [--files 20000] [--seed 1] [--workers-share 0.2] [--keep FOLDER]

The samples are the templates, bare and tagged, and bombs that are built here. A mutant that is read wrongly is printed
with its seed, which repeats the run, and kept with --keep. For a run of hours: `--files 10000000`.
"""

import argparse
import asyncio
import faulthandler
import itertools
import math
import os
import random
import resource
import shutil
import struct
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import msgspec

from soulspot.infrastructure.tags import Reading, TrackTags
from soulspot.infrastructure.tags.reader import read_file
from soulspot.infrastructure.tags.readers.pool import TagReaders

from .tag_table import AUDIO, FORMATS, ROWS, TEMPLATES, WRITERS

CODES = {"empty", "truncated", "corrupt", "unsupported", "too-large", "timeout", "crashed-parser"}
SIZES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
SLOW = 5.0
"""Seconds that one file may take in this process; more is a fault."""
HUNG = 60.0


def samples(folder: Path) -> dict[str, bytes]:
    """Return small files of every format, bare and with every field written."""
    found = {path.name: path.read_bytes() for path in sorted(AUDIO.glob("tone.*"))}
    for kind in FORMATS:
        for template in TEMPLATES[kind]:
            path = Path(shutil.copy(AUDIO / template, folder / template))
            for row in ROWS:
                if row.name_in(kind):
                    WRITERS[kind](path, row.name_in(kind), row.written)
            found[f"{kind.replace(' ', '-')}-{template}"] = path.read_bytes()
    return found


def bombs() -> dict[str, bytes]:
    """Return files that cost memory, time or recursion."""
    audio = (AUDIO / "tone.mp3").read_bytes()
    nested = b""
    for _depth in range(3000):
        nested = struct.pack(">I4s", len(nested) + 8, b"moov") + nested
    mp4 = (AUDIO / "tone.m4a").read_bytes()
    compressed = zlib.compress(bytes(64 << 20))
    frame = b"TIT2" + struct.pack(">IH", len(compressed) + 4, 0x0080) + struct.pack(">I", 64 << 20) + compressed
    flac = (AUDIO / "tone.flac").read_bytes()
    comments = struct.pack("<II", 0, 60_000) + b"".join(
        struct.pack("<I", 9) + b"A%05d=ab" % number for number in range(60_000)
    )
    return {
        "many-frames.mp3": id3(b"".join(text_frame(b"TXXX", b"\0n%d\0v" % each) for each in range(40_000)), 4) + audio,
        "many-frames-2.3.mp3": id3(b"".join(text_frame(b"TXXX", b"\0n\0v") for _ in range(40_000)), 3) + audio,
        "zlib.mp3": id3(frame, 3) + audio,
        "claims.mp3": b"ID3\3\0\0\x7f\x7f\x7f\x7f" + text_frame(b"TIT2", b"\0title"),
        "nested.m4a": mp4[:32] + nested,
        "many-comments.flac": flac[:42]
        + b"\x84" + struct.pack(">I", len(comments))[1:] + comments,
        "megabyte.mp3": id3(text_frame(b"TIT2", b"\3" + b"x" * (1 << 20)), 3) + audio,
        "zeros.mp3": bytes(1 << 20),
        "syncs.mp3": b"\xff\xfb\x90\x00" * 200_000,
        "ones.ogg": b"OggS" + b"\xff" * 100_000,
        "pages.ogg": (b"OggS\0\2" + bytes(20) + b"\0") * 50_000,
        "chunks.wav": b"RIFF\xff\xff\xff\xffWAVE" + b"LIST\0\0\0\0" * 100_000,
        "apes.mp3": audio + b"APETAGEX" + struct.pack("<IIII8x", 2000, 0xFFFFFFF0, 0xFFFFFFFF, 0),
    }  # fmt: skip


def id3(frames: bytes, version: int) -> bytes:
    size = len(frames)
    return b"ID3" + bytes((version, 0, 0, size >> 21 & 127, size >> 14 & 127, size >> 7 & 127, size & 127)) + frames


def text_frame(name: bytes, body: bytes) -> bytes:
    size = len(body)  # synchsafe and plain are the same below 128
    return name + struct.pack(">IH", size, 0) + body


def mutants(seed: int) -> Iterator[tuple[str, bytes]]:
    """Yield names and contents without end: bombs, samples cut at each byte, random damage."""
    with tempfile.TemporaryDirectory() as folder:
        all_samples = samples(Path(folder))
    yield from bombs().items()
    chance = random.Random(seed)
    names = sorted(all_samples)
    cuts = [(name, place) for name in names for place in range(min(len(all_samples[name]), 3000))]
    chance.shuffle(cuts)
    for number in itertools.count():
        if number % 3 == 0 and cuts:
            name, place = cuts.pop()
            yield name, all_samples[name][:place]
        else:
            name = chance.choice(names)
            yield name, damaged(all_samples[name], all_samples[chance.choice(names)], chance)


def damaged(content: bytes, other: bytes, chance: random.Random) -> bytes:
    changed = bytearray(content)
    for _change in range(chance.choice((1, 1, 2, 5, 20))):
        # Most faults are near the start, where the tags are.
        place = min(int(chance.expovariate(1 / 400)), len(changed) - 8) if chance.random() < 0.7 else chance.randrange(
            max(1, len(changed) - 8)
        )  # fmt: skip
        place = max(0, place)
        match chance.randrange(7):
            case 0:
                changed[place] ^= 1 << chance.randrange(8)
            case 1:
                changed[place] = chance.randrange(256)
            case 2:
                changed[place : place + 4] = struct.pack(chance.choice("<>") + "I", chance.choice(SIZES))
            case 3:
                del changed[place : place + chance.choice((1, 2, 4, 100))]
            case 4:
                changed[place:place] = bytes(chance.randrange(256) for _ in range(chance.choice((1, 4, 40))))
            case 5:
                start = chance.randrange(max(1, len(other)))
                changed[place:place] = other[start : start + chance.choice((10, 100, 1000))]
            case _:
                changed = changed[: max(place, 1)] if chance.random() < 0.3 else changed + changed[place:]
        if len(changed) < 16:
            break
    return bytes(changed)


def faults(name: str, reading: Reading) -> list[str]:
    """Return what is wrong with a reading."""
    if reading.failure is not None:
        wrong = [] if reading.failure.code in CODES else [f"code {reading.failure.code}"]
        return wrong + ([] if is_text(reading.failure.message) else ["the message is not text"])
    if reading.tags is None:
        return ["neither tags nor a failure"]
    found = [f"{field.name}: {value!r:.200}" for field in fields(TrackTags)
             for value in [getattr(reading.tags, field.name)] if not is_sound(value)]  # fmt: skip
    return found + ([] if msgspec.msgpack.encode(reading) else ["cannot cross the pipe"])


def is_sound(value: Any) -> bool:
    """Whether every database accepts a value."""
    if isinstance(value, str):
        return is_text(value) and bool(value) and len(value) <= 1 << 16
    if isinstance(value, float):
        return math.isfinite(value) and abs(value) < 1e12
    if isinstance(value, int):
        return abs(value) < 1 << 31
    if isinstance(value, tuple):
        return all(is_sound(each) or each == "" for each in value)
    if isinstance(value, dict):
        return all(is_sound(name) and is_sound(values) for name, values in value.items())
    return True


def is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text


def in_process(folder: Path, batch: list[tuple[str, bytes]]) -> Iterator[tuple[str, bytes, Reading, float]]:
    """Read in this process, one by one; a file that hangs ends the run with a traceback, and stays in the folder."""
    for name, content in batch:
        path = folder / name
        path.write_bytes(content)
        faulthandler.dump_traceback_later(HUNG, exit=True)
        began = time.monotonic()
        reading = read_file(str(path))
        yield name, content, reading, time.monotonic() - began
    faulthandler.cancel_dump_traceback_later()


async def through_workers(folder: Path, batch: list[tuple[str, bytes]]) -> list[tuple[str, bytes, Reading, float]]:
    paths = []
    for number, (name, content) in enumerate(batch):
        path = folder / f"{number}-{name}"
        path.write_bytes(content)
        paths.append(str(path))
    async with TagReaders(2, time_limit=10.0) as readers:
        readings = await asyncio.gather(*(readers.read(path) for path in paths))
    return [(name, content, reading, 0.0) for (name, content), reading in zip(batch, readings, strict=True)]


def run(files: int, seed: int, workers_share: float, keep: Path | None = None) -> tuple[Counter[str], list[str]]:
    """Read `files` mutants; return how many ended how, and a line for each that was read wrongly."""
    ended: Counter[str] = Counter()
    wrong: list[str] = []
    chance = random.Random(seed)
    source = mutants(seed)
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as scratch:
        done = 0
        while done < files:
            batch = list(itertools.islice(source, min(500, files - done)))
            by_workers = chance.random() < workers_share or done == 0  # the first batch has the bombs
            folder = Path(scratch)
            answers = asyncio.run(through_workers(folder, batch)) if by_workers else in_process(folder, batch)
            for name, content, reading, seconds in answers:
                found = faults(name, reading) + ([f"{seconds:.1f} s"] if seconds > SLOW else [])
                ended[reading.failure.code if reading.failure else "tags"] += 1
                if found:
                    number = sum(ended.values())
                    wrong.append(f"{name}, mutant {number} of seed {seed}: {'; '.join(found)}")
                    if keep:
                        keep.mkdir(parents=True, exist_ok=True)
                        (keep / f"{seed}-{number}-{name}").write_bytes(content)
            done += len(batch)
            for path in folder.iterdir():
                path.unlink()
    return ended, wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--workers-share", type=float, default=0.2)
    parser.add_argument("--keep", type=Path)
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    began = time.monotonic()
    ended, wrong = run(options.files, options.seed, options.workers_share, options.keep)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    workers = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss >> 10
    print(f"{sum(ended.values())} files in {time.monotonic() - began:.0f} s: {dict(ended.most_common())}")
    print(f"peak memory {peak} MB here, {workers} MB in a worker; {len(wrong)} read wrongly")
    for each in wrong[:50]:
        print(each)
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
