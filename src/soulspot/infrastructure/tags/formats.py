"""Each tag format as folded names with their values; what is particular to a format is in its own table here."""

import base64
import contextlib
from typing import Any

from mutagen.apev2 import APEBinaryValue, APEv2
from mutagen.asf import ASFTags
from mutagen.flac import Picture as FlacPicture
from mutagen.id3 import ID3, ID3TimeStamp
from mutagen.mp4 import MP4Tags

from soulspot.infrastructure.tags.fields import Names, folded
from soulspot.infrastructure.tags.model import Picture

_ID3 = {
    "TIT2": "title", "TIT3": "subtitle", "TPE1": "artist", "TPE2": "albumartist", "TPE3": "conductor",
    "TPE4": "remixer", "TALB": "album", "TRCK": "tracknumber", "TPOS": "discnumber", "TSST": "discsubtitle",
    "TDRC": "date", "TDOR": "originaldate", "TORY": "originaldate", "TCON": "genre", "TCOM": "composer",
    "TEXT": "lyricist", "TPUB": "label", "TSRC": "isrc", "TBPM": "bpm", "TKEY": "key", "TLAN": "language",
    "TMED": "media", "TMOO": "mood", "TIT1": "grouping", "GRP1": "grouping", "MVNM": "movement", "TCMP": "compilation",
    "TSOP": "artistsort", "TSO2": "albumartistsort", "TSSE": "encodersettings", "TENC": "encodedby",
}  # fmt: skip
_MP4 = {
    "\xa9nam": "title", "\xa9ART": "artist", "aART": "albumartist", "\xa9alb": "album", "\xa9day": "date",
    "\xa9gen": "genre", "\xa9wrt": "composer", "\xa9cmt": "comment", "\xa9lyr": "lyrics", "\xa9grp": "grouping",
    "\xa9too": "encodedby", "\xa9wrk": "work", "\xa9mvn": "movement", "soar": "artistsort", "soaa": "albumartistsort",
    "cpil": "compilation", "tmpo": "bpm",
}  # fmt: skip
_ASF = {
    "Title": "title", "Author": "artist", "Description": "comment", "WM/AlbumTitle": "album", "WM/Year": "date",
    "WM/AlbumArtist": "albumartist", "WM/ArtistSortOrder": "artistsort", "WM/AlbumArtistSortOrder": "albumartistsort",
    "WM/CatalogNo": "catalognumber", "WM/ContentGroupDescription": "grouping", "WM/PartOfSet": "discnumber",
    "WM/SetSubTitle": "discsubtitle", "WM/Writer": "lyricist", "WM/ModifiedBy": "remixer",
    "WM/OriginalReleaseYear": "originaldate", "WM/OriginalReleaseTime": "originaldate", "WM/Publisher": "label",
    "WM/BeatsPerMinute": "bpm", "WM/IsCompilation": "compilation", "WM/EncodedBy": "encodedby",
}  # fmt: skip
_PEOPLE = {"arranger": "arranger", "producer": "producer", "mix": "mixer", "engineer": "engineer", "DJ-mix": "djmixer"}
_MUSICBRAINZ = "http://musicbrainz.org"


def names_of(opened: Any, file: Any) -> Names:  # noqa: ANN401 - mutagen has no types
    """Return every text of a file's tag by its folded name, in the order of the file."""
    tag = getattr(opened, "tags", opened)
    if tag is None:
        return _beside(file)
    if isinstance(tag, ID3):
        return _id3(tag)
    if isinstance(tag, MP4Tags):
        return _mp4(tag)
    if isinstance(tag, ASFTags):
        return _asf(tag)
    if isinstance(tag, APEv2):
        return _ape(tag)
    names: Names = {}
    for name, value in tag if isinstance(tag, list) else tag.items():
        if folded(name) not in {"metadatablockpicture", "coverart", "coverartmime"}:
            _add(names, folded(name), value if isinstance(value, list) else [value])
    return names


def pictures_of(opened: Any) -> tuple[Picture, ...]:  # noqa: ANN401
    """Return the embedded pictures, without their bytes."""
    tag = getattr(opened, "tags", opened)
    if (own := getattr(opened, "pictures", None)) is not None:
        return tuple(Picture(each.type, each.mime, len(each.data)) for each in own)
    if isinstance(tag, ID3):
        return tuple(Picture(int(each.type), each.mime, len(each.data)) for each in tag.getall("APIC"))
    if isinstance(tag, MP4Tags):
        return tuple(Picture(3, "image/png" if each.imageformat == 14 else "image/jpeg", len(each))  # noqa: PLR2004
                     for each in tag.get("covr", []))  # fmt: skip
    if isinstance(tag, ASFTags):
        return tuple(Picture(3, "", len(each.value)) for each in tag.get("WM/Picture", []))
    if isinstance(tag, APEv2):
        return tuple(
            Picture(3, "", len(value.value)) for name, value in tag.items() if name.lower().startswith("cover")
        )
    found = []
    with contextlib.suppress(AttributeError, TypeError):
        for name, value in tag or ():
            if folded(name) == "metadatablockpicture":
                with contextlib.suppress(Exception):
                    picture = FlacPicture(base64.b64decode(value))
                    found.append(Picture(picture.type, picture.mime, len(picture.data)))
            elif folded(name) == "coverart":
                found.append(Picture(0, "", len(value) * 3 // 4))
    return tuple(found)


def _add(names: Names, name: str, values: Any) -> None:  # noqa: ANN401
    names.setdefault(name, []).extend(str(value) for value in values)


def _id3(tag: Any) -> Names:  # noqa: ANN401
    names: Names = {}
    for key, frame in tag.items():
        kind = key[:4]
        if kind == "TCON":
            _add(names, "genre", frame.genres)
        elif kind in _ID3:
            values = [each.text if isinstance(each, ID3TimeStamp) else each for each in frame.text]
            _add(names, _ID3[kind], values)
        elif kind == "TXXX":
            _add(names, folded(frame.desc), frame.text)
        elif kind == "UFID":
            if frame.owner == _MUSICBRAINZ:
                _add(names, "musicbrainzrecordingid", [frame.data.decode("ascii", "replace")])
        elif kind in {"TIPL", "IPLS", "TMCL"}:
            for role, person in (each for each in frame.people if len(each) == 2):  # noqa: PLR2004
                known = _PEOPLE.get(role)
                _add(names, known or "performer", [person if known else f"{person} ({role})"])
        elif kind == "COMM":
            _add(names, "comment" if not frame.desc else folded(f"comment:{frame.desc}"), frame.text)
        elif kind == "USLT":
            _add(names, "lyrics", [frame.text])
        elif kind.startswith("T") or kind == "MVIN":
            _add(names, kind.lower(), frame.text)
        elif kind.startswith("W"):
            _add(names, kind.lower(), [frame.url])
    return names


def _mp4(tag: Any) -> Names:  # noqa: ANN401
    names: Names = {}
    for key, value in tag.items():
        if key in {"trkn", "disk"}:
            name = "tracknumber" if key == "trkn" else "discnumber"
            _add(names, name, ["/".join(map(str, pair)) for pair in value[:1]])
        elif key == "cpil":
            _add(names, "compilation", ["1" if value else "0"])
        elif key in _MP4:
            _add(names, _MP4[key], value)
        elif key.startswith("----"):
            texts = [bytes(each).decode("utf-8", "replace") for each in value]
            _add(names, folded(key.rpartition(":")[2]), texts)
        elif key != "covr" and isinstance(value, list):
            _add(names, key.lower(), [each for each in value if isinstance(each, str | int)])
    return names


def _asf(tag: Any) -> Names:  # noqa: ANN401
    names: Names = {}
    for key, value in tag:
        if key != "WM/Picture":
            _add(names, _ASF.get(key) or folded(key.removeprefix("WM/")), [value])
    return names


def _ape(tag: Any) -> Names:  # noqa: ANN401
    names: Names = {}
    for key, value in tag.items():
        if not isinstance(value, APEBinaryValue):
            _add(names, folded(key), list(value))
    return names


def _beside(file: Any) -> Names:  # noqa: ANN401
    """Read the tag that a tool has put around a stream without one: ID3 on AAC, APEv2 on MP3."""
    for open_tag, names in ((ID3, _id3), (APEv2, _ape)):
        try:
            file.seek(0)
            return names(open_tag(file))
        except Exception:  # noqa: BLE001, S112 - there is none, or it is broken: the stream is known all the same
            continue
    return {}
