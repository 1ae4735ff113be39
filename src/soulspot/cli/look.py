"""The commands that only read: tracks, artists, audit. None of them creates or changes a database."""

import asyncio
import re
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from soulspot import sockets
from soulspot.cli import logs
from soulspot.cli.follow import told_by_the_daemon
from soulspot.cli.text import duration, local_time, print_json, print_table, printable
from soulspot.config import find_catalogue, get_settings
from soulspot.errors import ConfigError, NotFoundError
from soulspot.infrastructure.filesystem import path_to_text
from soulspot.infrastructure.persistence.database import Database
from soulspot.infrastructure.persistence.models import AuditEntry, File
from soulspot.infrastructure.persistence.queries.audit_tail import Following
from soulspot.infrastructure.persistence.repositories import (
    ArtistRepository,
    AuditRepository,
    FileRepository,
    TrackRepository,
)
from soulspot.infrastructure.persistence.schema import require_current
from soulspot.ingest.patience import patiently

_SPAN = re.compile(r"(\d+)\s*([smhdw])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


@dataclass(frozen=True, slots=True)
class AuditQuestion:
    file: str | None
    artist: str | None
    action: str | None
    since: str | None
    limit: int | None


def tracks(words: Sequence[str], config: Path | None, *, limit: int | None, as_json: bool) -> None:
    asyncio.run(_tracks(words, config, limit=limit, as_json=as_json))


def artists(words: Sequence[str], config: Path | None, *, limit: int | None, as_json: bool) -> None:
    asyncio.run(_artists(words, config, limit=limit, as_json=as_json))


def audit(question: AuditQuestion, config: Path | None, *, follow: bool, as_json: bool) -> None:
    try:
        asyncio.run(_audit(question, config, follow=follow, as_json=as_json))
    except KeyboardInterrupt:
        if not follow:
            raise


async def _tracks(words: Sequence[str], config: Path | None, *, limit: int | None, as_json: bool) -> None:
    async with catalogue(config) as (database, _url):
        found = await TrackRepository(database.session).search(words, limit)
    if as_json:
        for file in found:
            print_json(_track(file))
        return
    headings = ("artist", "title", "album", "no.", "length", "file")
    print_table(headings, [_track_row(file) for file in found])


def _track(file: File) -> dict[str, Any]:
    track = file.track
    assert track is not None
    named = ("track_number", "track_total", "disc_number", "disc_total", "date", "genres", "duration_ms", "codec")
    more = ("bitrate", "sample_rate", "channels", "has_cover", "musicbrainz_recording_id")
    return {
        "id": track.id,
        "title": track.title,
        "artist": track.artist_credit,
        "artist_id": track.artist_id,
        "album": track.album.title if track.album else None,
        "album_artist": track.album.artist_credit if track.album else None,
        **{name: getattr(track, name) for name in named + more},
        "path": whole_path(file),
        "status": file.status,
    }


def _track_row(file: File) -> Sequence[object]:
    track = file.track
    assert track is not None
    album = track.album.title if track.album else None
    path = whole_path(file) if file.status == "catalogued" else f"{whole_path(file)} ({file.status})"
    return track.artist_credit, track.title, album, track.track_number, duration(track.duration_ms), path


async def _artists(words: Sequence[str], config: Path | None, *, limit: int | None, as_json: bool) -> None:
    async with catalogue(config) as (database, _url):
        found = await ArtistRepository(database.session).search(words, limit)
    if as_json:
        for artist, count in found:
            ids = {"id": artist.id, "name": artist.name, "musicbrainz_id": artist.musicbrainz_id}
            print_json(ids | {"tracks": count})
        return
    print_table(
        ("artist", "tracks", "MusicBrainz id"), [(each.name, count, each.musicbrainz_id) for each, count in found]
    )


async def _audit(question: AuditQuestion, config: Path | None, *, follow: bool, as_json: bool) -> None:
    since = moment(question.since, "--since") if question.since else None
    path = path_to_text(str(Path(question.file).absolute())) if question.file else None
    asked: dict[str, Any] = {"path": path, "artist": question.artist, "action": question.action}
    async with catalogue(config) as (database, url):
        entries = AuditRepository(database.session)
        last = await entries.last_sequence()
        for entry in await entries.entries(**asked, since=since, limit=question.limit):
            print_entry(entry, as_json=as_json)
            last = max(last, entry.sequence)
        if follow:
            sys.stdout.flush()
            following = Following(entries, last)
            place = partial(sockets.place_to_ask, get_settings(config_file=config), url)
            async with told_by_the_daemon(place) if database.is_sqlite else database.hearing() as wait:
                while True:
                    if not (numbers := await patiently(following.new)):
                        await wait()
                        continue
                    for entry in await patiently(partial(entries.entries, **asked, among=numbers)):
                        print_entry(entry, as_json=as_json)
                    sys.stdout.flush()


def print_entry(entry: AuditEntry, *, as_json: bool) -> None:
    if as_json:
        names = ("sequence", "at", "action", "entity_type", "entity_id", "path", "changes", "run")
        print_json({name: getattr(entry, name) for name in names})
    else:
        changes = "; ".join(f"{name}: {_change(value)}" for name, value in (entry.changes or {}).items())
        line = f"{local_time(entry.at)}  {entry.action:<15} {entry.path or entry.entity_id}"
        print(printable(f"{line}  {changes}" if changes else line), flush=True)


def _change(value: object) -> str:
    if isinstance(value, list) and len(value) == 2:  # noqa: PLR2004 - before and after
        return f"{_shown(value[0])} → {_shown(value[1])}"
    return _shown(value)


def _shown(value: object) -> str:
    return "nothing" if value is None else str(value)


def moment(text: str, option: str) -> datetime:
    """Return the moment that a person means by a time or by a span before now."""
    if (span := _SPAN.fullmatch(text.strip())) is not None:
        return datetime.now(UTC) - timedelta(**{_UNITS[span[2]]: int(span[1])})
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except ValueError as error:
        msg = f"{option} {text!r} is no time: write 2026-11-23, 2026-11-23T18:00, or a span such as 90m, 24h or 7d"
        raise ConfigError(msg) from error


def span(text: str, option: str) -> timedelta:
    """Return the span that a person means by 90m, 24h or 7d."""
    if (found := _SPAN.fullmatch(text.strip())) is None:
        msg = f"{option} {text!r} is no span of time: write 90m, 24h or 30d"
        raise ConfigError(msg)
    return timedelta(**{_UNITS[found[2]]: int(found[1])})


def whole_path(file: File) -> str:
    return f"{file.folder.path.rstrip('/')}/{file.path}"


async def file_asked_for(database: Database, asked: str) -> File:
    """Return the file that a person means by its path, by its id or by that of its track."""
    files = FileRepository(database.session)
    if "/" not in asked and (file := await files.with_id(asked)) is not None:
        return file
    path = path_to_text(str(Path(asked).absolute()))
    if found := await files.at(path):
        return found[0]
    msg = (
        f"the catalogue has no file {printable(path)}: `soulspot tracks` and `soulspot failures list` show what it has"
    )
    raise NotFoundError(msg)


@asynccontextmanager
async def catalogue(config: Path | None) -> AsyncIterator[tuple[Database, str]]:
    """Open the catalogue that there is, for reading."""
    settings = get_settings(config_file=config)
    logs.set_up(settings.log.level, settings.log.format)
    url = find_catalogue(settings)
    async with Database(url, read_only=True) as database:
        await require_current(database)
        yield database, url
