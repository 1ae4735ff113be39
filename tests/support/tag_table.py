"""The name of each field in each tag format: tests write it with mutagen and read it back, docs/tags.md shows it.

`python -m tests.support.tag_table` prints the table for docs/tags.md. A cell names an ID3 frame ("TXXX:ARTISTS" is a
user text of that description, "TIPL:mix" a role in a list of people), an APEv2 item, a Vorbis comment, an MP4 atom
("----:ARTISTS" is a freeform one of com.apple.iTunes), an ASF attribute, a RIFF INFO chunk or an AIFF chunk.
"""

import shutil
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mutagen
from mutagen import id3
from mutagen.apev2 import APEv2
from mutagen.mp4 import MP4FreeForm

AUDIO = Path(__file__).parents[1] / "audio"
UUID = "0b1c2d3e-4f50-4162-8394-a5b6c7d8e9f0"
FORMATS = ("ID3v2", "APEv2", "Vorbis", "MP4", "ASF", "RIFF INFO", "AIFF", "ID3v1")


@dataclass(frozen=True, slots=True)
class Row:
    """A field: what tests write, what they expect to read, and its name in each of FORMATS, empty where it has none."""

    field: str
    written: tuple[str, ...]
    read: Any
    names: tuple[str, ...]

    def name_in(self, kind: str) -> str:
        return self.names[FORMATS.index(kind)] if FORMATS.index(kind) < len(self.names) else ""


def one(field: str, *names: str, written: str = "Ünï 音", read: Any = None) -> Row:
    return Row(field, (written,), written if read is None else read, names)


def many(field: str, *names: str, written: tuple[str, ...] = ("First Ä", "Second")) -> Row:
    return Row(field, written, written, names)


def same(field: str, key: str, id3_name: str, mp4_name: str, asf: str, *more: str) -> Row:
    """Return the row of a single text with the same name in APEv2 and Vorbis."""
    return one(field, id3_name, key, key, mp4_name, asf, *more)


def people(field: str, key: str, id3_name: str, asf: str, *more: str, mp4: str = "") -> Row:
    return many(field, id3_name, key, key, mp4 or f"----:{key}", asf, *more)


def identity(field: str, key: str, words: str, *, is_many: bool = False) -> Row:
    """Return the row of a MusicBrainz id: one word in Vorbis and APEv2, several elsewhere."""
    names = (f"TXXX:MusicBrainz {words}", key, key, f"----:MusicBrainz {words}", f"MusicBrainz/{words}")
    return Row(field, (UUID,), (UUID,) if is_many else UUID, names)


ROWS = (
    one("title", "TIT2", "Title", "TITLE", "©nam", "Title", "INAM", "NAME", "title"),
    same("title_sort", "TITLESORT", "TSOT", "sonm", "WM/TitleSortOrder"),
    same("subtitle", "SUBTITLE", "TIT3", "----:SUBTITLE", "WM/SubTitle"),
    one("artist", "TPE1", "Artist", "ARTIST", "©ART", "Author", "IART", "AUTH", "artist"),
    many("artists", "TXXX:ARTISTS", "Artists", "ARTISTS", "----:ARTISTS", "WM/ARTISTS"),
    same("artist_sort", "ARTISTSORT", "TSOP", "soar", "WM/ArtistSortOrder"),
    one("album", "TALB", "Album", "ALBUM", "©alb", "WM/AlbumTitle", "IPRD", "", "album"),
    same("album_sort", "ALBUMSORT", "TSOA", "soal", "WM/AlbumSortOrder"),
    one("album_artist", "TPE2", "Album Artist", "ALBUMARTIST", "aART", "WM/AlbumArtist", "IAAR"),
    many("album_artists", "TXXX:ALBUMARTISTS", "ALBUMARTISTS", "ALBUMARTISTS", "----:ALBUMARTISTS", "WM/ALBUMARTISTS"),
    same("album_artist_sort", "ALBUMARTISTSORT", "TSO2", "soaa", "WM/AlbumArtistSortOrder"),
    people("composers", "COMPOSER", "TCOM", "WM/Composer", "IMUS", mp4="©wrt"),
    same("composer_sort", "COMPOSERSORT", "TSOC", "soco", "WM/ComposerSortOrder"),
    people("lyricists", "LYRICIST", "TEXT", "WM/Writer"),
    people("writers", "WRITER", "TXXX:Writer", "WM/WRITER", "IWRI"),
    people("conductors", "CONDUCTOR", "TPE3", "WM/Conductor"),
    people("arrangers", "ARRANGER", "TIPL:arranger", "WM/ARRANGER"),
    people("performers", "PERFORMER", "TMCL:", "WM/PERFORMER", "ISTR"),
    Row("performer_instruments", ("A. Bird (cello)",), ("cello",),
        ("TMCL:cello", "PERFORMER", "PERFORMER", "----:PERFORMER", "WM/PERFORMER", "ISTR")),
    people("remixers", "REMIXER", "TPE4", "WM/ModifiedBy", "IEDT"),
    people("producers", "PRODUCER", "TIPL:producer", "WM/Producer", "IPRO"),
    people("engineers", "ENGINEER", "TIPL:engineer", "WM/Engineer", "IENG"),
    people("mixers", "MIXER", "TIPL:mix", "WM/Mixer"),
    people("dj_mixers", "DJMIXER", "TIPL:DJ-mix", "WM/DJMixer"),
    people("directors", "DIRECTOR", "TXXX:DIRECTOR", "WM/Director", mp4="©dir"),
    people("labels", "LABEL", "TPUB", "WM/Publisher", "IPUB"),
    people("catalog_numbers", "CATALOGNUMBER", "TXXX:CATALOGNUMBER", "WM/CatalogNo"),
    same("barcode", "BARCODE", "TXXX:BARCODE", "----:BARCODE", "WM/Barcode"),
    same("asin", "ASIN", "TXXX:ASIN", "----:ASIN", "ASIN"),
    many("isrcs", "TSRC", "ISRC", "ISRC", "----:ISRC", "WM/ISRC", written=("DEAB12345678",)),
    Row("track_number", ("3/12",), 3, ("TRCK", "Track", "TRACKNUMBER", "trkn", "WM/TrackNumber", "ITRK", "", "track")),
    Row("track_total", ("3/12",), 12, ("TRCK", "Track", "TRACKNUMBER", "trkn", "WM/TrackNumber", "ITRK")),
    Row("disc_number", ("1/2",), 1, ("TPOS", "Disc", "DISCNUMBER", "disk", "WM/PartOfSet")),
    Row("disc_total", ("1/2",), 2, ("TPOS", "Disc", "DISCNUMBER", "disk", "WM/PartOfSet")),
    same("disc_subtitle", "DISCSUBTITLE", "TSST", "----:DISCSUBTITLE", "WM/SetSubTitle"),
    one("date", "TDRC", "Year", "DATE", "©day", "WM/Year", "ICRD", "", "date", written="1999-12-31"),
    one("original_date", "TDOR", "ORIGINALDATE", "ORIGINALDATE", "----:ORIGINALDATE", "WM/OriginalReleaseTime",
        written="1967-06"),
    one("release_date", "TDRL", "RELEASEDATE", "RELEASEDATE", "----:RELEASEDATE", "WM/RELEASEDATE", written="2001"),
    same("original_album", "ORIGINALALBUM", "TOAL", "----:ORIGINALALBUM", "WM/OriginalAlbumTitle"),
    same("original_artist", "Original Artist", "TOPE", "----:ORIGINALARTIST", "WM/OriginalArtist"),
    many("genres", "TCON", "Genre", "GENRE", "©gen", "WM/Genre", "IGNR", "", "genre", written=("Rock", "Drum & Bass")),
    one("bpm", "TBPM", "BPM", "BPM", "tmpo", "WM/BeatsPerMinute", "IBPM", written="128", read=128.0),
    same("key", "KEY", "TKEY", "----:initialkey", "WM/InitialKey"),
    many("moods", "TMOO", "Mood", "MOOD", "----:MOOD", "WM/Mood", "IMBI"),
    many("languages", "TLAN", "Language", "LANGUAGE", "----:LANGUAGE", "WM/Language", "ILNG", written=("deu",)),
    same("script", "Script", "TXXX:SCRIPT", "----:SCRIPT", "WM/Script"),
    same("grouping", "Grouping", "TIT1", "©grp", "WM/ContentGroupDescription"),
    same("work", "WORK", "TXXX:WORK", "©wrk", "WM/Work"),
    same("movement", "MOVEMENTNAME", "MVNM", "©mvn", "WM/MOVEMENTNAME"),
    Row("movement_number", ("2",), 2, ("MVIN", "MOVEMENTNUMBER", "MOVEMENTNUMBER", "©mvi", "WM/MOVEMENTNUMBER")),
    Row("movement_total", ("4",), 4,
        ("TXXX:MOVEMENTTOTAL", "MOVEMENTTOTAL", "MOVEMENTTOTAL", "©mvc", "WM/MOVEMENTTOTAL")),
    one("comment", "COMM", "Comment", "COMMENT", "©cmt", "Description", "ICMT", "ANNO", "comment"),
    same("lyrics", "LYRICS", "USLT", "©lyr", "WM/Lyrics"),
    one("synced_lyrics", "SYLT", "SYNCEDLYRICS", "SYNCEDLYRICS", "----:SYNCEDLYRICS", "WM/SYNCEDLYRICS",
        written="[00:01.50]la"),
    one("copyright", "TCOP", "Copyright", "COPYRIGHT", "cprt", "Copyright", "ICOP", "(c) "),
    one("license", "WCOP", "LICENSE", "LICENSE", "----:LICENSE", "LICENSE", written="https://example.org/by"),
    one("website", "WOAR", "Weblink", "WEBSITE", "----:WEBSITE", "WM/AuthorURL", "IBSU",
        written="https://example.org"),
    Row("compilation", ("1",), True, ("TCMP", "Compilation", "COMPILATION", "cpil", "WM/IsCompilation")),
    many("release_types", "TXXX:MusicBrainz Album Type", "MUSICBRAINZ_ALBUMTYPE", "RELEASETYPE",
         "----:MusicBrainz Album Type", "MusicBrainz/Album Type", written=("album", "live")),
    one("release_status", "TXXX:MusicBrainz Album Status", "MUSICBRAINZ_ALBUMSTATUS", "RELEASESTATUS",
        "----:MusicBrainz Album Status", "MusicBrainz/Album Status", written="official"),
    one("release_country", "TXXX:MusicBrainz Album Release Country", "RELEASECOUNTRY", "RELEASECOUNTRY",
        "----:MusicBrainz Album Release Country", "MusicBrainz/Album Release Country", "ICNT", written="DE"),
    same("media", "Media", "TMED", "----:MEDIA", "WM/Media", "IMED"),
    one("musicbrainz_recording_id", "UFID:http://musicbrainz.org", "MUSICBRAINZ_TRACKID", "MUSICBRAINZ_TRACKID",
        "----:MusicBrainz Track Id", "MusicBrainz/Track Id", written=UUID),
    identity("musicbrainz_track_id", "MUSICBRAINZ_RELEASETRACKID", "Release Track Id"),
    identity("musicbrainz_album_id", "MUSICBRAINZ_ALBUMID", "Album Id"),
    identity("musicbrainz_release_group_id", "MUSICBRAINZ_RELEASEGROUPID", "Release Group Id"),
    identity("musicbrainz_work_id", "MUSICBRAINZ_WORKID", "Work Id"),
    one("musicbrainz_disc_id", "TXXX:MusicBrainz Disc Id", "MUSICBRAINZ_DISCID", "MUSICBRAINZ_DISCID",
        "----:MusicBrainz Disc Id", "MusicBrainz/Disc Id", written="p.5xoyYRtCVFe2gt0mfTfsXrO9U-"),
    identity("musicbrainz_artist_ids", "MUSICBRAINZ_ARTISTID", "Artist Id", is_many=True),
    identity("musicbrainz_album_artist_ids", "MUSICBRAINZ_ALBUMARTISTID", "Album Artist Id", is_many=True),
    identity("musicbrainz_original_album_id", "MUSICBRAINZ_ORIGINALALBUMID", "Original Album Id"),
    identity("musicbrainz_original_artist_ids", "MUSICBRAINZ_ORIGINALARTISTID", "Original Artist Id", is_many=True),
    one("acoustid_id", "TXXX:Acoustid Id", "ACOUSTID_ID", "ACOUSTID_ID", "----:Acoustid Id", "Acoustid/Id",
        written=UUID),
    one("acoustid_fingerprint", "TXXX:Acoustid Fingerprint", "ACOUSTID_FINGERPRINT", "ACOUSTID_FINGERPRINT",
        "----:Acoustid Fingerprint", "Acoustid/Fingerprint", written="AQADtFOSRE"),
    *(
        Row(f"replaygain_{which}", (text,), number,
            (f"TXXX:REPLAYGAIN_{key}", f"REPLAYGAIN_{key}", f"REPLAYGAIN_{key}", f"----:REPLAYGAIN_{key}",
             f"REPLAYGAIN/{key}"))
        for which, key, text, number in (
            ("track_gain", "TRACK_GAIN", "-7.25 dB", -7.25), ("track_peak", "TRACK_PEAK", "0.988", 0.988),
            ("album_gain", "ALBUM_GAIN", "+1.5 dB", 1.5), ("album_peak", "ALBUM_PEAK", "1.01", 1.01),
        )
    ),
    one("encoder", "TXXX:ENCODER", "ENCODER", "ENCODER", "©too", "WM/ENCODER", "ISFT"),
    one("encoder_settings", "TSSE", "ENCODERSETTINGS", "ENCODERSETTINGS", "----:ENCODERSETTINGS",
        "WM/EncodingSettings"),
    one("encoded_by", "TENC", "EncodedBy", "ENCODEDBY", "©enc", "WM/EncodedBy", "ITCH"),
)  # fmt: skip
"""In the order of `TrackTags`."""


def write_id3(path: Path, name: str, values: tuple[str, ...], *, version: int = 4) -> None:
    kind, _colon, rest = name.partition(":")
    song = mutagen.File(path)
    if song.tags is None:
        song.add_tags()
    texts = list(values)
    if kind in {"TIPL", "TMCL"}:
        texts = [each.removesuffix(f" ({rest})") for each in texts]
        song.tags.add(id3.Frames[kind](encoding=1, people=[[rest, each] for each in texts]))
    elif kind == "TXXX":
        song.tags.add(id3.TXXX(encoding=1, desc=rest, text=texts))
    elif kind == "UFID":
        song.tags.add(id3.UFID(owner=rest, data=texts[0].encode()))
    elif kind in {"COMM", "USLT"}:
        song.tags.add(id3.Frames[kind](encoding=1, lang="eng", desc="", text=texts[0]))
    elif kind == "SYLT":
        song.tags.add(id3.SYLT(encoding=1, lang="eng", format=2, type=1, text=[(texts[0].partition("]")[2], 1500)]))
    elif kind[0] == "W":
        song.tags.add(id3.Frames[kind](url=texts[0]))
    else:
        song.tags.add(id3.Frames[kind](encoding=1, text=texts))
    if version == 3:
        song.tags.update_to_v23()
    song.save(v2_version=version)


def write_by_name(path: Path, name: str, values: tuple[str, ...]) -> None:
    """Write a Vorbis comment, an APEv2 item or an ASF attribute."""
    song = mutagen.File(path)
    if song.tags is None:
        song.add_tags()
    song[name] = values[0] if isinstance(song.tags, APEv2) and len(values) == 1 else list(values)
    song.save()


def write_mp4(path: Path, name: str, values: tuple[str, ...]) -> None:
    song = mutagen.File(path)
    if name.startswith("----:"):
        song[f"----:com.apple.iTunes:{name[5:]}"] = [MP4FreeForm(each.encode()) for each in values]
    elif name in {"trkn", "disk"}:
        song[name] = [tuple(int(each) for each in values[0].split("/"))]
    elif name == "cpil":
        song[name] = True
    elif name in {"tmpo", "©mvi", "©mvc"}:
        song[name] = [int(each) for each in values]
    else:
        song[name] = list(values)
    song.save()


def write_riff(path: Path, name: str, values: tuple[str, ...]) -> None:
    texts = b"".join(chunk("<", name, each.encode() + b"\0") for each in values)
    content = path.read_bytes()
    before = content.find(b"LIST")
    length = int.from_bytes(content[before + 4 : before + 8], "little")
    content = content[:before] + content[before + 8 + length :] + chunk("<", "LIST", b"INFO" + texts)
    path.write_bytes(content[:4] + struct.pack("<I", len(content) - 8) + content[8:])


def write_aiff(path: Path, name: str, values: tuple[str, ...]) -> None:
    content = path.read_bytes() + b"".join(chunk(">", name, each.encode()) for each in values)
    path.write_bytes(content[:4] + struct.pack(">I", len(content) - 8) + content[8:])


def chunk(order: str, name: str, content: bytes) -> bytes:
    return name.encode() + struct.pack(f"{order}I", len(content)) + content + bytes(len(content) & 1)


def write_id3v1(path: Path, name: str, values: tuple[str, ...]) -> None:
    places = {"title": (3, 30), "artist": (33, 30), "album": (63, 30), "date": (93, 4), "comment": (97, 28)}
    tag = bytearray(b"TAG" + bytes(124) + b"\xff")
    if name == "track":
        tag[126] = int(values[0].partition("/")[0])
    elif name == "genre":
        tag[127] = id3.TCON.GENRES.index(values[0])
    else:
        place, length = places[name]
        text = "1999" if name == "date" else "Кино"
        tag[place : place + length] = text.encode("cp1251").ljust(length, b"\0")
    path.write_bytes(path.read_bytes() + tag)


WRITERS: dict[str, Callable[[Path, str, tuple[str, ...]], None]] = {
    "ID3v2": write_id3, "APEv2": write_by_name, "Vorbis": write_by_name, "MP4": write_mp4, "ASF": write_by_name,
    "RIFF INFO": write_riff, "AIFF": write_aiff, "ID3v1": write_id3v1,
}  # fmt: skip
TEMPLATES = {
    "ID3v2": ("tone.mp3", "tone.wav", "tone.aiff", "tone.dsf", "tone.tta"), "APEv2": ("tone.wv", "tone.mpc"),
    "Vorbis": ("tone.flac", "tone.ogg", "tone.opus", "tone.spx", "tone.oga"), "MP4": ("tone.m4a", "tone.alac.m4a"),
    "ASF": ("tone.wma",), "RIFF INFO": ("tone.wav",), "AIFF": ("tone.aiff",), "ID3v1": ("tone.mp3",),
}  # fmt: skip


def file_with(row: Row, kind: str, template: str, folder: Path) -> Path:
    """Return a copy of a template with the field written."""
    path = Path(shutil.copy(AUDIO / template, folder / template))
    WRITERS[kind](path, row.name_in(kind), row.written)
    return path


def table() -> str:
    """Return the table for the documentation."""
    lines = [f"| Field | {' | '.join(FORMATS)} |", "|---" * (len(FORMATS) + 1) + "|"]
    for row in ROWS:
        cells = [f"`{name.strip()}`" if (name := row.name_in(kind)) else "" for kind in FORMATS]
        lines.append(f"| `{row.field}` | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(table())
