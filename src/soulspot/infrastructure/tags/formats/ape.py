"""APEv2 tags, before or behind any stream; reads the texts, and only the size of a picture."""

import struct
from typing import Final

from soulspot.infrastructure.tags.fields import tag_key
from soulspot.infrastructure.tags.formats.parsed import Parsed
from soulspot.infrastructure.tags.formats.source import Source
from soulspot.infrastructure.tags.model import Picture
from soulspot.infrastructure.tags.texts import decode_undeclared, decode_utf8

NAMES: Final = {"year": "date", "track": "tracknumber", "disc": "discnumber", "media": "media"}
_MAX_ITEMS = 10_000
_SHORTEST_KEY, _LONGEST_KEY = 2, 256
_LARGEST_TEXT = 4 << 20
_BINARY = 1


def read_ape(source: Source, at: int, length: int) -> Parsed:
    """Read the APEv1 or APEv2 tag at an offset."""
    parsed = Parsed()
    end = at + length
    is_first_version = source.at(end - 24, 4) == struct.pack("<I", 1000)
    if source.at(at, 8) == b"APETAGEX":
        at += 32
    for _item in range(_MAX_ITEMS):
        head = source.at(at, 8 + _LONGEST_KEY)
        zero = head.find(b"\0", 8)
        if at + 8 >= end or head.startswith(b"APETAGEX"):
            break
        if zero < 8 + _SHORTEST_KEY or not head[8:zero].isascii():
            parsed.notes.append("tag-damaged")
            break
        size, flags = struct.unpack_from("<II", head)
        key = tag_key(head[8:zero].decode("latin-1"))
        value_at = at + zero + 1
        if flags >> 1 & 3 == _BINARY:
            if key.startswith("coverart"):
                parsed.pictures.append(_picture(key, source.at(value_at, min(size, 256)), size))
        else:
            texts = _texts(source.at(value_at, min(size, _LARGEST_TEXT)), parsed.notes, is_latin=is_first_version)
            parsed.add(NAMES.get(key) or key, texts)
        at = value_at + size
    return parsed


def _texts(raw: bytes, notes: list[str], *, is_latin: bool) -> list[str]:
    if is_latin:
        return [decode_undeclared(raw)]
    return [decode_utf8(each, notes) for each in raw.split(b"\0")]


def _picture(key: str, start: bytes, size: int) -> Picture:
    name, _zero, _data = start.partition(b"\0")
    mime = "image/png" if name.lower().endswith(b"png") else "image/jpeg"
    return Picture(4 if "back" in key else 3, mime, max(0, size - len(name) - 1))
