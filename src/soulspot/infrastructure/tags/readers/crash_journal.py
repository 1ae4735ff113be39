"""The crash journal, `<database>.reading`: the files being read, kept where it survives the readers and the daemon.

Each reader has a slot in the file and overwrites it with the path that it reads next. A path that is still in a slot at
the next start either crashed the daemon, or was being read when something else did. Behind the slots the file keeps,
as JSON, how often each path was found there. Nothing is synced: after a power cut a path may be blamed once too often
or not at all, and soulspot gives a path up only after three crashes.
"""

import contextlib
import errno
import fcntl
import json
import os
import struct
from collections import Counter
from typing import Final

from soulspot.infrastructure.filesystem import path_to_text, text_to_path
from soulspot.infrastructure.private_files import READ_LIMIT, hand_over, open_private

SLOTS: Final = 64
MAX_CRASHES: Final = 3
"""Crashes while reading one file after which soulspot stops reading it."""

_SLOT_SIZE: Final = 8192
_LENGTH: Final = struct.Struct("<H")
_EMPTY: Final = _LENGTH.pack(0)


class Slot:
    """A reader process's own slot of the journal."""

    def __init__(self, file: str, number: int) -> None:
        self._descriptor = open_private(file, os.O_WRONLY)
        self._offset = number * _SLOT_SIZE

    def write(self, path: bytes) -> None:
        _write(self._descriptor, _LENGTH.pack(len(path)) + path, self._offset)

    def clear(self) -> None:
        _write(self._descriptor, _EMPTY, self._offset)


class Journal:
    """The whole journal, held by the process that owns the readers; a lock keeps other processes out.

    Raises OSError if the file cannot be opened or another process holds it.

    Attributes:
        crashes: how often soulspot crashed while reading a path, by path.

    """

    def __init__(self, file: str) -> None:
        self.file = file
        self._descriptor = open_private(file, os.O_RDWR | os.O_CREAT, 0o640)
        hand_over(self._descriptor, os.path.dirname(file))
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._descriptor)
            raise OSError(errno.EAGAIN, "another soulspot process holds it", file) from error
        content = os.pread(self._descriptor, SLOTS * _SLOT_SIZE + READ_LIMIT, 0)
        self.crashes = _parse_counts(content[SLOTS * _SLOT_SIZE :])
        paths = [_parse_slot(content[slot * _SLOT_SIZE : (slot + 1) * _SLOT_SIZE]) for slot in range(SLOTS)]
        self.crashes.update(filter(None, paths))
        if any(paths) or len(content) < SLOTS * _SLOT_SIZE:
            self._write_counts()  # before the slots are cleared: a crash in between counts twice, not never
            for slot in range(SLOTS):
                self.clear(slot)

    def clear(self, slot: int) -> None:
        """Clear the slot of a reader that ended without taking the daemon down."""
        _write(self._descriptor, _EMPTY, slot * _SLOT_SIZE)

    def forget(self, path: str) -> None:
        """Forget the crashes of a path that has been read since."""
        if self.crashes.pop(path, None) is not None:
            self._write_counts()

    def close(self) -> None:
        os.close(self._descriptor)

    def _write_counts(self) -> None:
        content = json.dumps({path_to_text(path): count for path, count in self.crashes.items()}).encode()
        with contextlib.suppress(OSError):
            os.ftruncate(self._descriptor, SLOTS * _SLOT_SIZE)  # a shorter text must not leave the end of a longer one
        _write(self._descriptor, content, SLOTS * _SLOT_SIZE)


def _write(descriptor: int, content: bytes, offset: int) -> None:
    with contextlib.suppress(OSError):  # the disk is full: lose this entry
        os.pwrite(descriptor, content, offset)


def _parse_slot(slot: bytes) -> str | None:
    if len(slot) < _LENGTH.size:
        return None
    (length,) = _LENGTH.unpack_from(slot)
    return os.fsdecode(slot[_LENGTH.size : _LENGTH.size + length]) or None


def _parse_counts(content: bytes) -> Counter[str]:
    try:
        return Counter({text_to_path(path): int(count) for path, count in json.loads(content or b"{}").items()})
    except (ValueError, TypeError, AttributeError):
        return Counter()  # damaged: start from zero
