"""Fills a catalogue with any number of tracks, as a collection that grew over years.

The rows go into the migrated schema by the fastest way of each database: COPY, or one transaction of `executemany`.

- A few artists have hundreds of albums, most have one.
- An album has 1 to 30 tracks; every twelfth is a compilation with an artist for each track.
- Credits name main artists, album artists and composers.
- 2 in 100 files are missing, and 1 in 200 is a failure.
- 3 in 10 tracks were retagged and 1 in 10 was moved, each with its audit entry.

Everything but the ids is drawn from a seed.
"""

import json
import os
import random
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import psycopg

from soulspot.infrastructure.filesystem import Signature
from soulspot.infrastructure.persistence.identity import album_key, album_name, new_id, normalize_name
from soulspot.infrastructure.tags import PARSER_VERSION, TrackTags

BATCH: Final = 5_000
TRACKS_PER_ARTIST: Final = 15
COMPILATION_EVERY: Final = 12
LENGTHS: Final = (1, 2, 4, 8, 10, 11, 12, 12, 13, 14, 16, 20, 30)
HAS_COMPOSER, HAS_COVER, IS_RETAGGED, IS_MOVED = 0.4, 0.5, 0.3, 0.1
BEGAN: Final = datetime(2015, 3, 1, tzinfo=UTC)
SYLLABLES: Final = ("ba", "be", "do", "fra", "gla", "hul", "jin", "ka", "lor", "mi", "nes", "ov", "pla", "qui", "ral")
GENRES: Final = ("Rock", "Jazz", "Ambient", "Pop", "Hörspiel", "Classical")
EXTENSIONS: Final = ("mp3", "mp3", "mp3", "flac", "flac", "m4a", "ogg", "opus")
COLUMNS: Final = {
    "artists": "id name name_key created_at",
    "albums": "id identity_key title title_key artist_id artist_credit date disc_total compilation created_at",
    "tracks": "id title artist_id artist_credit album_id track_number track_total disc_total date genres compilation"
    " duration_ms bitrate sample_rate channels container codec lossless has_cover search_text tags created_at"
    " updated_at",
    "track_artists": "track_id role position artist_id credited_as",
    "files": "id folder_id path size mtime_ns ctime_ns inode status missing_since error_code error_text failed_at"
    " attempts parser_version fingerprint notes track_id created_at",
    "audit_log": "at action entity_type entity_id path changes run",
}
"""The columns that the rows fill, in this order; all others stay NULL."""


@dataclass(frozen=True, slots=True)
class Place:
    """A watched folder of the catalogue; if `is_real`, its files exist on disk, as holes that take no space."""

    id: str
    path: str
    files: int
    is_real: bool = False


@dataclass(frozen=True, slots=True)
class Example:
    """One present file, with the tags that its rows were made from."""

    place: Place
    path: str
    signature: Signature
    tags: TrackTags


class Collection:
    """The rows of a catalogue with files in some places; it remembers `examples` of the files, and all artists."""

    def __init__(self, places: Sequence[Place], *, examples: int = 0, seed: int = 7) -> None:
        self.places = places
        self.artists: list[str] = []
        self.remembered: list[Example] = []
        total = sum(place.files for place in places)
        self._artist_count = max(total // TRACKS_PER_ARTIST, 1)
        self._share = examples / max(total, 1)
        self._chance = random.Random(seed)
        self._ids: dict[str, str] = {}
        self._moment = ""
        self._rows: dict[str, list[tuple[Any, ...]]] = {table: [] for table in COLUMNS}

    def batches(self) -> Iterator[dict[str, list[tuple[Any, ...]]]]:
        """Yield the rows by table, each table after those that it refers to."""
        album = 0
        for place in self.places:
            left = place.files
            while left:
                length = min(left, self._chance.choice(LENGTHS))
                self._add_album(place, album, length)
                left, album = left - length, album + 1
                if len(self._rows["files"]) >= BATCH:
                    yield self._rows
                    self._rows = {table: [] for table in COLUMNS}
        yield self._rows

    def _add_album(self, place: Place, number: int, length: int) -> None:
        self._moment = f"{BEGAN + timedelta(minutes=17 * number):%Y-%m-%d %H:%M:%S.%f}"
        is_compilation = number % COMPILATION_EVERY == COMPILATION_EVERY - 1
        # Each artist has at least one album; a few have all the others.
        main = _name(number) if number < self._artist_count else self._someone()
        artist, title = "Various Artists" if is_compilation else main, f"{_name(number * 7 + 3)} {number}"
        year = str(1960 + self._chance.randrange(65))
        folder = f"{artist}/{year} - {title}"
        if place.is_real:
            os.makedirs(f"{place.path}/{folder}")
        key = album_key(place.id, f"{folder}/x", album_name(title, artist, year, compilation=is_compilation), None)
        row = (
            album_id := new_id(),
            key,
            title,
            normalize_name(title),
            self._artist_id(artist),
            artist,
            year,
            1,
            is_compilation,
        )
        self._rows["albums"].append((*row, self._moment))
        self._log("album_added", album_id, None, {"title": title, "artist": artist})
        for position in range(1, length + 1):
            name = self._someone() if is_compilation else main
            tags = TrackTags(
                title=f"{_name(self._chance.randrange(1 << 20))} {position}",
                artist=name,
                artists=(name,),
                album=title,
                album_artist=artist,
                composers=(self._someone(),) if self._chance.random() < HAS_COMPOSER else (),
                date=year,
                disc_total=1,
                track_number=position,
                track_total=length,
                compilation=is_compilation,
                fingerprint=f"b2:{self._chance.getrandbits(160):040x}",
            )
            extension = self._chance.choice(EXTENSIONS)
            self._add_file(place, f"{folder}/{position:02d} {tags.title}.{extension}", album_id, tags)

    def _add_file(self, place: Place, path: str, album_id: str, tags: TrackTags) -> None:
        size = 2_000_000 + self._chance.randrange(30_000_000)
        signature = _made(place, path, size) if place.is_real else self._made_up(size)
        fates, shares = ("", "missing", "failed"), (0.975, 0.02, 0.005)
        fate = "" if place.is_real else self._chance.choices(fates, shares)[0]
        place_and_state = (new_id(), place.id, path, size, signature.mtime_ns, signature.ctime_ns, signature.inode)
        if fate == "failed":
            failure = ("failed", None, "corrupt", "its frames cannot be followed", self._moment, 1, PARSER_VERSION)
            self._rows["files"].append((*place_and_state, *failure, None, "[]", None, self._moment))
            self._log("file_failed", place_and_state[0], f"{place.path}/{path}", {"code": "corrupt", "attempts": 1})
            return
        status = ("missing", self._moment) if fate else ("catalogued", None)
        read = (None, None, None, 0, PARSER_VERSION, tags.fingerprint, "[]", track_id := new_id(), self._moment)
        self._rows["files"].append((*place_and_state, *status, *read))
        self._add_track(track_id, album_id, tags, path.rpartition(".")[2])
        self._add_history(track_id, f"{place.path}/{path}", tags, is_missing=bool(fate))
        if not fate and self._chance.random() < self._share:
            self.remembered.append(Example(place, path, signature, tags))

    def _add_track(self, track_id: str, album_id: str, tags: TrackTags, extension: str) -> None:
        artist = str(tags.artist)
        names = (track_id, tags.title, self._artist_id(artist), artist, album_id)
        numbers = (tags.track_number, tags.track_total, 1, tags.date, json.dumps([self._chance.choice(GENRES)]))
        stream = (tags.compilation, 100_000 + self._chance.randrange(300_000), 192_000, 44_100, 2, extension, extension)
        rest = (
            extension == "flac",
            self._chance.random() < HAS_COVER,
            normalize_name(f"{tags.title} {artist} {tags.album}"),
        )
        more = ('{"labels": ["A label"], "encoder": "LAME 3.100"}', self._moment, self._moment)
        self._rows["tracks"].append((*names, *numbers, *stream, *rest, *more))
        credited = [("main", artist), ("album artist", str(tags.album_artist))]
        for role, name in credited + [("composer", name) for name in tags.composers]:
            self._rows["track_artists"].append((track_id, role, 0, self._artist_id(name), name))

    def _add_history(self, track_id: str, path: str, tags: TrackTags, *, is_missing: bool) -> None:
        """Add the audit entries of a track."""
        self._log("track_added", track_id, path, {"title": tags.title, "artist": tags.artist, "album": tags.album})
        for action, share in (("track_updated", IS_RETAGGED), ("track_moved", IS_MOVED), ("track_missing", is_missing)):
            if self._chance.random() < share:
                self._log(action, track_id, path, {"title": ["The title before", tags.title]})

    def _someone(self) -> str:
        return _name(int(self._artist_count * self._chance.random() ** 2.5))

    def _artist_id(self, name: str) -> str:
        if (known := self._ids.get(name)) is not None:
            return known
        artist_id = self._ids[name] = new_id()
        self.artists.append(name)
        self._rows["artists"].append((artist_id, name, normalize_name(name), self._moment))
        self._log("artist_added", artist_id, None, {"name": name, "musicbrainz_id": None})
        return artist_id

    def _log(self, action: str, entity_id: str, path: str | None, changes: dict[str, Any]) -> None:
        kind = action.partition("_")[0]
        self._rows["audit_log"].append((self._moment, action, kind, entity_id, path, json.dumps(changes), "made"))

    def _made_up(self, size: int) -> Signature:
        moment = 1_700_000_000_000_000_000 + self._chance.randrange(10**16)
        return Signature(size, moment, moment, (1 << 40) + self._chance.getrandbits(40))


def fill_sqlite(file: Path, collection: Collection) -> None:
    connection = sqlite3.connect(file, isolation_level=None)
    for pragma in ("synchronous=OFF", "cache_size=-200000"):
        connection.execute(f"PRAGMA {pragma}")
    connection.execute("BEGIN")
    for rows in collection.batches():
        for table, columns in COLUMNS.items():
            names = columns.split()
            into = f"INSERT INTO {table} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"  # noqa: S608 - ours
            connection.executemany(into, rows[table])
    connection.execute("COMMIT")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


def fill_postgres(connection: psycopg.Connection[Any], collection: Collection) -> None:
    """Fill through a superuser's connection, which may skip the foreign key checks."""
    connection.execute("SET session_replication_role = replica")
    connection.execute("SET timezone = 'UTC'")
    for rows in collection.batches():
        for table, columns in COLUMNS.items():
            copy = f"COPY {table} ({', '.join(columns.split())}) FROM STDIN"
            with connection.cursor() as cursor, cursor.copy(copy.encode()) as target:
                for row in rows[table]:
                    target.write_row(row)
    connection.execute("VACUUM ANALYZE")
    connection.execute("CHECKPOINT")


def _name(number: int) -> str:
    """Return a name that looks real and that no other number has."""
    parts, rest = [], number * 2_654_435_761 % (1 << 32)
    for _part in range(4):
        rest, syllable = divmod(rest, len(SYLLABLES))
        parts.append(SYLLABLES[syllable])
    return f"{parts[0]}{parts[1]} {parts[2]}{parts[3]} {number}".title()


def _made(place: Place, path: str, size: int) -> Signature:
    """Create a file of that size that is one hole."""
    descriptor = os.open(f"{place.path}/{path}", os.O_CREAT | os.O_WRONLY, 0o644)
    os.truncate(descriptor, size)
    status = os.fstat(descriptor)
    os.close(descriptor)
    return Signature.of(status)
