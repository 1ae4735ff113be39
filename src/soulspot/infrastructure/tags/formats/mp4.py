"""MP4: the atoms with the tags and the description of the audio; of a cover only the size is read."""

import struct
from collections.abc import Iterator
from typing import Any, Final

from soulspot.infrastructure.tags.fields import tag_key
from soulspot.infrastructure.tags.formats.parsed import NeedsMutagenError, Parsed
from soulspot.infrastructure.tags.formats.source import Source
from soulspot.infrastructure.tags.genres import genre_name
from soulspot.infrastructure.tags.model import Picture

NAMES: Final = {
    "\xa9nam": "title", "\xa9ART": "artist", "aART": "albumartist", "\xa9alb": "album", "\xa9day": "date",
    "\xa9gen": "genre", "\xa9wrt": "composer", "\xa9cmt": "comment", "\xa9lyr": "lyrics", "\xa9grp": "grouping",
    "\xa9too": "encoder", "\xa9enc": "encodedby", "\xa9wrk": "work", "\xa9mvn": "movement", "\xa9dir": "director",
    "soar": "artistsort", "soaa": "albumartistsort", "sonm": "titlesort", "soal": "albumsort", "soco": "composersort",
    "cpil": "compilation", "tmpo": "bpm", "cprt": "copyright", "\xa9cpy": "copyright", "\xa9mvi": "movementnumber",
    "\xa9mvc": "movementtotal", "\xa9pub": "label", "\xa9con": "conductor", "\xa9arg": "arranger",
    "\xa9prd": "producer", "\xa9lyi": "lyricist", "desc": "desc", "ldes": "ldes",
}  # fmt: skip
_IMAGES = {13: "image/jpeg", 14: "image/png", 12: "image/gif", 27: "image/bmp"}
_LARGEST_TEXT = 4 << 20
_MAX_ATOMS = 100_000
_INTEGERS = frozenset((b"tmpo", b"\xa9mvi", b"\xa9mvc", b"rtng", b"stik", b"pgap", b"pcst", b"hdvd", b"shwm"))
_LC = 2
_SBR_FOLLOWS = 0x2B7


def atoms(source: Source, at: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield the name of each atom, and where its content begins and ends."""
    for _atom in range(_MAX_ATOMS):
        head = source.at(at, 16)
        if at + 8 > end or len(head) < 8:  # noqa: PLR2004
            return
        length, header = int.from_bytes(head[:4], "big"), 8
        if length == 1:
            length, header = int.from_bytes(head[8:16], "big"), 16
        elif length == 0:
            length = end - at
        if length < header:
            return
        yield head[4:8], at + header, min(at + length, end)
        at += length


def read_mp4(source: Source) -> Parsed:
    """Read an MP4 file; raises NeedsMutagenError unless it is plain AAC or ALAC."""
    moov = next(((at, end) for name, at, end in atoms(source, source.start, source.size) if name == b"moov"), None)
    if moov is None:
        raise NeedsMutagenError
    parsed = Parsed()
    for name, at, end in atoms(source, *moov):
        if name == b"trak" and not parsed.stream:
            _track(source, at, end, parsed)
        elif name == b"udta":
            for inner, inner_at, inner_end in atoms(source, at, end):
                if inner == b"meta":
                    _meta(source, inner_at, inner_end, parsed)
        elif name == b"meta":
            _meta(source, at, end, parsed)
    if not parsed.stream:
        raise NeedsMutagenError
    return parsed


def _meta(source: Source, at: int, end: int, parsed: Parsed) -> None:
    for name, inner_at, inner_end in atoms(source, at + 4, end):
        if name == b"ilst":
            for item, item_at, item_end in atoms(source, inner_at, inner_end):
                _item(source, item, item_at, item_end, parsed)


def _item(source: Source, name: bytes, at: int, end: int, parsed: Parsed) -> None:
    label = ""
    values: list[str] = []
    for inner, inner_at, inner_end in atoms(source, at, end):
        if inner == b"name":
            label = source.at(inner_at + 4, min(inner_end - inner_at - 4, 1024)).decode("utf-8", "replace")
        elif inner == b"data":
            kind = int.from_bytes(source.at(inner_at, 4), "big") & 0xFFFFFF
            size = inner_end - inner_at - 8
            if name == b"covr":
                parsed.pictures.append(Picture(3, _IMAGES.get(kind, "image/jpeg"), size))
            elif size <= _LARGEST_TEXT:
                values += _values(name, kind, source.at(inner_at + 8, size))
    if name == b"----":
        parsed.add(tag_key(label), values)
    elif values:
        text = name.decode("latin-1")
        parsed.add(_PAIRS.get(name) or NAMES.get(text) or text.lower(), values)


_PAIRS = {b"trkn": "tracknumber", b"disk": "discnumber", b"gnre": "genre"}


def _values(name: bytes, kind: int, raw: bytes) -> list[str]:
    if name in {b"trkn", b"disk"}:
        return ["{}/{}".format(*struct.unpack_from(">HH", raw, 2))] if len(raw) >= 6 else []  # noqa: PLR2004
    if name == b"gnre":
        return [genre_name(int.from_bytes(raw[:2], "big") - 1) or ""]
    if name == b"cpil":
        return ["1" if any(raw) else "0"]
    if kind == 21 or name in _INTEGERS:  # noqa: PLR2004
        return [str(int.from_bytes(raw, "big", signed=True))] if 0 < len(raw) <= 8 else []  # noqa: PLR2004
    is_text = kind in {1, 2} or (kind == 0 and (name[0] == 0xA9 or name == b"----"))  # noqa: PLR2004
    return [raw.decode("utf-16-be" if kind == 2 else "utf-8", "replace")] if is_text else []  # noqa: PLR2004


def _track(source: Source, at: int, end: int, parsed: Parsed) -> None:
    """Read the stream of an audio track; ignores any other track."""
    mdia = _child(source, at, end, b"mdia")
    hdlr, mdhd = _child(source, *mdia, b"hdlr"), _child(source, *mdia, b"mdhd")
    if source.at(hdlr[0] + 8, 4) != b"soun":
        return
    head = source.at(mdhd[0], 32)
    if head[:1] == b"\1":
        scale, length = struct.unpack_from(">IQ", head, 20)
    else:
        scale, length = struct.unpack_from(">II", head, 12)
    stbl = _child(source, *_child(source, *mdia, b"minf"), b"stbl")
    stsd = _child(source, *stbl, b"stsd")
    entry = source.at(stsd[0] + 8, min(stsd[1] - stsd[0] - 8, 1024))
    if not scale or not length or len(entry) < 36 or entry[16:18] != b"\0\0":  # noqa: PLR2004
        raise NeedsMutagenError
    parsed.stream = {"container": "mp4", "duration": length / scale} | _stream(entry)
    if not parsed.stream["bitrate"]:
        top = atoms(source, source.start, source.size)
        size = sum(inner_end - inner_at for name, inner_at, inner_end in top if name == b"mdat")
        parsed.stream["bitrate"] = round(size * 8 * scale / length)


def _child(source: Source, at: int, end: int, wanted: bytes) -> tuple[int, int]:
    for name, inner_at, inner_end in atoms(source, at, end):
        if name == wanted:
            return inner_at, inner_end
    raise NeedsMutagenError


def _stream(entry: bytes) -> dict[str, Any]:
    """Return the stream of a sample description of AAC-LC or ALAC."""
    channels, bits = struct.unpack_from(">HH", entry, 24)
    rate = int.from_bytes(entry[32:36], "big") >> 16
    if entry[4:8] == b"alac" and entry[40:44] == b"alac" and len(entry) >= 72:  # noqa: PLR2004
        bits, channels = entry[53], entry[57]
        bitrate, rate = struct.unpack_from(">II", entry, 64)
        return {
            "codec": "alac", "lossless": True, "channels": channels, "sample_rate": rate, "bits_per_sample": bits,
            "bitrate": bitrate, "bitrate_mode": "vbr",
        }  # fmt: skip
    if entry[4:8] == b"mp4a" and entry[40:44] == b"esds":
        return _aac(entry[44:], rate)
    raise NeedsMutagenError


def _aac(esds: bytes, rate: int) -> dict[str, Any]:
    tag, at = _descriptor(esds, 4)
    if tag != 3 or esds[at + 2] & 0xE0:  # noqa: PLR2004
        raise NeedsMutagenError
    tag, at = _descriptor(esds, at + 3)
    if tag != 4 or esds[at] != 0x40:  # noqa: PLR2004 - MPEG-4 audio
        raise NeedsMutagenError
    highest, average = struct.unpack_from(">II", esds, at + 5)
    tag, at = _descriptor(esds, at + 13)
    config = int.from_bytes(esds[at : at + 2], "big")
    channels = config >> 3 & 15
    # Other object types, explicit sample rates, channel tables and SBR are left to mutagen.
    if tag != 5 or config >> 11 != _LC or config >> 7 & 15 >= 13 or not 0 < channels < 7:  # noqa: PLR2004
        raise NeedsMutagenError
    more = int.from_bytes(esds[at + 2 : at + 5], "big") if esds[at - 1] >= 5 else 0  # noqa: PLR2004
    if more >> 13 == _SBR_FOLLOWS and more >> 7 & 1:
        raise NeedsMutagenError
    rates = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350)
    return {
        "codec": "aac", "profile": "LC", "lossless": False, "channels": channels,
        "sample_rate": rates[config >> 7 & 15] or rate, "bitrate": average,
        "bitrate_mode": "cbr" if highest == average != 0 else "vbr",
    }  # fmt: skip


def _descriptor(data: bytes, at: int) -> tuple[int, int]:
    """Return the tag of an MPEG-4 descriptor, and where its content begins."""
    tag = data[at]
    at += 1
    while data[at] & 0x80:
        at += 1
    return tag, at + 1
