"""Ogg: its comment, its stream, and the bytes of its packets, however they are split into pages."""

import struct
from collections.abc import Callable, Iterator
from functools import partial
from hashlib import blake2b
from typing import Any

from soulspot.infrastructure.tags.formats.flac import flac_md5, stream_info
from soulspot.infrastructure.tags.formats.parsed import NeedsMutagenError, Parsed
from soulspot.infrastructure.tags.formats.source import Source, SpanReader
from soulspot.infrastructure.tags.formats.vorbis import read_comment

LONGEST_PAGE = 27 + 255 + 255 * 255
_HEADER = 27
_SHORT_TAIL = 8192
_START, _END = 16384, 2048
"""Bytes to hash at both ends of the audio; its middle cannot be found again once the pages change."""
_MAX_PAGES = 100_000
_MAX_STREAMS = 16
_OPUS_RATE = 48_000  # by definition, RFC 7845
_NO_PACKET_ENDS = b"\xff" * 8


class OggStream:
    """One stream of an Ogg file: reads the header packets one by one, then the bytes of the rest."""

    def __init__(self, source: Source, offset: int) -> None:
        """Start at the page at `offset`."""
        self._source = source
        self.serial = source.at(offset + 14, 4)
        self.next_page = offset
        self._lacing = b""
        self._offset = 0

    def packet(self, limit: int) -> bytes:
        """Return the next packet, cut at `limit` bytes."""
        parts, wanted = [], limit
        for at, length in self._spans():
            if wanted > 0:
                parts.append(self._source.at(at, min(length, wanted)))
                wanted -= length
        return b"".join(parts)

    def skip(self) -> None:
        for _span in self._spans():
            pass

    def reader(self) -> SpanReader:
        """Return a reader of the next packet; read it to its end before you use this stream again."""
        return SpanReader(self._source, self._spans())

    def body(self, length: int) -> bytes:
        """Return the next bytes, across packets."""
        parts = b""
        while len(parts) < length and (self._lacing or self._next_page()):
            rest = sum(self._lacing)
            parts += self._source.at(self._offset, min(rest, length - len(parts)))
            self._lacing = b""
        return parts

    def _spans(self) -> Iterator[tuple[int, int]]:
        """Yield offset and length of each piece of the next packet."""
        while self._lacing or self._next_page():
            full = len(self._lacing) - len(self._lacing.lstrip(b"\xff"))
            ends = full < len(self._lacing)
            length = 255 * full + (self._lacing[full] if ends else 0)
            yield self._offset, length
            self._offset += length
            self._lacing = self._lacing[full + 1 :] if ends else b""
            if ends:
                return

    def _next_page(self) -> bool:
        """Go to the next page of this stream; False at the end."""
        for _page in range(_MAX_PAGES):
            head = self._source.at(self.next_page, _HEADER + 255)
            if len(head) < _HEADER or not head.startswith(b"OggS"):
                return False
            lacing = head[_HEADER : _HEADER + head[26]]
            self._offset = self.next_page + _HEADER + len(lacing)
            self.next_page = self._offset + sum(lacing)
            if lacing and head[14:18] == self.serial:
                self._lacing = lacing
                return True
        return False


class OggEnd:
    """The last pages of a stream, found from the end of the file; reads a few first, and more if needed."""

    def __init__(self, source: Source, serial: bytes) -> None:
        self._source = source
        self._serial = serial
        self._tail = source.at(max(0, source.size - _SHORT_TAIL), _SHORT_TAIL)

    @property
    def granule(self) -> bytes:
        """The raw position of the last packet that ends."""
        return self._search(self._granule)

    def body(self, length: int) -> bytes:
        """Return the last bytes of the stream's packets; nothing if they begin before the part that is searched."""
        return self._search(partial(self._body, length))

    def _search(self, find: Callable[[], bytes]) -> bytes:
        if not (found := find()):
            self._tail = self._source.at(max(0, self._source.size - 2 * LONGEST_PAGE), 2 * LONGEST_PAGE)
            found = find()
        return found

    def _granule(self) -> bytes:
        granules = (self._tail[page + 6 : page + 14] for page in self._pages())
        return next((each for each in granules if each != _NO_PACKET_ENDS), b"")

    def _body(self, length: int) -> bytes:
        found = b""
        for page in self._pages():
            lacing = self._tail[page + _HEADER : page + _HEADER + self._tail[page + 26]]
            first = page + _HEADER + len(lacing)
            found = self._tail[first : first + sum(lacing)] + found
            if len(found) >= length:
                return found[-length:]
        return b""

    def _pages(self) -> Iterator[int]:
        page = len(self._tail)
        while (page := self._tail.rfind(b"OggS\0", 0, page)) >= 0:
            if self._tail[page + 14 : page + 18] == self._serial and page + _HEADER <= len(self._tail):
                yield page


def first_pages(source: Source) -> Iterator[tuple[int, bytes]]:
    """Yield offset and packet of the page that starts each stream."""
    at = source.start
    for _stream in range(_MAX_STREAMS):
        head = source.at(at, _HEADER + 255)
        if not head.startswith(b"OggS") or len(head) < _HEADER or not head[5] & 2:
            return
        lacing = head[_HEADER : _HEADER + head[26]]
        body = at + _HEADER + len(lacing)
        yield at, source.at(body, min(sum(lacing), 256))
        at = body + sum(lacing)


def audio_stream(source: Source) -> tuple[int, bytes]:
    """Return offset and first packet of the audio stream, which in a film is not the only one."""
    pages = list(first_pages(source))
    if not pages:
        raise NeedsMutagenError
    return next((each for each in pages if each[1].startswith(_AUDIO)), pages[0])


def read_ogg(source: Source) -> Parsed:
    """Read an Ogg file; raises NeedsMutagenError if its audio is unknown or its comment is damaged."""
    at, first = audio_stream(source)
    stream = OggStream(source, at)
    stream.skip()
    read_stream = next((read for mark, read in _STREAMS if first.startswith(mark)), None)
    if read_stream is None:
        raise NeedsMutagenError
    parsed = Parsed()
    comment = stream.reader()
    mark = next((mark for start, mark in _COMMENT_MARKS if first.startswith(start)), b"")
    if comment.read(len(mark)) != mark:
        raise NeedsMutagenError
    if first.startswith(b"\x7fFLAC"):
        comment.skip(4)  # the head of the metadata block
    read_comment(comment, parsed)
    comment.skip(source.size)
    audio = stream.next_page
    end = OggEnd(source, stream.serial)
    parsed.fingerprint = ogg_fingerprint(stream, first, end)
    granule = int.from_bytes(end.granule, "little", signed=True)
    parsed.stream |= read_stream(first, max(0, granule))
    duration = parsed.stream["duration"]
    if not parsed.stream.get("bitrate") and duration:
        parsed.stream["bitrate"] = round((source.size - audio) * 8 / duration)
    return parsed


def ogg_fingerprint(stream: OggStream, first: bytes, end: OggEnd) -> str | None:
    """Hash start, end and length of the audio, none of which depends on how packets are split into pages.

    `stream` is behind the comment, the second packet; `first` is the first packet.
    """
    if first.startswith(b"\x7fFLAC") and (found := flac_md5(first[17:51])):
        return found
    if first.startswith((b"\x01vorbis", b"\x80theora")):
        stream.skip()
    start = stream.body(_START)
    # The end of a very short stream would reach back into the comment.
    last = end.body(_END) if len(start) == _START else b""
    digest = blake2b(first + end.granule + start + last, digest_size=16)
    return f"b2ogg:{digest.hexdigest()}" if start else None


def _vorbis(packet: bytes, granule: int) -> dict[str, Any]:
    channels, rate, highest, nominal, lowest = struct.unpack_from("<BIiii", packet, 11)
    if not rate:
        raise NeedsMutagenError
    highest, nominal, lowest = max(0, highest), max(0, nominal), max(0, lowest)
    bitrate = nominal or (highest + lowest) // 2
    if nominal and highest and highest < nominal:
        bitrate = highest
    elif nominal and lowest > nominal:
        bitrate = lowest
    return {
        "container": "ogg", "codec": "vorbis", "lossless": False, "channels": channels, "sample_rate": rate,
        "bitrate": bitrate, "duration": granule / rate,
        "bitrate_mode": "cbr" if highest == nominal == lowest != 0 else "vbr",
    }  # fmt: skip


def _opus(packet: bytes, granule: int) -> dict[str, Any]:
    channels, skipped = struct.unpack_from("<BH", packet, 9)
    return {
        "container": "ogg", "codec": "opus", "lossless": False, "channels": channels, "sample_rate": _OPUS_RATE,
        "duration": max(0, granule - skipped) / _OPUS_RATE, "bitrate_mode": "vbr",
    }  # fmt: skip


def _speex(packet: bytes, granule: int) -> dict[str, Any]:
    rate, _mode, _version, channels, bitrate = struct.unpack_from("<IIIIi", packet, 36)
    if not rate:
        raise NeedsMutagenError
    return {
        "container": "ogg", "codec": "speex", "lossless": False, "channels": channels, "sample_rate": rate,
        "bitrate": max(0, bitrate), "duration": granule / rate,
    }  # fmt: skip


def _flac(packet: bytes, granule: int) -> dict[str, Any]:
    stream = stream_info(packet[17:51])
    rate = stream["sample_rate"]
    assert isinstance(rate, int)
    return stream | {"container": "ogg", "duration": stream["duration"] or (granule / rate if rate else None)}


_STREAMS = ((b"\x01vorbis", _vorbis), (b"OpusHead", _opus), (b"Speex   ", _speex), (b"\x7fFLAC", _flac))
_AUDIO = tuple(mark for mark, _read in _STREAMS)
_COMMENT_MARKS = ((b"\x01vorbis", b"\x03vorbis"), (b"OpusHead", b"OpusTags"))
