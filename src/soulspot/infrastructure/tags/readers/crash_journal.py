"""The files in work, noted where that outlives the readers and the daemon: `<database>.reading`.

Each reader has a place of its own in the file and writes there what it is about to read, in place; a path that is found
there at the next start took everything down, or was read when something else did. Behind these places stands, as JSON,
how often that has been so of each path. Nothing here is synced: after a power cut some path may be blamed once too
often or not at all, and it takes three times.
"""

import contextlib
import errno
import fcntl
import json
import os
import struct
from typing import Final

from soulspot.infrastructure.filesystem import path_to_text, text_to_path
from soulspot.infrastructure.private_files import READ_LIMIT, hand_over, open_private

PLACES: Final = 64
DEATHS_LIMIT: Final = 3
"""Times that everything may go down over one file before that is set aside."""

_PLACE: Final = 8192
_LENGTH: Final = struct.Struct("<H")
_NOTHING: Final = _LENGTH.pack(0)


class Note:
    """One reader's place, as the reader has it."""

    def __init__(self, file: str, place: int) -> None:
        self._descriptor = open_private(file, os.O_WRONLY)
        self._offset = place * _PLACE

    def write(self, path: bytes) -> None:
        self._put(_LENGTH.pack(len(path)) + path)

    def clear(self) -> None:
        self._put(_NOTHING)

    def _put(self, content: bytes) -> None:
        _write(self._descriptor, content, self._offset)


class Journal:
    """The whole file, as the process has it that hands out files; no other may meanwhile, whose notes these would be.

    Raises OSError where it cannot be had.

    Attributes:
        deaths: how often everything went down while a path was in work, by path.

    """

    def __init__(self, file: str) -> None:
        self.file = file
        self._descriptor = open_private(file, os.O_RDWR | os.O_CREAT, 0o640)
        hand_over(self._descriptor, os.path.dirname(file))
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._descriptor)
            raise OSError(errno.EAGAIN, "another soulspot keeps it", file) from error
        content = os.pread(self._descriptor, PLACES * _PLACE + READ_LIMIT, 0)
        self.deaths = _counted(content[PLACES * _PLACE :])
        noted = [_noted(content[place * _PLACE : (place + 1) * _PLACE]) for place in range(PLACES)]
        for path in filter(None, noted):
            self.deaths[path] = self.deaths.get(path, 0) + 1
        if any(noted) or len(content) < PLACES * _PLACE:
            self._write_counts()  # first: what is counted twice does less harm than what is not counted
            for place in range(PLACES):
                self.clear(place)

    def clear(self, place: int) -> None:
        """Forget what the reader of a place has in work: it has ended, and not over that."""
        _write(self._descriptor, _NOTHING, place * _PLACE)

    def forgive(self, path: str) -> None:
        """Forget the deaths over a path: it was read."""
        if self.deaths.pop(path, None) is not None:
            self._write_counts()

    def close(self) -> None:
        os.close(self._descriptor)

    def _write_counts(self) -> None:
        content = json.dumps({path_to_text(path): count for path, count in self.deaths.items()}).encode()
        with contextlib.suppress(OSError):
            os.ftruncate(self._descriptor, PLACES * _PLACE)  # a shorter text must not leave the end of a longer one
        _write(self._descriptor, content, PLACES * _PLACE)


def _write(descriptor: int, content: bytes, offset: int) -> None:
    with contextlib.suppress(OSError):  # a full disk: then this is not remembered
        os.pwrite(descriptor, content, offset)


def _noted(place: bytes) -> str | None:
    if len(place) < _LENGTH.size:
        return None
    (length,) = _LENGTH.unpack_from(place)
    return os.fsdecode(place[_LENGTH.size : _LENGTH.size + length]) or None


def _counted(content: bytes) -> dict[str, int]:
    try:
        return {text_to_path(path): int(count) for path, count in json.loads(content or b"{}").items()}
    except (ValueError, TypeError, AttributeError):
        return {}  # damaged: it counts anew
