"""Finds the container of a file: from its first bytes behind leading tags, else from its extension."""

from typing import Final

from soulspot.infrastructure.tags.formats.mp4 import atoms
from soulspot.infrastructure.tags.formats.mpeg import frame_at
from soulspot.infrastructure.tags.formats.source import Source
from soulspot.infrastructure.tags.names import CONTAINERS

_MAGIC: Final = (
    (b"fLaC", "flac"), (b"OggS", "ogg"), (b"MAC ", "ape"), (b"MPCK", "musepack"), (b"MP+", "musepack"),
    (b"wvpk", "wavpack"), (b"TTA1", "tta"), (b"TTA2", "tta"), (b"OFR ", "optimfrog"), (b"tBaK", "tak"),
    (b"DSD ", "dsf"), (b"FRM8", "dsdiff"), (b"MThd", "midi"), (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "asf"),
    (b"ADIF", "aac"),
)  # fmt: skip
_FORMS: Final = {b"WAVE": "wav", b"AIFF": "aiff", b"AIFC": "aiff"}


def is_cut_off(source: Source) -> bool:
    """Whether a file ends before its outermost chunks or atoms do: it was cut, or is still incomplete."""
    if source.start > source.size:
        return True
    start = source.at(source.start, 12)
    if start[8:12] in _FORMS:
        length = int.from_bytes(start[4:8], "big" if start.startswith(b"FORM") else "little")
        return source.start + 8 + length > source.size
    if start[4:8] == b"ftyp":
        return max((end for _name, _at, end in atoms(source, source.start, 1 << 63)), default=0) > source.size
    return False


def container_of(source: Source, name: str) -> str | None:
    start = source.at(source.start, 16)
    if start[:4] in {b"RIFF", b"RF64", b"FORM"} and start[8:12] in _FORMS:
        return _FORMS[start[8:12]]
    if start[4:8] == b"ftyp":
        return "mp4"
    for magic, container in _MAGIC:
        if start.startswith(magic):
            return container
    if (length := _adts_length(start)) and _adts_length(source.at(source.start + length, 7)):
        return "aac"
    if (frame := frame_at(start, 0)) is not None:
        following = frame_at(source.at(source.start + frame[0], 4), 0)
        if following is not None and following[3:] == frame[3:]:
            return "mp3"
    return CONTAINERS.get(name.rpartition(".")[2].lower())


def _adts_length(head: bytes) -> int:
    """Return the length of the AAC frame that starts here, 0 if there is none."""
    if len(head) < 7 or head[0] != 0xFF or head[1] & 0xF6 != 0xF0:  # noqa: PLR2004
        return 0
    return (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5
