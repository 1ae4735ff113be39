"""Reads a file by position, and finds the tags that surround the stream of any format."""

import io
import os
import struct
from collections.abc import Iterator
from typing import Any

HEAD = 4096
"""Bytes at the start, read once for all parsers."""
_READ_AHEAD = 2048
_ID3_HEADER = 10
_ID3V1 = 128
_APE_FOOTER = 32
_LYRICS_FOOTER = 15
_MAX_TAGS = 8  # in a row at one end


class OpenFile(io.FileIO):
    """A file that keeps the last error of its disk, because a parser may swallow it."""

    fault: OSError | None = None

    def pread(self, length: int, offset: int) -> bytes:
        """Return the bytes at an offset, fewer if the file ends before."""
        try:
            return os.pread(self.fileno(), length, offset)
        except OSError as error:
            self.fault = error
            raise

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401 - the base class's
        try:
            return super().readinto(buffer)
        except OSError as error:
            self.fault = error
            raise

    def readall(self) -> bytes:
        try:
            return super().readall()
        except OSError as error:
            self.fault = error
            raise


class Source:
    """An open file of `size` bytes; `leading` lists offset and length of leading ID3v2 tags, `start` is their end."""

    __slots__ = ("_file", "_trailing", "_window", "_window_at", "head", "leading", "size", "start")

    def __init__(self, file: OpenFile, size: int) -> None:
        self._file = file
        self.size = size
        self.head = file.pread(HEAD, 0)
        self._window = b""
        self._window_at = 0
        self._trailing: list[tuple[str, int, int]] | None = None
        self.start = 0
        self.leading: list[tuple[int, int]] = []
        while len(self.leading) < _MAX_TAGS and (length := id3_length(self.at(self.start, _ID3_HEADER))):
            self.leading.append((self.start, length))
            self.start += length

    def at(self, offset: int, length: int) -> bytes:
        """Return the bytes at an offset, fewer if the file ends before."""
        if offset < 0 or length <= 0 or offset >= self.size:
            return b""
        end = offset + length
        if end <= len(self.head):
            return self.head[offset:end]
        if length > _READ_AHEAD // 4:
            return self._file.pread(length, offset)
        first = offset - self._window_at
        if first < 0 or first + length > len(self._window):
            self._window, self._window_at, first = self._file.pread(_READ_AHEAD, offset), offset, 0
        return self._window[first : first + length]

    @property
    def trailing(self) -> list[tuple[str, int, int]]:
        """Kind, offset and length of the tags at the end (ID3v1, APEv2, Lyrics3, ID3v2), from the last to the first."""
        if self._trailing is None:
            self._trailing = _trailing_tags(self)
        return self._trailing

    @property
    def end(self) -> int:
        """The offset behind the audio, where the tags at the end begin."""
        return self.trailing[-1][1] if self.trailing else self.size


class SpanReader:
    """Reads or skips bytes across spans, such as the pieces of an Ogg packet."""

    def __init__(self, source: Source, spans: Iterator[tuple[int, int]]) -> None:
        self._source = source
        self._spans = spans
        self._at = self._left = 0

    def read(self, length: int) -> bytes:
        if length <= self._left:  # the usual case: within one span
            self._at += length
            self._left -= length
            return self._source.at(self._at - length, length)
        parts = []
        while length > 0 and (self._left or self._next_span()):
            piece = min(length, self._left)
            parts.append(self._source.at(self._at, piece))
            self._at += piece
            self._left -= piece
            length -= piece
        return b"".join(parts)

    def skip(self, length: int) -> None:
        while length > 0 and (self._left or self._next_span()):
            piece = min(length, self._left)
            self._at += piece
            self._left -= piece
            length -= piece

    def _next_span(self) -> bool:
        self._at, self._left = next(self._spans, (0, 0))
        return self._left > 0


def id3_length(header: bytes) -> int:
    """Return the length of the ID3v2 tag that starts here, 0 if there is none."""
    if len(header) < _ID3_HEADER or not header.startswith(b"ID3") or max(header[6:10]) > 0x7F or header[3] == 0xFF:  # noqa: PLR2004
        return 0
    body = header[6] << 21 | header[7] << 14 | header[8] << 7 | header[9]
    return _ID3_HEADER + body + (_ID3_HEADER if header[5] & 0x10 else 0)


def _trailing_tags(source: Source) -> list[tuple[str, int, int]]:
    found: list[tuple[str, int, int]] = []
    end = source.size
    while len(found) < _MAX_TAGS:
        kind, length = _last_tag(source, end)
        if not 0 < length <= end - source.start:
            break
        end -= length
        found.append((kind, end, length))
    return found


def _last_tag(source: Source, end: int) -> tuple[str, int]:
    tail = source.at(max(0, end - _ID3V1), min(_ID3V1, end))
    if len(tail) == _ID3V1 and tail.startswith(b"TAG") and source.at(end - _ID3V1 - 3, 8) != b"APETAGEX":
        extended = source.at(end - _ID3V1 - 227, 4) == b"TAG+"
        return "id3v1", _ID3V1 + (227 if extended else 0)
    if tail[-_APE_FOOTER:].startswith(b"APETAGEX"):
        size, _count, flags = struct.unpack("<III", tail[-20:-8])
        return "ape", int(size) + (_APE_FOOTER if flags & 0x80000000 else 0)
    if tail.endswith(b"LYRICS200") and tail[-_LYRICS_FOOTER:-9].isdigit():
        return "lyrics3", int(tail[-_LYRICS_FOOTER:-9]) + _LYRICS_FOOTER
    if tail[-_ID3_HEADER:].startswith(b"3DI"):
        return "id3v2", id3_length(b"ID3" + tail[-_ID3_HEADER + 3 :])
    return "", 0


def chunks(source: Source, offset: int, layout: struct.Struct, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield name, offset and length of the chunks of a RIFF or AIFF file; `end` limits the length."""
    for _chunk in range(10_000):
        head = source.at(offset, layout.size)
        if len(head) < layout.size:
            return
        name, length = layout.unpack(head)
        offset += layout.size
        yield name, offset, min(length, max(0, end - offset))
        offset += length + (length & 1)
