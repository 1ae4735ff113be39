"""Reads rare formats, and every file that a native parser gives up on, with mutagen."""

import base64
import contextlib
import struct
from typing import Any, BinaryIO, Final, cast

import mutagen
from mutagen import (
    aac,
    ac3,
    aiff,
    asf,
    dsdiff,
    dsf,
    flac,
    monkeysaudio,
    mp3,
    mp4,
    musepack,
    oggflac,
    oggopus,
    oggspeex,
    oggtheora,
    oggvorbis,
    optimfrog,
    smf,
    tak,
    trueaudio,
    wave,
    wavpack,
)
from mutagen.apev2 import APEv2
from mutagen.asf import ASFTags
from mutagen.flac import Picture as FlacPicture
from mutagen.id3 import ID3
from mutagen.mp4 import MP4Tags

from soulspot.infrastructure.tags.fields import tag_key
from soulspot.infrastructure.tags.formats.id3 import add_frames
from soulspot.infrastructure.tags.formats.mp4 import NAMES as MP4_NAMES
from soulspot.infrastructure.tags.formats.parsed import Parsed
from soulspot.infrastructure.tags.formats.stream import stream_of
from soulspot.infrastructure.tags.model import Picture

ASF_NAMES: Final = {
    "Title": "title", "Author": "artist", "Description": "comment", "Copyright": "copyright",
    "WM/AlbumTitle": "album", "WM/Year": "date", "WM/AlbumArtist": "albumartist", "WM/Text": "comment",
    "WM/ArtistSortOrder": "artistsort", "WM/AlbumArtistSortOrder": "albumartistsort",
    "WM/TitleSortOrder": "titlesort", "WM/AlbumSortOrder": "albumsort", "WM/ComposerSortOrder": "composersort",
    "WM/CatalogNo": "catalognumber", "WM/ContentGroupDescription": "grouping", "WM/PartOfSet": "discnumber",
    "WM/SetSubTitle": "discsubtitle", "WM/Writer": "lyricist", "WM/ModifiedBy": "remixer",
    "WM/OriginalReleaseYear": "originaldate", "WM/OriginalReleaseTime": "originaldate", "WM/Publisher": "label",
    "WM/OriginalAlbumTitle": "originalalbum", "WM/OriginalArtist": "originalartist",
    "WM/OriginalLyricist": "originallyricist", "WM/BeatsPerMinute": "bpm", "WM/IsCompilation": "compilation",
    "WM/EncodedBy": "encodedby", "WM/EncodingSettings": "encodersettings", "WM/AuthorURL": "website",
    "WM/PartOfACompilation": "compilation", "WM/Lyrics_Synchronised": "syncedlyrics", "WM/ToolName": "toolname",
}  # fmt: skip
CLASSES: Final = {
    "flac": flac.FLAC, "mp4": mp4.MP4, "wav": wave.WAVE, "aiff": aiff.AIFF, "asf": asf.ASF,
    "ape": monkeysaudio.MonkeysAudio, "musepack": musepack.Musepack, "wavpack": wavpack.WavPack,
    "tta": trueaudio.TrueAudio, "optimfrog": optimfrog.OptimFROG, "tak": tak.TAK, "dsf": dsf.DSF,
    "dsdiff": dsdiff.DSDIFF, "midi": smf.SMF, "aac": aac.AAC, "ac3": ac3.AC3,
}  # fmt: skip
_OGG = ((b"\x01vorbis", oggvorbis.OggVorbis), (b"OpusHead", oggopus.OggOpus), (b"Speex   ", oggspeex.OggSpeex),
        (b"\x7fFLAC", oggflac.OggFLAC), (b"\x80theora", oggtheora.OggTheora))  # fmt: skip
_WITH_ID3_INSIDE = (wave.WAVE, aiff.AIFF, dsf.DSF, dsdiff.DSDIFF)
_MAX_READS = 200_000
_BINARY_NAMES = frozenset(("metadatablockpicture", "coverart", "coverartmime"))


class OffsetFile:
    """A file without its first bytes, which hides a leading tag from mutagen.

    It allows a limited number of reads: some of mutagen's parsers never end on a damaged file.
    """

    def __init__(self, file: BinaryIO, start: int, size: int) -> None:
        self._file = file
        self._start = start
        self._size = size
        self._reads = 0
        self.seek(0)

    def seek(self, offset: int, whence: int = 0) -> int:
        base = {0: 0, 1: self.tell(), 2: self._size - self._start}[whence]
        if base + offset < 0:
            raise OSError(22, "Invalid argument")
        return self._file.seek(self._start + base + offset) - self._start

    def tell(self) -> int:
        return self._file.tell() - self._start

    def read(self, size: int | None = -1) -> bytes:
        self._reads += 1
        if self._reads > _MAX_READS:
            raise ValueError("the parser never stops reading")
        return self._file.read(-1 if size is None else size)


def read_with_mutagen(container: str | None, file: BinaryIO, start: int, size: int) -> Parsed | None:
    """Read a file with the class of its container, else by mutagen's own guess; None if that finds nothing."""
    view = cast("BinaryIO", OffsetFile(file, start, size))
    opener = _MPEG if container == "mp3" else CLASSES.get(container or "", mutagen.File)
    if container == "ogg":
        head = view.read(256)
        opener = next((each for mark, each in _OGG if mark in head), mutagen.File)
        view.seek(0)
    opened = opener(view)
    if opened is None:
        return None
    parsed = Parsed(stream=stream_of(opened))
    if isinstance(opened, wavpack.WavPack):
        view.seek(0)
        parsed.stream |= _wavpack(view.read(32))
    elif isinstance(opened, trueaudio.TrueAudio):
        view.seek(0)
        parsed.stream |= _tta(view.read(32))
    if isinstance(opened.tags, ID3) and isinstance(opened, _WITH_ID3_INSIDE):
        add_frames(opened.tags, parsed)
    _add_tag(opened.tags, parsed)
    _add_pictures(opened, parsed)
    return parsed


def _tta(header: bytes) -> dict[str, Any]:
    channels, bits = struct.unpack_from("<HH", header, 6)
    return {"channels": channels, "bits_per_sample": bits}


def _wavpack(header: bytes) -> dict[str, Any]:
    """Return what mutagen gets wrong: channels, known only if one block holds all of them, and lossy hybrid files."""
    flags = int.from_bytes(header[24:28], "little")
    channels = 1 if flags & 4 else 2
    return {"channels": channels if flags & 0x1800 == 0x1800 else None, "lossless": not flags & 8}  # noqa: PLR2004


class _MPEG:
    """An MPEG stream without its tags, however damaged they are."""

    def __init__(self, file: BinaryIO) -> None:
        self.info = mp3.MPEGInfo(file, 0)
        self.tags = None


def _add_tag(tag: Any, parsed: Parsed) -> None:  # noqa: ANN401 - mutagen has no types
    if tag is None or isinstance(tag, ID3 | APEv2):
        return  # these can surround any stream: `tags.reader` reads them
    if isinstance(tag, MP4Tags):
        _add_mp4(tag, parsed)
    elif isinstance(tag, ASFTags):
        for name, value in tag:
            if name != "WM/Picture":
                known = ASF_NAMES.get(name) or tag_key(name.removeprefix("WM/"))
                parsed.add(known, [str(value)])
        _number_asf_track(parsed)
    else:
        for name, value in tag if isinstance(tag, list) else list(tag.items()):
            if tag_key(name) not in _BINARY_NAMES:
                parsed.add(tag_key(name), [str(each) for each in (value if isinstance(value, list) else [value])])


def _number_asf_track(parsed: Parsed) -> None:
    """Convert WM/Track, which counts from zero, if its successor WM/TrackNumber is missing."""
    numbers = parsed.names.get("track", [])
    if "tracknumber" not in parsed.names and numbers and numbers[0].isdecimal():
        parsed.names["tracknumber"] = [str(int(numbers[0]) + 1)]
    parsed.names.pop("track", None)


def _add_mp4(tag: Any, parsed: Parsed) -> None:  # noqa: ANN401
    for key, value in list(tag.items()):
        if key in {"trkn", "disk"}:
            parsed.add("tracknumber" if key == "trkn" else "discnumber", ["/".join(map(str, pair)) for pair in value])
        elif key == "cpil":
            parsed.add("compilation", ["1" if value else "0"])
        elif key.startswith("----"):
            parsed.add(tag_key(key.rpartition(":")[2]), [bytes(each).decode("utf-8", "replace") for each in value])
        elif key != "covr":
            values = value if isinstance(value, list) else [int(value) if isinstance(value, bool) else value]
            parsed.add(MP4_NAMES.get(key) or key.lower(), [str(each) for each in values if isinstance(each, str | int)])


def _add_pictures(opened: Any, parsed: Parsed) -> None:  # noqa: ANN401
    tag = opened.tags
    if (own := getattr(opened, "pictures", None)) is not None:
        parsed.pictures += [Picture(each.type, each.mime.lower(), len(each.data)) for each in own]
    elif isinstance(tag, MP4Tags):
        for each in tag.get("covr", []):
            parsed.pictures.append(Picture(3, "image/png" if each.imageformat == 14 else "image/jpeg", len(each)))  # noqa: PLR2004
    elif isinstance(tag, ASFTags):
        parsed.pictures += [_asf_picture(each.value) for each in tag.get("WM/Picture", [])]
    elif isinstance(tag, list):
        _add_vorbis_pictures(tag, parsed)


def _add_vorbis_pictures(tag: list[tuple[str, str]], parsed: Parsed) -> None:
    for name, value in tag:
        if tag_key(name) == "metadatablockpicture":
            with contextlib.suppress(Exception):  # ignore a damaged picture
                picture = FlacPicture(base64.b64decode(value))
                parsed.pictures.append(Picture(picture.type, picture.mime.lower(), len(picture.data)))
        elif tag_key(name) == "coverart":
            parsed.pictures.append(Picture(0, "", len(value) * 3 // 4))


def _asf_picture(raw: bytes) -> Picture:
    size = int.from_bytes(raw[1:5], "little")
    return Picture(raw[0] if raw else 3, raw[5:205].decode("utf-16-le", "replace").partition("\0")[0].lower(), size)
