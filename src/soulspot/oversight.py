"""How a running daemon is looked after: what it tells systemd, what it answers on its control socket, and whether the
file of its catalogue is still there.
"""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from soulspot import health
from soulspot.config import Settings, check_library, database_file
from soulspot.errors import CatalogueError, SoulspotError
from soulspot.feed import Feed, Happened
from soulspot.infrastructure import control
from soulspot.infrastructure.control import Answer, Arguments, Once, Stream
from soulspot.infrastructure.filesystem import path_to_text
from soulspot.infrastructure.persistence import backup
from soulspot.infrastructure.persistence.database import Database
from soulspot.infrastructure.systemd import notify, watchdog_interval
from soulspot.ingest.pipeline import Pipeline, Vitals
from soulspot.ingest.scanner import Root

logger = logging.getLogger(__name__)

DATABASE_LOOK = 2.0
"""Seconds between two looks at whether the database is still the file at its path."""
STATUS_EVERY = 1.0
"""Seconds between two lines of status, where it has changed."""
EXTEND_AFTER = 1.0
EXTEND_EVERY = 10.0
EXTENSION = 60
"""Seconds after which systemd is asked for more time, and again, and how much each time."""


@dataclass(slots=True)
class Change:
    """Settings to go on with; `done` has the answer once they are in force, or are not."""

    settings: Settings
    before: Settings
    done: "asyncio.Future[dict[str, Any]]"


@dataclass(slots=True)
class State:
    """What the control socket and systemd are told of; the daemon keeps it up to date."""

    settings: Settings
    since: datetime = field(default_factory=lambda: datetime.now(UTC))
    pipeline: Pipeline | None = None
    roots: Sequence[Root] = ()
    watchdog: health.Watchdog = field(default_factory=lambda: health.Watchdog(0))
    last_event: dict[Root, datetime] = field(default_factory=dict)
    feed: Feed = field(default_factory=Feed)


@asynccontextmanager
async def controlled(
    file: Path | None, state: State, read: Callable[[], Settings], changes: "asyncio.Queue[Change]"
) -> AsyncIterator[None]:
    """Answer questions about the daemon, beside the catalogue."""

    async def reload(_asked: Arguments) -> Answer:
        before = state.settings
        try:
            settings = read()
            check_library(settings, before.library.folders)
        except SoulspotError as error:
            return {"error": str(error)}
        if settings.database != before.database:
            return {"error": "the settings of the database change by a restart: systemctl restart soulspot"}
        if settings == before:
            return {"changed": False}
        change = Change(settings, before, asyncio.get_running_loop().create_future())
        changes.put_nowait(change)
        return await change.done

    async def status(_asked: Arguments) -> Answer:
        return _report(state)

    async def follow(_asked: Arguments) -> AsyncIterator[Answer]:
        with state.feed.listening() as listener:
            yield {"following": True}  # what happens from here on is told
            async for news in listener.news():
                yield {"lost": news.lost, "happened": [_told(each) for each in news.happened]}

    if file is None:
        yield
        return
    offers: control.Offers = {"status": Once(status), "follow": Stream(follow), "reload": Once(reload, steers=True)}
    async with control.serve(control.socket_of(file), offers):
        yield


def _told(happened: Happened) -> Answer:
    """Return an outcome as the control socket tells it."""
    outcome = happened.outcome
    told = {"kind": outcome.kind, "path": outcome.path, "track_id": outcome.track_id, "detail": outcome.detail}
    return {"at": happened.at.isoformat(), **told}


def _report(state: State) -> dict[str, Any]:
    """Return how the daemon is, for `soulspot status`."""
    told: dict[str, Any] = {"pid": os.getpid(), "since": state.since.isoformat()}
    if (pipeline := state.pipeline) is None:
        return told | {"health": "degraded", "reasons": ["it is starting"], "folders": {}}
    vitals = pipeline.vitals()
    found = _judge(state, pipeline, vitals)
    folders = {
        path_to_text(root.path): {
            "watched": "inotify" if root.trusts_inodes else "inotify and reconcile",
            "last_event": _moment(state.last_event.get(root)),
            "last_reconcile": _moment(pipeline.reconciled.get(root)),
        }
        for root in state.roots
    }
    return told | {
        "health": found.state,
        "reasons": found.reasons,
        "queue": {"in_hand": vitals.in_hand, "settling": vitals.settling, "oldest_seconds": round(vitals.oldest)},
        "finished": vitals.finished,
        "folders": folders,
    }


def _judge(state: State, pipeline: Pipeline, vitals: Vitals) -> health.Health:
    is_stuck = state.watchdog.is_stuck(vitals)
    return health.judge(vitals, pipeline.faults, pipeline.held, is_stuck=is_stuck)


def _moment(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()


@asynccontextmanager
async def given_time(status: str) -> AsyncIterator[None]:
    """Have systemd wait for as long as this takes, past its limit for a start; it hears so while this loop turns."""

    async def ask() -> None:
        await asyncio.sleep(EXTEND_AFTER)
        while True:
            notify(f"EXTEND_TIMEOUT_USEC={EXTENSION * 1_000_000}", f"STATUS={status}")
            await asyncio.sleep(EXTEND_EVERY)

    asking = asyncio.create_task(ask())
    try:
        yield
    finally:
        asking.cancel()


async def tell_systemd(state: State, pipeline: Pipeline) -> None:
    """Keep the line of status true, and the watchdog quiet for as long as this loop turns and files get done."""
    interval = watchdog_interval()
    every = STATUS_EVERY if interval is None else min(STATUS_EVERY, interval / 3)
    told = ""
    while True:
        await asyncio.sleep(every)
        vitals = pipeline.vitals()
        found = _judge(state, pipeline, vitals)
        line = health.in_a_line(found, vitals, state.roots)
        if line != told:
            notify(f"STATUS={line}")
            told = line
        if interval is not None and found.state != "failed":
            notify("WATCHDOG=1")


async def look_at_the_database(database: Database) -> None:
    """End the process when the file that is written is not at its path any more: what is written would be lost."""
    file = database_file(str(database.url))
    if file is None:
        return
    opened = os.stat(file)
    while (now := _status(file)) is not None and os.path.samestat(now, opened):  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(DATABASE_LOOK)
    happened = "was deleted or moved away" if now is None else "was replaced by another file"
    try:
        rescued = await backup.copy(database, backup.rescue_place(file))
        then = f"what it held is in {rescued}: `soulspot db restore {rescued}` puts it back"
    except CatalogueError as error:
        then = f"{error}; `soulspot db restore` puts a backup in its place"
    logger.critical("the catalogue %s %s while it was open; %s", file, happened, then)
    notify("STOPPING=1", f"STATUS=failed: the catalogue {file} {happened}")
    # Not an orderly end: to close the database would delete the write-ahead log of the file that is there now.
    os._exit(CatalogueError.exit_code)


def _status(file: Path) -> os.stat_result | None:
    """Return the status of a file, None where there is none."""
    try:
        return os.stat(file)
    except (FileNotFoundError, NotADirectoryError):
        return None
