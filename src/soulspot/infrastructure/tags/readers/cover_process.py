"""The process that takes pictures out of files: reads paths from its input, writes the picture of each to its output.

Pictures are asked for seldom and are large, so this is no task of the tag readers, which skip them. Both directions
have frames of four bytes of length: a path, and then a picture, or nothing where there is none. What is no JPEG, PNG,
WebP or GIF by its first bytes is none, whatever the tag calls it.
"""

import base64
import os
import resource
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, BinaryIO, Final, cast

import mutagen
from mutagen.apev2 import APEv2
from mutagen.asf import ASFTags
from mutagen.flac import Picture
from mutagen.id3 import ID3
from mutagen.mp4 import MP4Tags

from soulspot.infrastructure.filesystem import open_regular
from soulspot.infrastructure.tags.fields import folded
from soulspot.infrastructure.tags.formats.with_mutagen import FileFrom
from soulspot.infrastructure.tags.readers.covers import kind_of_picture
from soulspot.infrastructure.tags.readers.frames import LENGTH

FRONT: Final = 3
"""The type of a front cover, as ID3 numbers it."""
LARGEST: Final = 12 << 20
"""Bytes that a picture may have."""
_BESIDE: Final = ("cover", "folder", "front", "album", "albumart")
_IMAGES: Final = (".jpg", ".jpeg", ".png", ".webp", ".gif")
_LISTED: Final = 2_000
"""Names of a folder that are looked through for a picture."""


def cover_of(path: str) -> bytes:
    """Return the front cover that a file holds, else another picture of it, else one that lies beside it, or b""."""
    found: dict[int, bytes] = {}
    try:
        with os.fdopen(open_regular(path), "rb") as file:
            size = os.fstat(file.fileno()).st_size
            for kind, content in _pictures(file, size):
                if len(content) <= LARGEST and kind_of_picture(content[:16]) is not None:
                    found.setdefault(kind, content)
    except OSError:
        return b""
    return found.get(FRONT) or next(iter(found.values()), b"") or _beside(path)


def _pictures(file: BinaryIO, size: int) -> Iterator[tuple[int, bytes]]:
    ways: tuple[Callable[[BinaryIO], Any], ...] = (mutagen.File, ID3, APEv2)
    for way in ways:
        with suppress(Exception):  # foreign bytes: mutagen lets through a dozen kinds of error (facts/tags.md)
            opened = way(cast("BinaryIO", FileFrom(file, 0, size)))
            if opened is not None:
                yield from _pictures_in(opened)


def _pictures_in(opened: Any) -> Iterator[tuple[int, bytes]]:  # noqa: ANN401 - mutagen has no types
    for each in getattr(opened, "pictures", None) or ():
        yield each.type, each.data
    tag = opened if isinstance(opened, ID3 | APEv2) else opened.tags
    if isinstance(tag, list):
        yield from _vorbis_pictures(tag)
    elif isinstance(tag, ID3):
        for each in tag.getall("APIC"):
            yield int(each.type), each.data
    elif isinstance(tag, APEv2):
        for key, value in tag.items():
            if folded(key).startswith("coverart"):
                yield 4 if "back" in key.lower() else FRONT, bytes(value.value).partition(b"\0")[2]
    elif isinstance(tag, MP4Tags):
        for each in tag.get("covr", []):
            yield FRONT, bytes(each)
    elif isinstance(tag, ASFTags):
        for each in tag.get("WM/Picture", []):
            yield _asf_picture(each.value)


def _vorbis_pictures(tag: list[tuple[str, str]]) -> Iterator[tuple[int, bytes]]:
    for name, value in tag:
        if folded(name) == "metadatablockpicture":
            picture = Picture(base64.b64decode(value))
            yield picture.type, picture.data
        elif folded(name) == "coverart":
            yield FRONT, base64.b64decode(value)


def _asf_picture(raw: bytes) -> tuple[int, bytes]:
    """Return type and bytes: behind type and length stand two texts in UTF-16 that end with NUL."""
    at = 5
    for _text in range(2):
        while raw[at : at + 2] != b"\0\0":
            at += 2
        at += 2
    return raw[0], raw[at : at + int.from_bytes(raw[1:5], "little")]


def _beside(path: str) -> bytes:
    """Return the picture that lies in a file's folder under one of the usual names."""
    with suppress(OSError), os.scandir(os.path.dirname(path)) as entries:
        named = {}
        for _number, entry in zip(range(_LISTED), entries, strict=False):
            stem, extension = os.path.splitext(entry.name.casefold())
            if extension in _IMAGES and stem in _BESIDE:
                named[_BESIDE.index(stem), entry.name] = entry.path
        for _rank, place in sorted(named.items()):
            with os.fdopen(open_regular(place), "rb") as file:
                content = file.read(LARGEST + 1)
            if len(content) <= LARGEST and kind_of_picture(content[:16]) is not None:
                return content
    return b""


def main() -> None:
    memory_limit = int(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_AS, (memory_limit, memory_limit))
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # whoever started this process ends it, by closing its input
    source, target = sys.stdin.buffer, sys.stdout.buffer
    while len(head := source.read(LENGTH.size)) == LENGTH.size:
        content = cover_of(os.fsdecode(source.read(LENGTH.unpack(head)[0])))
        target.write(LENGTH.pack(len(content)) + content)
        target.flush()


if __name__ == "__main__":
    main()
