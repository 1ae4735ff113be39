"""A file that is read by position, and the two ends of it that belong to tags whatever the format."""

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass

HEAD = 4096
"""Bytes at the start that are read once, for everyone."""
_ID3_HEADER = 10
_ID3V1 = 128
_APE_FOOTER = 32
_LYRICS_FOOTER = 15
_MOST_TAGS = 8  # in a row at one end; more is a loop that somebody made


@dataclass(slots=True)
class Source:
    """An open file of `size` bytes; `start` is where its leading ID3v2 tags end."""

    descriptor: int
    size: int
    head: bytes = b""
    start: int = 0

    def __post_init__(self) -> None:
        self.head = os.pread(self.descriptor, HEAD, 0)
        for _tag in range(_MOST_TAGS):
            length = id3_length(self.at(self.start, _ID3_HEADER))
            if not length:
                break
            self.start += length

    def at(self, offset: int, length: int) -> bytes:
        """Return the bytes at a place, fewer where the file ends before."""
        end = offset + length
        if offset >= 0 and end <= len(self.head):
            return self.head[offset:end]
        return os.pread(self.descriptor, length, offset) if 0 <= offset < self.size and length > 0 else b""


def id3_length(header: bytes) -> int:
    """Return how long the ID3v2 tag is that starts here, 0 where there is none."""
    if len(header) < _ID3_HEADER or not header.startswith(b"ID3") or max(header[6:10]) > 0x7F or header[3] == 0xFF:  # noqa: PLR2004
        return 0
    body = header[6] << 21 | header[7] << 14 | header[8] << 7 | header[9]
    return _ID3_HEADER + body + (_ID3_HEADER if header[5] & 0x10 else 0)


def end_of_audio(source: Source, end: int | None = None) -> int:
    """Return where the tags at a file's end begin: ID3v1, APEv2, Lyrics3 and an ID3v2 that was put behind."""
    end = source.size if end is None else end
    for _tag in range(_MOST_TAGS):
        length = _length_of_last(source, end)
        if not 0 < length <= end - source.start:
            break
        end -= length
    return end


def _length_of_last(source: Source, end: int) -> int:
    tail = source.at(max(0, end - _ID3V1), min(_ID3V1, end))
    if len(tail) == _ID3V1 and tail.startswith(b"TAG"):
        extended = source.at(end - _ID3V1 - 227, 4) == b"TAG+"
        return _ID3V1 + (227 if extended else 0)
    if tail[-_APE_FOOTER:].startswith(b"APETAGEX"):
        size, _count, flags = struct.unpack("<III", tail[-20:-8])
        return int(size) + (_APE_FOOTER if flags & 0x80000000 else 0)
    if tail.endswith(b"LYRICS200") and tail[-_LYRICS_FOOTER:-9].isdigit():
        return int(tail[-_LYRICS_FOOTER:-9]) + _LYRICS_FOOTER
    if tail[-_ID3_HEADER:].startswith(b"3DI"):
        return id3_length(b"ID3" + tail[-_ID3_HEADER + 3 :])
    return 0


def chunks(source: Source, offset: int, layout: struct.Struct, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield name, place and length of the chunks of a RIFF or AIFF file; a length is cut at `end`."""
    for _chunk in range(10_000):
        head = source.at(offset, layout.size)
        if len(head) < layout.size:
            return
        name, length = layout.unpack(head)
        offset += layout.size
        yield name, offset, min(length, max(0, end - offset))
        offset += length + (length & 1)
