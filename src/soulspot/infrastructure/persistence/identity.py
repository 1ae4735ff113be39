"""Who is who: the keys by which artists and albums are told apart, and the ids that their rows get."""

import hashlib
import os
import re
import time
import unicodedata
from functools import lru_cache

_DISC_FOLDER = re.compile(r"(cd|dis[ck]|disque|side)[ _.-]*([0-9]{1,2}|[a-d])\b.*", re.IGNORECASE)


def new_id() -> str:
    """Return a UUID of version 7 (RFC 9562): rows made one after the other lie side by side in an index."""
    moment, chance = time.time_ns() // 1_000_000, int.from_bytes(os.urandom(10))
    text = f"{moment << 80 | chance & ~(0xF << 76) & ~(0x3 << 62) | 0x7 << 76 | 0x2 << 62:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


@lru_cache(maxsize=4096)
def fold(text: str) -> str:
    """Return what two spellings of one name share: NFKC, without case, with single spaces.

    Scripts survive, as do accents: "Beyoncé" is one artist however it is composed, and is not "Beyonce".
    """
    return " ".join(unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold()).split())


def album_key(path: str, title: str, artist: str | None, date: str | None, musicbrainz_id: str | None) -> str:
    """Return an album's identity: its MusicBrainz release id, else a digest of where it lies and what it is called.

    `path` is a track's path below its watched folder; a folder named like "CD 2" counts as its parent, so that an album
    of several discs is one.
    """
    if musicbrainz_id is not None:
        return f"mbid:{musicbrainz_id}"
    *folders, _name = path.split("/")
    if folders and _DISC_FOLDER.fullmatch(folders[-1]):
        folders.pop()
    parts = ("/".join(folders), fold(title), fold(artist or ""), date or "")
    return "b2:" + hashlib.blake2b("\0".join(parts).encode(), digest_size=20).hexdigest()
