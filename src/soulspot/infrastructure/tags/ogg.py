"""Ogg, as the bytes of one stream's packets: how they lie in pages changes with every tag that is written."""

from collections.abc import Iterator

from soulspot.infrastructure.tags.source import Source

LONGEST_PAGE = 27 + 255 + 255 * 255
_HEADER = 27
_MOST_PAGES = 100_000
_NO_PACKET_ENDS = b"\xff" * 8


class OggStream:
    """One stream of an Ogg file: first its header packets one by one, then the bytes of the rest."""

    def __init__(self, source: Source, offset: int) -> None:
        """Start at the page at `offset`."""
        self._source = source
        self.serial = source.at(offset + 14, 4)
        self.next_page = offset
        self._lacing = b""
        self._place = 0

    def packet(self, limit: int) -> bytes:
        """Return the next packet, of one that is longer than `limit` its start."""
        parts, wanted = [], limit
        for place, length in self._spans():
            if wanted > 0:
                parts.append(self._source.at(place, min(length, wanted)))
                wanted -= length
        return b"".join(parts)

    def skip(self) -> None:
        for _span in self._spans():
            pass

    def body(self, length: int) -> bytes:
        """Return the next bytes, be they of one packet or of many."""
        parts = b""
        while len(parts) < length and (self._lacing or self._turn()):
            rest = sum(self._lacing)
            parts += self._source.at(self._place, min(rest, length - len(parts)))
            self._lacing = b""
        return parts

    def _spans(self) -> Iterator[tuple[int, int]]:
        """Yield place and length of each piece of the next packet."""
        while self._lacing or self._turn():
            full = len(self._lacing) - len(self._lacing.lstrip(b"\xff"))
            ends = full < len(self._lacing)
            length = 255 * full + (self._lacing[full] if ends else 0)
            yield self._place, length
            self._place += length
            self._lacing = self._lacing[full + 1 :] if ends else b""
            if ends:
                return

    def _turn(self) -> bool:
        """Go to the next page of this stream; False where there is none."""
        for _page in range(_MOST_PAGES):
            head = self._source.at(self.next_page, _HEADER + 255)
            if len(head) < _HEADER or not head.startswith(b"OggS"):
                return False
            lacing = head[_HEADER : _HEADER + head[26]]
            self._place = self.next_page + _HEADER + len(lacing)
            self.next_page = self._place + sum(lacing)
            if lacing and head[14:18] == self.serial:
                self._lacing = lacing
                return True
        return False


class OggEnd:
    """The last pages of a stream, found from the file's end."""

    def __init__(self, source: Source, serial: bytes) -> None:
        self._start = max(0, source.size - 2 * LONGEST_PAGE)
        self._tail = source.at(self._start, 2 * LONGEST_PAGE)
        self._serial = serial
        granules = (self._tail[page + 6 : page + 14] for page in self._pages())
        self.granule = next((each for each in granules if each != _NO_PACKET_ENDS), b"")

    def body(self, length: int) -> bytes:
        """Return the last bytes of the stream's packets; nothing where they reach further back than was read."""
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
