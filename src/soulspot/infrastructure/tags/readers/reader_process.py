"""The process that runs the tag parsers: reads lists of paths from its input, writes lists of readings to its output.

It imports no database code, so it starts fast. It answers the paths of a list in order, in one or more lists of
readings: a reading waits a few milliseconds at most for the next one, because each write wakes up the daemon.
"""

import os
import sys
import time

import mutagen

from soulspot.infrastructure import tags
from soulspot.infrastructure.filesystem import ignore_lease_signals
from soulspot.infrastructure.privileges import SAME_USER, become, import_everything
from soulspot.infrastructure.tags.model import Reading
from soulspot.infrastructure.tags.reader import read_file
from soulspot.infrastructure.tags.readers.crash_journal import Slot
from soulspot.infrastructure.tags.readers.frames import decode_paths, frame, requests

BATCH_SECONDS = 0.003
"""Seconds to collect results before writing them as one batch."""


def main() -> None:
    memory_limit, owner, *journal = sys.argv[1:]
    if owner != SAME_USER:
        import_everything(tags, mutagen)  # the owner of the catalogue may not be able to read them
        become(owner)
    ignore_lease_signals()
    slot = Slot(journal[0], int(journal[1])) if journal else None
    for request in requests(int(memory_limit)):
        _answer(decode_paths(request), slot)


def _answer(paths: list[bytes], slot: Slot | None) -> None:
    readings: list[Reading] = []
    began = time.monotonic()
    for path in paths:
        if slot is not None:
            slot.write(path)
        readings.append(read_file(os.fsdecode(path)))
        if time.monotonic() - began > BATCH_SECONDS:
            _write(readings)
            readings, began = [], time.monotonic()
    if slot is not None:
        slot.clear()
    _write(readings)


def _write(readings: list[Reading]) -> None:
    if readings:
        sys.stdout.buffer.write(frame(readings))
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
