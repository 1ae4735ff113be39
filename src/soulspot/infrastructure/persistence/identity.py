"""The keys that identify artists and albums, and the ids of rows.

Imports only the standard library, so that the translation of tags, which needs no database, can use it.
"""

import hashlib
import os
import re
import time
import unicodedata
from functools import lru_cache

NAME_LENGTH = 500
"""Characters of a title or name that a column keeps; the track's `tags` keep a longer one whole."""
# The folder of one of several discs: "CD 2", "Disc 1 - Live", and at the end of an album's name, "The Wall (Disc 1)".
_DISC = r"(?:cd|dis[ckqx](?:ue|o)?|dvd|lp|side|seite|диск|ディスク)[ _.#-]*(?:[0-9]{1,2}|[a-d])\b"
_DISC_FOLDER = re.compile(rf"{_DISC}.*", re.IGNORECASE)
_DISC_AT_END = re.compile(rf"(?P<album>.*[^\s([{{_,-])[\s([{{_,-]+{_DISC}[^\w]*", re.IGNORECASE)
_VARIOUS = frozenset(
    {
        "various artists",
        "various",
        "va",
        "v.a.",
        "v/a",
        "diverse interpreten",
        "verschiedene interpreten",
        "varios artistas",
        "artistes divers",
        "artisti vari",
        "vários artistas",
        "сборник",
        "разные исполнители",
        "ヴァリアス・アーティスト",
    }
)


def new_id() -> str:
    """Return a UUID of version 7 (RFC 9562): rows created one after the other are neighbours in an index."""
    moment, chance = time.time_ns() // 1_000_000, int.from_bytes(os.urandom(10))
    text = f"{moment << 80 | chance & ~(0xF << 76) & ~(0x3 << 62) | 0x7 << 76 | 0x2 << 62:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


@lru_cache(maxsize=4096)
def normalize_name(text: str) -> str:
    """Return the key that all spellings of a name share: NFKC, without case, with single spaces.

    It keeps scripts and accents: "Beyoncé" is one artist however it is composed, and is not "Beyonce".
    """
    return " ".join(unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold()).split())


def is_various(artist: str | None) -> bool:
    """Whether this names no artist, but an album of many artists."""
    return artist is not None and normalize_name(artist) in _VARIOUS


def album_folder(path: str) -> str:
    """Return the album folder of a path below a watched folder.

    A folder named like "CD 2" counts as its parent, and "The Wall (Disc 1)" as "The Wall", so that an album of several
    discs is one album.
    """
    return _album_folder(path.rpartition("/")[0])


@lru_cache(maxsize=4096)
def _album_folder(folder: str) -> str:
    folders = folder.split("/")
    if _DISC_FOLDER.fullmatch(folders[-1]):
        folders.pop()
    elif (match := _DISC_AT_END.fullmatch(folders[-1])) is not None:
        folders[-1] = match["album"]
    return "/".join(folders)


def album_name(title: str, artist: str | None, date: str | None, *, compilation: bool | None) -> str:
    """Return what distinguishes the albums of one folder: title, album artist and year.

    The tracks of a compilation may carry the years of their songs, so the year does not identify it.
    """
    year = "" if date is None or compilation or is_various(artist) else date[:4]
    return "\0".join((normalize_name(title), normalize_name(artist or ""), year))


def album_key(folder_id: str, path: str, name: str, musicbrainz_id: str | None) -> str:
    """Return an album's identity: its MusicBrainz release id, else a digest of its folder and `album_name`."""
    if musicbrainz_id is not None:
        return f"mbid:{musicbrainz_id}"
    parts = "\0".join((folder_id, album_folder(path), name))
    return "b2:" + hashlib.blake2b(parts.encode(), digest_size=20).hexdigest()
