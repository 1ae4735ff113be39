"""The process that extracts covers: reads paths from its input, writes the picture of each to its output.

Pictures are large and seldom needed, so the tag readers skip them. A request is a frame with a path, the answer a frame
with a picture, empty if the file has none. Only the first bytes decide whether it is a JPEG, PNG, WebP or GIF, whatever
the tag says.
"""

import base64
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import islice
from typing import Any, BinaryIO, Final, cast

import mutagen
from mutagen.apev2 import APEv2
from mutagen.asf import ASFTags
from mutagen.flac import Picture
from mutagen.id3 import ID3
from mutagen.mp4 import MP4Tags

from soulspot.infrastructure.filesystem import open_regular
from soulspot.infrastructure.tags.fields import tag_key
from soulspot.infrastructure.tags.formats.with_mutagen import OffsetFile
from soulspot.infrastructure.tags.readers.covers import kind_of_picture
from soulspot.infrastructure.tags.readers.frames import LENGTH, requests

FRONT: Final = 3
"""The type of a front cover, as ID3 numbers it."""
MAX_SIZE: Final = 12 << 20
"""Bytes; larger pictures are ignored."""
_FILE_STEMS: Final = ("cover", "folder", "front", "album", "albumart")
_FILE_EXTENSIONS: Final = (".jpg", ".jpeg", ".png", ".webp", ".gif")
_MAX_ENTRIES: Final = 2_000
"""Folder entries to search for a picture."""


def cover_of(path: str) -> bytes:
    """Return the embedded front cover, else another embedded picture, else an image file beside it, else b""."""
    found: dict[int, bytes] = {}
    try:
        with os.fdopen(open_regular(path), "rb") as file:
            size = os.fstat(file.fileno()).st_size
            for kind, content in _pictures(file, size):
                if len(content) <= MAX_SIZE and kind_of_picture(content[:16]) is not None:
                    found.setdefault(kind, content)
    except OSError:
        return b""
    return found.get(FRONT) or next(iter(found.values()), b"") or _image_file(path)


def _pictures(file: BinaryIO, size: int) -> Iterator[tuple[int, bytes]]:
    openers: tuple[Callable[[BinaryIO], Any], ...] = (mutagen.File, ID3, APEv2)
    for open_tags in openers:
        with suppress(Exception):  # mutagen raises a dozen kinds of error on damaged files
            if (opened := open_tags(cast("BinaryIO", OffsetFile(file, 0, size)))) is not None:
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
            if tag_key(key).startswith("coverart"):
                yield 4 if "back" in key.lower() else FRONT, bytes(value.value).partition(b"\0")[2]
    elif isinstance(tag, MP4Tags):
        for each in tag.get("covr", []):
            yield FRONT, bytes(each)
    elif isinstance(tag, ASFTags):
        for each in tag.get("WM/Picture", []):
            raw = each.value  # type, length, MIME type, description, and last the picture
            yield raw[0], raw[-int.from_bytes(raw[1:5], "little") :]


def _vorbis_pictures(tag: list[tuple[str, str]]) -> Iterator[tuple[int, bytes]]:
    for name, value in tag:
        if tag_key(name) == "metadatablockpicture":
            picture = Picture(base64.b64decode(value))
            yield picture.type, picture.data
        elif tag_key(name) == "coverart":
            yield FRONT, base64.b64decode(value)


def _image_file(path: str) -> bytes:
    """Return the image in the folder of a file that has one of the usual names."""
    with suppress(OSError), os.scandir(os.path.dirname(path)) as entries:
        named = {}
        for entry in islice(entries, _MAX_ENTRIES):
            stem, extension = os.path.splitext(entry.name.casefold())
            if extension in _FILE_EXTENSIONS and stem in _FILE_STEMS:
                named[_FILE_STEMS.index(stem), entry.name] = entry.path
        for _rank, image in sorted(named.items()):
            with os.fdopen(open_regular(image), "rb") as file:
                content = file.read(MAX_SIZE + 1)
            if len(content) <= MAX_SIZE and kind_of_picture(content[:16]) is not None:
                return content
    return b""


def main() -> None:
    for path in requests(int(sys.argv[1])):
        content = cover_of(os.fsdecode(path))
        sys.stdout.buffer.write(LENGTH.pack(len(content)) + content)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
