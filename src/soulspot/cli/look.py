"""The commands that only read: status, tracks, artists, audit. None of them creates or changes a database."""

import asyncio
import re
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from soulspot import sockets
from soulspot.cli import logs
from soulspot.cli.text import duration, local_time, print_json, print_table, printable
from soulspot.config import database_file, find_catalogue, get_settings
from soulspot.errors import ConfigError, NotFoundError
from soulspot.infrastructure.filesystem import path_to_text
from soulspot.infrastructure.persistence.database import Database, Place
from soulspot.infrastructure.persistence.listening import Wait
from soulspot.infrastructure.persistence.lock import holder_of
from soulspot.infrastructure.persistence.models import MOUNT_STATES, AuditEntry, File
from soulspot.infrastructure.persistence.owner import Writer
from soulspot.infrastructure.persistence.repositories import (
    ArtistRepository,
    AuditRepository,
    FileRepository,
    FolderRepository,
    KnownFolder,
    TrackRepository,
)
from soulspot.infrastructure.persistence.schema import require_current
from soulspot.ingest.patience import patiently

FOLLOW_BATCH = 1000
GIVE_UP_AFTER = 120.0
"""Seconds after which a number that was passed over is one whose transaction was rolled back."""
_SPAN = re.compile(r"(\d+)\s*([smhdw])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


@dataclass(frozen=True, slots=True)
class AuditQuestion:
    file: str | None
    artist: str | None
    action: str | None
    since: str | None
    limit: int | None


def status(config: Path | None, *, as_json: bool) -> None:
    asyncio.run(_status(config, as_json=as_json))


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


async def _status(config: Path | None, *, as_json: bool) -> None:
    async with catalogue(config) as (database, url):
        folders = await FolderRepository(database.session).all()
        files = FileRepository(database.session)
        counts, failures = await files.counts(), await files.failures(10)
        file = database_file(url)
        daemon = sockets.ask(get_settings(config_file=config), url, "status")
        writers = [] if file else await database.writers([Place(each.node, each.path) for each in folders])
        holder = holder_of(file) if file else "; ".join(map(str, writers)) or None
        report: dict[str, Any] = {
            **_health(daemon, holder, folders),
            "database": database.url.render_as_string(hide_password=True) if file is None else str(file),
            "writer": holder,
            "writers": [_writer(each) for each in writers],
            "tracks": sum(count for (_folder, state, _code), count in counts.items() if state == "catalogued"),
            "failures": Counter(),
            "folders": [],
        }
        for (_folder, state, code), count in counts.items():
            if state == "failed":
                report["failures"][code] += count
        for folder in folders:
            by_state = Counter[str]()
            for (folder_id, state, _code), count in counts.items():
                by_state[state] += count if folder_id == folder.id else 0
            told = (daemon or {}).get("folders", {}).get(folder.path, {})
            described = {name: getattr(folder, name) for name in ("node", "path", "id", "status")}
            described["reason"] = folder.status_reason
            described |= {name: told.get(name) for name in ("watched", "last_event", "last_reconcile")}
            counted = {state: by_state[state] for state in ("catalogued", "failed", "missing", "ignored")}
            report["folders"].append(described | counted)
    if as_json:
        print_json(report)
    else:
        _print_status(report, failures)


def _print_status(report: dict[str, Any], failures: Sequence[File]) -> None:
    print(f"health    {report['health']}" + "".join(f"\n          {printable(each)}" for each in report["reasons"]))
    print(f"database  {report['database']}")
    if not report["writers"]:
        print(f"writer    {report['writer'] or 'none: no soulspot is watching'}")
    for each in report["writers"]:
        print(f"writer    {printable(each['name'])}{_whence(each)}")
        for place in each["folders"]:
            print(f"          {printable(place['path'])} of {printable(place['node'])}")
    print(f"tracks    {report['tracks']}")
    for each in report["folders"]:
        reason = f" ({each['reason']})" if each["reason"] else ""
        print(f"folder    {printable(each['path'])}: {each['status']}{reason}")
        if each["status"] in MOUNT_STATES:
            continue  # a file system below a folder: its files are counted there
        if each["watched"]:
            print(f"          watched by {each['watched']}; last event {_ago(each['last_event'])},", end=" ")
            print(f"last reconcile {_ago(each['last_reconcile'])}")
        ignored = f", {each['ignored']} ignored" if each["ignored"] else ""
        print(f"          {each['catalogued']} catalogued, {each['failed']} failed, {each['missing']} missing{ignored}")
    if queue := report["queue"]:
        oldest = f", the oldest for {queue['oldest_seconds']} s" if queue["in_hand"] or queue["settling"] else ""
        print(f"queue     {queue['in_hand']} in hand, {queue['settling']} not complete yet{oldest}")
    for hook in report["hooks"] or ():
        print(f"hook      {printable(hook['place'])}: {_state_of(hook)}")
    for code, count in report["failures"].most_common():
        print(f"failed    {count} {code}")
    for row in failures:
        print(f"          {printable(whole_path(row))}: {printable(row.error_text or '')}")


def _writer(writer: Writer) -> dict[str, Any]:
    return {
        "name": writer.name,
        "pid": writer.pid,
        "address": writer.address,
        "since": writer.since,
        "folders": [place._asdict() for place in writer.folders],
    }


def _whence(writer: dict[str, Any]) -> str:
    since = f", since {local_time(writer['since'])}" if writer["since"] else ""
    return (f", from {writer['address']}" if writer["address"] else "") + since


def _health(daemon: dict[str, Any] | None, holder: str | None, folders: Sequence[KnownFolder]) -> dict[str, Any]:
    """Return what the daemon says of itself; without one, what the catalogue shows."""
    if daemon is not None:
        return {name: daemon.get(name) for name in ("health", "reasons", "pid", "since", "queue", "hooks")}
    reasons = [] if holder else ["no soulspot is watching"]
    reasons += [f"folder {each.path} was offline: {each.status_reason}" for each in folders if each.status == "offline"]
    return {
        "health": "degraded" if reasons else "ok",
        "reasons": reasons,
        "pid": None,
        "since": None,
        "queue": None,
        "hooks": None,
    }


def _state_of(hook: dict[str, Any]) -> str:
    if hook["error"]:
        return f"fails ({printable(hook['error'])}), {hook['waiting']} changes not told yet"
    return f"told of {hook['delivered']} batches, the last {_ago(hook['last_delivery'])}"


def _ago(moment: str | None) -> str:
    if moment is None:
        return "none yet"
    seconds = round((datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds())
    return f"{seconds} s ago" if seconds < 120 else f"{seconds // 60} min ago"  # noqa: PLR2004 - a minute or two


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
    async with catalogue(config) as (database, _url):
        entries = AuditRepository(database.session)
        last = await entries.last_sequence()
        for entry in await entries.entries(**asked, since=since, limit=question.limit):
            print_entry(entry, as_json=as_json)
            last = max(last, entry.sequence)
        if follow:
            sys.stdout.flush()
            async with database.hearing() as wait:
                async for numbers in _taken(entries, last, wait):
                    for entry in await patiently(partial(entries.entries, **asked, among=numbers)):
                        print_entry(entry, as_json=as_json)
                    sys.stdout.flush()


async def _taken(entries: AuditRepository, last: int, wait: Wait) -> AsyncIterator[Sequence[int]]:
    """Yield the numbers of new entries, each once.

    Where several write, a number is taken before its entry can be seen, so a later one may be seen first. One that was
    passed over is looked for until its transaction must have ended.
    """
    passed_over: dict[int, float] = {}
    while True:
        now = time.monotonic()
        passed_over = {number: since for number, since in passed_over.items() if now - since < GIVE_UP_AFTER}
        numbers = await patiently(entries.numbers, last, passed_over, FOLLOW_BATCH)
        if numbers and numbers[-1] > last:
            between = range(max(last + 1, numbers[-1] - FOLLOW_BATCH), numbers[-1])
            passed_over |= dict.fromkeys(set(between).difference(numbers), now)
            last = numbers[-1]
        for number in numbers:
            passed_over.pop(number, None)
        if numbers:
            yield numbers
        else:
            await wait()


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
