"""Writes a tagged music library to measure with, from the tests' templates; it needs no encoder.

The mix is that of a real collection: mp3 37.5 %, flac 25 %, m4a 12.5 %, ogg, opus, wav and aiff 6.25 % each; 12 songs
an album, 3 albums an artist, and in some albums a cover of 240 KB in every song. Each song lasts half a second.
"""

import base64
import os
import random
import shutil
from pathlib import Path

import mutagen
from mutagen.flac import FLAC, Picture
from mutagen.id3 import APIC, ID3, TALB, TCON, TDRC, TIT2, TPE1, TPE2, TRCK
from mutagen.mp4 import MP4, MP4Cover

TEMPLATES = Path(__file__).parents[1] / "tests" / "audio"
MIX = ["mp3", "flac", "mp3", "m4a", "mp3", "flac", "ogg", "mp3", "opus", "mp3", "flac", "m4a", "wav", "mp3", "flac"]
MIX += ["aiff"]
PER_ALBUM, PER_ARTIST, GENRES = 12, 36, ("Rock", "Jazz", "Ambient", "Pop")
COVER_BYTES = 240_000
_FRAMES = {"title": TIT2, "artist": TPE1, "albumartist": TPE2, "album": TALB, "tracknumber": TRCK, "date": TDRC,
           "genre": TCON}  # fmt: skip


def write_library(target: Path, files: int, *, cover_share: float = 0.5, seed: int = 2) -> None:
    """Write `files` songs below a folder that does not exist yet."""
    chance = random.Random(seed)
    cover = b"\xff\xd8\xff\xe0" + chance.randbytes(COVER_BYTES)
    extension, has_cover = "mp3", False
    for number in range(files):
        album, position = divmod(number, PER_ALBUM)
        if position == 0:
            extension, has_cover = MIX[album % len(MIX)], chance.random() < cover_share
        artist = f"Artist {number // PER_ARTIST:04d}"
        folder = target / artist / f"Album {album:05d}"
        folder.mkdir(parents=True, exist_ok=True)
        song = folder / f"{position + 1:02d} - Song {album}-{position + 1}.{extension}"
        shutil.copyfile(TEMPLATES / f"tone.{extension}", song)
        tags = {
            "title": f"Song {album}-{position + 1}",
            "artist": artist,
            "albumartist": artist,
            "album": f"Album {album:05d}",
            "tracknumber": f"{position + 1}/{PER_ALBUM}",
            "date": str(1970 + album % 50),
            "genre": GENRES[album % len(GENRES)],
        }
        write_tags(song, tags)
        if has_cover:
            _embed(song, cover)


def write_tags(song: Path, tags: dict[str, str]) -> None:
    """Set tags under mutagen's easy names, which are the same in every format."""
    opened = mutagen.File(song, easy=True)
    if opened.tags is None:
        opened.add_tags()
    for name, value in tags.items():
        if isinstance(opened.tags, ID3):  # mutagen has no easy names for WAV and AIFF
            opened.tags.setall(_FRAMES[name].__name__, [_FRAMES[name](encoding=3, text=[value])])
        else:
            opened[name] = value
    opened.save()


def _embed(song: Path, cover: bytes) -> None:
    opened = mutagen.File(song)
    picture = Picture()
    picture.type, picture.mime, picture.data = 3, "image/jpeg", cover
    if isinstance(opened, FLAC):
        opened.add_picture(picture)
    elif isinstance(opened, MP4):
        opened["covr"] = [MP4Cover(cover, MP4Cover.FORMAT_JPEG)]
    elif song.suffix in {".ogg", ".opus"}:
        opened["metadata_block_picture"] = [base64.b64encode(picture.write()).decode()]
    else:
        opened.tags.add(APIC(encoding=3, mime="image/jpeg", type=3, desc="", data=cover))
    opened.save()


def songs_in(folder: Path) -> list[str]:
    """Return the paths of a library's files, in order."""
    extensions = {f".{extension}" for extension in MIX}
    found = [os.path.join(place, name) for place, _folders, names in os.walk(folder) for name in names]
    return sorted(path for path in found if os.path.splitext(path)[1] in extensions)
