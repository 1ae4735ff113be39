"""ID3: version 1, and plain tags of versions 2.3 and 2.4, without the bytes of pictures.

mutagen reads the rare others: compressed, encrypted, unsynchronised, version 2.2 or damaged. If it fails too, the
frames before the damage count.
"""

import io
import struct
from collections.abc import Iterable
from typing import Any, Final

from mutagen.id3 import ID3, ID3TimeStamp

from soulspot.infrastructure.tags.fields import tag_key
from soulspot.infrastructure.tags.formats.parsed import NeedsMutagenError, Parsed
from soulspot.infrastructure.tags.formats.source import Source
from soulspot.infrastructure.tags.genres import genre_name, genres_of
from soulspot.infrastructure.tags.model import Picture
from soulspot.infrastructure.tags.texts import Undeclared, decode_undeclared, decode_utf8

NAMES: Final = {
    "TIT2": "title", "TIT3": "subtitle", "TPE1": "artist", "TPE2": "albumartist", "TPE3": "conductor",
    "TPE4": "remixer", "TALB": "album", "TRCK": "tracknumber", "TPOS": "discnumber", "TSST": "discsubtitle",
    "TDRC": "date", "TDOR": "originaldate", "TORY": "originaldate", "TDRL": "releasedate", "TCON": "genre",
    "TCOM": "composer", "TEXT": "lyricist", "TPUB": "label", "TSRC": "isrc", "TBPM": "bpm", "TKEY": "key",
    "TLAN": "language", "TMED": "media", "TMOO": "mood", "TIT1": "grouping", "GRP1": "grouping", "MVNM": "movement",
    "MVIN": "movementnumber", "TCMP": "compilation", "TCOP": "copyright", "TOAL": "originalalbum",
    "TOPE": "originalartist", "TSOA": "albumsort", "TSOC": "composersort", "TSOP": "artistsort", "TSOT": "titlesort",
    "TSO2": "albumartistsort", "TSSE": "encodersettings", "TENC": "encodedby", "WCOP": "license", "WOAR": "website",
    "XSOP": "artistsort", "XSOA": "albumsort", "XSOT": "titlesort", "XDOR": "originaldate",
}  # fmt: skip
ROLES: Final = {
    "arranger": "arranger", "producer": "producer", "engineer": "engineer", "mix": "mixer", "mixer": "mixer",
    "dj-mix": "djmixer", "dj mix": "djmixer", "djmixer": "djmixer", "director": "director",
    "remixer": "remixer", "composer": "composer", "lyricist": "lyricist", "conductor": "conductor",
}  # fmt: skip
_TEXT_BESIDE_T = frozenset(("GRP1", "MVNM", "MVIN", "XSOP", "XSOA", "XSOT", "XDOR"))
_MUSICBRAINZ = "http://musicbrainz.org"
_HEADER = 10
_LARGEST_TAG_FOR_MUTAGEN = 32 << 20
_LARGEST_FRAME = 4 << 20
_PICTURE_HEAD = 512


def read_id3(source: Source, offset: int, length: int) -> Parsed:
    """Read the ID3v2 tag at an offset, as far as the file reaches."""
    parsed = Parsed()
    try:
        _walk(source, offset, length, parsed)
    except NeedsMutagenError:
        try:
            return _read_with_mutagen(source, offset, length)
        except Exception:  # noqa: BLE001 - mutagen raises a dozen kinds of error on damaged tags
            parsed.notes.append("tag-damaged")
    return parsed


def read_id3v1(tag: bytes) -> Parsed:
    """Read an ID3v1 tag: the last 128 bytes of a file, or more with an extended tag before it."""
    parsed = Parsed()
    tag = tag[-128:]
    fields = {"title": tag[3:33], "artist": tag[33:63], "album": tag[63:93], "date": tag[93:97], "comment": tag[97:127]}
    if tag[125] == 0 and tag[126] != 0:
        parsed.add("tracknumber", [str(tag[126])])
        fields["comment"] = tag[97:125]
    for name, raw in fields.items():
        if text := raw.split(b"\0")[0].strip():
            parsed.add(name, [decode_undeclared(text)])
    if genre := genre_name(tag[127]):
        parsed.add("genre", [genre])
    return parsed


def _walk(source: Source, offset: int, length: int, parsed: Parsed) -> None:
    version, flags = source.at(offset + 3, 1), source.at(offset + 5, 1)
    end = min(offset + length, source.size)
    if version not in (b"\3", b"\4") or flags not in (b"\0", b"\x10"):
        raise NeedsMutagenError
    frames: list[tuple[str, bytes]] = []
    at = offset + _HEADER
    while at + _HEADER < end:
        head = source.at(at, _HEADER)
        if head[0] == 0:
            break
        size = int.from_bytes(head[4:8], "big")
        if version == b"\4":
            if size & 0x80808080:
                raise NeedsMutagenError
            size = (size >> 24 << 21) | (size >> 16 & 0x7F) << 14 | (size >> 8 & 0x7F) << 7 | (size & 0x7F)
        name = head[:4]
        if (
            head[9]
            or not name.isalnum()
            or not name.isupper()
            or at + _HEADER + size > end
            or size > _LARGEST_FRAME * 8
        ):
            _map(frames, parsed)
            raise NeedsMutagenError
        at += _HEADER
        _frame(source, name.decode(), at, size, frames, parsed)
        at += size
    _map(frames, parsed)


def _frame(source: Source, name: str, at: int, size: int, frames: list[tuple[str, bytes]], parsed: Parsed) -> None:  # noqa: PLR0913, PLR0917
    if name == "APIC":
        head = source.at(at, min(size, _PICTURE_HEAD))
        if (picture := _picture(head, size)) is None and size > _PICTURE_HEAD:
            picture = _picture(source.at(at, size), size)
        if picture is not None:
            parsed.pictures.append(picture)
    elif size and (name[0] in "TW" or name in _TEXT_BESIDE_T or name in _SPECIAL):
        if size > _LARGEST_FRAME:
            parsed.notes.append("value-capped")
        frames.append((name, source.at(at, min(size, _LARGEST_FRAME))))


def _map(frames: Iterable[tuple[str, bytes]], parsed: Parsed) -> None:
    """Add the names and values of all frames; version 2.3 splits the date into two of them."""
    year = day = ""
    for name, raw in frames:
        if name in _SPECIAL:
            try:
                _SPECIAL[name](raw, parsed)
            except (IndexError, struct.error):  # too short for its kind
                parsed.notes.append("tag-damaged")
        elif name[0] == "W":
            _add(parsed, name, [raw.split(b"\0")[0].decode("latin-1")])
        else:
            values = _texts(raw[0], raw[1:], parsed.notes)
            if name in {"TYER", "TDAT"}:
                year, day = (values[0], day) if name == "TYER" else (year, values[0])
            elif name not in {"TIME", "TSIZ", "TRDA"}:
                _add(parsed, name, values)
    _add_old_date(parsed, year, day)
    _split_work_from_grouping(parsed, [name for name, _raw in frames])


def _add_old_date(parsed: Parsed, year: str, day: str) -> None:
    """Join TYER, "1999", and TDAT, "3112"."""
    if year and "date" not in parsed.names:
        year = year.strip()
        has_day = len(year) == len(day) == 4 and day.isdecimal() and day != "0000"  # noqa: PLR2004
        parsed.add("date", [f"{year}-{day[2:]}-{day[:2]}" if has_day else year])


def _split_work_from_grouping(parsed: Parsed, kinds: list[str]) -> None:
    """Treat TIT1 as the work if iTunes's GRP1 exists too, else as the grouping, as in the standard."""
    if "GRP1" in kinds and "TIT1" in kinds:
        values = parsed.names.get("grouping", [])
        number = 1 if kinds.index("GRP1") < kinds.index("TIT1") else 0
        if len(values) == 2 and "work" not in parsed.names:  # noqa: PLR2004
            parsed.add("work", [values.pop(number)])


def _add(parsed: Parsed, kind: str, values: list[str]) -> None:
    if kind == "TCON":
        values = [genre for value in values for genre in genres_of(value.strip())]
    parsed.add(NAMES.get(kind) or kind.lower(), values)


def _texts(encoding: int, raw: bytes, notes: list[str]) -> list[str]:
    return _decoded(encoding, raw, notes).rstrip("\0").split("\0")


def _decoded(encoding: int, raw: bytes, notes: list[str]) -> str:
    """Decode text by the number of its encoding; text that may be mislabelled becomes `Undeclared`."""
    if encoding == 3:  # noqa: PLR2004
        return decode_utf8(raw, notes)
    if encoding in {1, 2}:
        if len(raw) & 1:
            raw = raw[:-1]
        text = raw.decode(_utf16(raw, encoding), "replace")
        if "\ufffd" in text:
            notes.append("invalid-text")
        return text.replace("\ufeff", "")
    return decode_undeclared(raw)


def _utf16(raw: bytes, encoding: int) -> str:
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    if encoding == 2:  # noqa: PLR2004
        return "utf-16-be"
    return "utf-16-be" if raw[::2].count(0) > raw[1::2].count(0) else "utf-16-le"


def _split(encoding: int, raw: bytes) -> tuple[bytes, bytes]:
    """Split a description from what follows."""
    if encoding not in {1, 2}:
        first, _zero, rest = raw.partition(b"\0")
        return first, rest
    at = raw.find(b"\0\0")
    while at >= 0 and at & 1:
        at = raw.find(b"\0\0", at + 1)
    return (raw[:at], raw[at + 2 :]) if at >= 0 else (raw, b"")


def _picture(raw: bytes, size: int) -> Picture | None:
    """Return a picture from the start of its frame, None if the start is too short."""
    mime, zero, rest = raw[1:].partition(b"\0")
    if not zero or not rest:
        return None
    _description, picture = _split(raw[0], rest[1:])
    if not picture and size > len(raw):
        return None
    text = mime.decode("latin-1").lower()
    if text and "/" not in text:
        text = f"image/{text.replace('jpg', 'jpeg')}"
    head = len(raw) - len(picture) if picture else len(raw)
    return Picture(rest[0], text, max(0, size - head))


def _user_text(raw: bytes, parsed: Parsed) -> None:
    description, rest = _split(raw[0], raw[1:])
    name = _decoded(raw[0], description, parsed.notes)
    parsed.add(tag_key(name) or "txxx", _texts(raw[0], rest, parsed.notes))


def _user_link(raw: bytes, parsed: Parsed) -> None:
    description, rest = _split(raw[0], raw[1:])
    name = tag_key(_decoded(raw[0], description, parsed.notes))
    parsed.add(name or "wxxx", [rest.split(b"\0")[0].decode("latin-1")])


def _comment(raw: bytes, parsed: Parsed) -> None:
    description, rest = _split(raw[0], raw[4:])
    _add_comment(parsed, _decoded(raw[0], description, parsed.notes), _texts(raw[0], rest, parsed.notes))


def _add_comment(parsed: Parsed, description: str, values: list[str]) -> None:
    name = tag_key(description.strip("\0 "))
    parsed.add("comment" if name in {"", "comment", "description"} else f"comment:{name}", values)


def _lyrics(raw: bytes, parsed: Parsed) -> None:
    _description, rest = _split(raw[0], raw[4:])
    parsed.add("lyrics", [_decoded(raw[0], rest, parsed.notes).rstrip("\0")])


def _synced_lyrics(raw: bytes, parsed: Parsed) -> None:
    encoding, unit, kind = raw[0], raw[4], raw[5]
    _description, rest = _split(encoding, raw[6:])
    lines = []
    while rest:
        text, rest = _split(encoding, rest)
        lines.append((_decoded(encoding, text, parsed.notes), int.from_bytes(rest[:4], "big")))
        rest = rest[4:]
    if kind in {0, 1, 2}:
        parsed.add("syncedlyrics", [to_lrc(lines, in_ms=unit == 2)])  # noqa: PLR2004


def to_lrc(lines: list[tuple[str, int]], *, in_ms: bool) -> str:
    """Return synchronised lyrics in the format of LRC files, but without times if those count frames."""
    if not in_ms:
        return "".join(text for text, _time in lines)
    return "\n".join(
        f"[{time // 60000:02d}:{time // 1000 % 60:02d}.{time // 10 % 100:02d}]{text.strip()}" for text, time in lines
    )


def _identifier(raw: bytes, parsed: Parsed) -> None:
    owner, _zero, identifier = raw.partition(b"\0")
    if owner.decode("latin-1") == _MUSICBRAINZ:
        parsed.add("musicbrainzrecordingid", [identifier.decode("latin-1")])


def _people(raw: bytes, parsed: Parsed) -> None:
    values = _texts(raw[0], raw[1:], parsed.notes)
    _add_people(parsed, list(zip(values[::2], values[1::2], strict=False)))


def _add_people(parsed: Parsed, people: list[tuple[str, str]]) -> None:
    for role, person in people:
        key = role.strip().lower()
        known = ROLES.get(key)
        value = person if known or key in {"", "performer"} else f"{person} ({role.strip()})"
        parsed.add(known or "performer", [Undeclared(value) if isinstance(person, Undeclared) else value])


def _rating(raw: bytes, parsed: Parsed) -> None:
    email, _zero, rest = raw.partition(b"\0")
    if rest and rest[0]:
        parsed.add("rating", [f"{rest[0]}/255" + (f" ({email.decode('latin-1')})" if email else "")])


def _volume(raw: bytes, parsed: Parsed) -> None:
    """Read a gain from RVA2, the frame that players used before ReplayGain had names."""
    kind, _zero, rest = raw.partition(b"\0")
    name = tag_key(kind.decode("latin-1"))
    if name in {"track", "album"} and len(rest) >= 3 and rest[0] == 1:  # noqa: PLR2004
        (gain,) = struct.unpack(">h", rest[1:3])
        parsed.names.setdefault(f"replaygain{name}gain", [f"{gain / 512:.2f} dB"])


_SPECIAL: Final[dict[str, Any]] = {
    "TXXX": _user_text, "WXXX": _user_link, "COMM": _comment, "USLT": _lyrics, "SYLT": _synced_lyrics,
    "UFID": _identifier, "TIPL": _people, "TMCL": _people, "IPLS": _people, "POPM": _rating, "RVA2": _volume,
}  # fmt: skip


def _read_with_mutagen(source: Source, offset: int, length: int) -> Parsed:
    """Read a tag with mutagen, after correcting its length and flags."""
    length = min(length, source.size - offset, _LARGEST_TAG_FOR_MUTAGEN)
    raw = bytearray(source.at(offset, length))
    body = len(raw) - _HEADER
    raw[6:10] = bytes((body >> 21 & 0x7F, body >> 14 & 0x7F, body >> 7 & 0x7F, body & 0x7F))
    raw[5] &= 0xE0
    parsed = Parsed()
    add_frames(ID3(io.BytesIO(bytes(raw)), load_v1=False), parsed)
    return parsed


def add_frames(tag: Any, parsed: Parsed) -> None:  # noqa: ANN401 - mutagen has no types
    """Add the frames that mutagen has read."""
    frames = list(tag.values())  # once: looking up each key takes quadratic time
    for frame in frames:
        _add_frame(frame, parsed)
    _split_work_from_grouping(parsed, [frame.FrameID for frame in frames])


def _add_frame(frame: Any, parsed: Parsed) -> None:  # noqa: ANN401, PLR0912 - mutagen has no types
    kind = frame.FrameID
    mark = Undeclared if getattr(frame, "encoding", None) == 0 else str
    if kind == "APIC":
        parsed.pictures.append(Picture(int(frame.type), frame.mime.lower(), len(frame.data)))
    elif kind == "TXXX":
        parsed.add(tag_key(frame.desc) or "txxx", _marked(frame.text, mark))
    elif kind == "COMM":
        _add_comment(parsed, frame.desc, _marked(frame.text, mark))
    elif kind == "USLT":
        parsed.add("lyrics", _marked([frame.text], mark))
    elif kind == "SYLT":
        parsed.add("syncedlyrics", [to_lrc(frame.text, in_ms=frame.format == 2)])  # noqa: PLR2004
    elif kind == "UFID":
        if frame.owner == _MUSICBRAINZ:
            parsed.add("musicbrainzrecordingid", [frame.data.decode("latin-1")])
    elif kind in {"TIPL", "TMCL", "IPLS"}:
        _add_people(parsed, [(pair[0], pair[1]) for pair in frame.people if len(pair) == 2])  # noqa: PLR2004
    elif kind == "POPM":
        parsed.add("rating", [f"{frame.rating}/255" + (f" ({frame.email})" if frame.email else "")])
    elif kind == "RVA2":
        if tag_key(frame.desc) in {"track", "album"}:
            parsed.add(f"replaygain{tag_key(frame.desc)}gain", [f"{frame.gain:.2f} dB"])
    elif kind[0] == "W":
        parsed.add(tag_key(frame.desc) or "wxxx" if kind == "WXXX" else NAMES.get(kind) or kind.lower(), [frame.url])
    elif kind[0] == "T" or kind in _TEXT_BESIDE_T:
        _add(parsed, kind, _marked(frame.text, mark))


def _marked(values: list[Any], mark: type[str]) -> list[str]:
    texts = [each.text if isinstance(each, ID3TimeStamp) else str(each) for each in values]
    return [text if text.isascii() else mark(text) for text in texts]
