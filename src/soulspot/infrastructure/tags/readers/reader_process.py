"""The process that runs mutagen: reads lists of paths from its input, writes lists of readings to its output.

It starts light and knows no database. Each list of paths is answered in its order, in as many lists of readings as it
takes: an answer waits for the next one for a few milliseconds at most, since each one that is written on its own wakes
up the other side on its own.
"""

import os
import resource
import signal
import sys
import time

import mutagen

from soulspot.infrastructure import tags
from soulspot.infrastructure.filesystem import ignore_lease_signals
from soulspot.infrastructure.privileges import NOBODY_ELSE, become, import_everything
from soulspot.infrastructure.tags.model import Reading
from soulspot.infrastructure.tags.reader import read_file
from soulspot.infrastructure.tags.readers.crash_journal import Note
from soulspot.infrastructure.tags.readers.frames import LENGTH, decode_paths, frame

HELD_BACK = 0.003
"""Seconds for which an answer waits for others."""


def main() -> None:
    memory_limit = int(sys.argv[1])
    owner, further = sys.argv[2], sys.argv[3:]
    if owner != NOBODY_ELSE:
        import_everything(tags, mutagen)  # the owner of the catalogue may not be able to read them
        become(owner)
    resource.setrlimit(resource.RLIMIT_AS, (memory_limit, memory_limit))
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # whoever started this process ends it, by closing its input
    ignore_lease_signals()
    note = Note(further[0], int(further[1])) if further else None
    source = sys.stdin.buffer
    while len(head := source.read(LENGTH.size)) == LENGTH.size:
        _answer(decode_paths(source.read(LENGTH.unpack(head)[0])), note)


def _answer(paths: list[bytes], note: Note | None) -> None:
    answers: list[Reading] = []
    began = time.monotonic()
    for path in paths:
        if note is not None:
            note.write(path)
        answers.append(read_file(os.fsdecode(path)))
        if time.monotonic() - began > HELD_BACK:
            _write(answers)
            answers, began = [], time.monotonic()
    if note is not None:
        note.clear()
    _write(answers)


def _write(answers: list[Reading]) -> None:
    if answers:
        sys.stdout.buffer.write(frame(answers))
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
