"""Vorbis comments, as in Ogg and FLAC: names and values; of a picture only the start is read."""

import base64
import binascii
import struct

from soulspot.infrastructure.tags.fields import tag_key
from soulspot.infrastructure.tags.formats.parsed import NeedsMutagenError, Parsed
from soulspot.infrastructure.tags.formats.source import SpanReader
from soulspot.infrastructure.tags.model import Picture
from soulspot.infrastructure.tags.texts import decode_utf8

_PICTURES = {"metadatablockpicture", "coverart"}
_LARGEST_VALUE = 4 << 20
_PICTURE_START = 512  # bytes in which type and MIME type of a picture lie
_MAX_COMMENTS = 100_000


def read_comment(reader: SpanReader, parsed: Parsed) -> None:
    """Read a comment block; raises NeedsMutagenError if its lengths are inconsistent."""
    vendor = reader.read(_length(reader))
    if vendor and not vendor.startswith((b"Lavf", b"reference")):
        parsed.stream["encoder"] = vendor.decode("utf-8", "replace")[:200]
    for _comment in range(min(_length(reader), _MAX_COMMENTS)):
        length = _length(reader)
        start = reader.read(min(length, _PICTURE_START * 2))
        raw_name, equals, value = start.partition(b"=")
        name = tag_key(raw_name.decode("ascii", "replace"))
        if name in _PICTURES:
            reader.skip(length - len(start))
            if (picture := _picture(name, value, length)) is not None:
                parsed.pictures.append(picture)
            continue
        if length > len(start):
            value += reader.read(min(length, _LARGEST_VALUE) - len(start))
            reader.skip(length - _LARGEST_VALUE)
        if len(raw_name) + 1 + len(value) != min(length, _LARGEST_VALUE):
            raise NeedsMutagenError
        if equals and value and name != "coverartmime":
            parsed.add(name, [decode_utf8(value, parsed.notes)])


def flac_picture(raw: bytes, size: int) -> Picture | None:
    """Return the picture of a FLAC picture block of `size` bytes from its start."""
    if len(raw) < 8:  # noqa: PLR2004
        return None
    kind, mime = struct.unpack_from(">II", raw)
    text = raw[8 : 8 + mime].decode("latin-1")
    at = 8 + mime
    if at + 4 > len(raw):
        return None
    (description,) = struct.unpack_from(">I", raw, at)
    at += 4 + description + 16
    length = int.from_bytes(raw[at : at + 4], "big") if at + 4 <= len(raw) else size
    return Picture(kind, text.lower(), max(0, min(length, size - at - 4))) if kind < 1 << 16 else None


def _picture(name: str, value: bytes, length: int) -> Picture | None:
    size = (length - len(name) - 1) * 3 // 4
    if name == "coverart":
        return Picture(0, "", size)
    try:
        start = base64.b64decode(value[: len(value) // 4 * 4])
    except binascii.Error:
        return None
    padding = value.count(b"=") if len(value) == length else 0
    return flac_picture(start, size - padding)


def _length(reader: SpanReader) -> int:
    raw = reader.read(4)
    if len(raw) < 4:  # noqa: PLR2004
        raise NeedsMutagenError
    return int.from_bytes(raw, "little")
