"""How a running daemon is looked after: what it tells systemd, what it answers on its control socket, and whether the
file of its catalogue is still there.
"""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from soulspot import health
from soulspot.config import ControlSettings, Settings, check_library, database_file
from soulspot.errors import CatalogueError, ConfigError, LockHeldError, SoulspotError
from soulspot.feed import ROOM, Feed
from soulspot.infrastructure import control
from soulspot.infrastructure.control import Answer, Arguments, Once, Stream
from soulspot.infrastructure.filesystem import path_to_text
from soulspot.infrastructure.persistence import backup
from soulspot.infrastructure.persistence.database import Database
from soulspot.infrastructure.systemd import notify, watchdog_interval
from soulspot.ingest.pipeline import Pipeline, Vitals
from soulspot.ingest.requests import Requests
from soulspot.ingest.scanner import Root
from soulspot.ingest.service import Outcome
from soulspot.live import live, told
from soulspot.pace import Pace
from soulspot.pauses import Pauses
from soulspot.sockets import Place
from soulspot.steering import paused_told, steering
from soulspot.tally import Tally

if TYPE_CHECKING:
    from soulspot.hooks import Hook
    from soulspot.infrastructure.watcher import Watcher
    from soulspot.ingest.rounds import Rounds

logger = logging.getLogger(__name__)

DATABASE_LOOK = 2.0
"""Seconds between two looks at whether the database is still the file at its path."""
STATUS_EVERY = 1.0
"""Seconds between two lines of status, where it has changed."""


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
    pauses: Pauses
    since: datetime = field(default_factory=lambda: datetime.now(UTC))
    pipeline: Pipeline | None = None
    roots: Sequence[Root] = ()
    watchdog: health.Watchdog = field(default_factory=lambda: health.Watchdog(0))
    last_event: dict[Root, datetime] = field(default_factory=dict)
    feed: Feed = field(default_factory=Feed)
    tally: Tally = field(default_factory=Tally)
    pace: Pace = field(default_factory=Pace)
    database: Database | None = None
    watcher: "Watcher | None" = None
    rounds: "Rounds | None" = None
    hooks: "Sequence[Hook]" = ()
    is_watching: asyncio.Event = field(default_factory=asyncio.Event)
    asked: Requests | None = None

    @property
    def requests(self) -> Requests:
        assert self.asked is not None
        return self.asked

    def hear(self, outcome: Outcome) -> None:
        """Hear what became of a file, once that is committed, and tell it on."""
        self.tally.add(outcome)
        self.pace.add()
        self.feed.tell(outcome)
        if self.asked is not None:
            self.asked.hear(outcome)


@asynccontextmanager
async def controlled(
    place: Callable[[], Place], state: State, read: Callable[[], Settings], changes: "asyncio.Queue[Change]"
) -> AsyncIterator[None]:
    """Answer questions about the daemon; a folder in which there can be no socket keeps no file from the catalogue."""

    async def reload(_asked: Arguments) -> Answer:
        before = state.settings
        try:
            settings = read()
            check_library(settings, before.library.folders)
        except SoulspotError as error:
            return {"error": str(error)}
        if (settings.database, settings.control) != (before.database, before.control):
            return {"error": "the settings of database and control change by a restart: systemctl restart soulspot"}
        if settings == before:
            return {"changed": False}
        change = Change(settings, before, asyncio.get_running_loop().create_future())
        changes.put_nowait(change)
        return await change.done

    async def status(_asked: Arguments) -> Answer:
        return report(state)

    async def follow(asked: Arguments) -> AsyncIterator[Answer]:
        room = asked.get("room")  # who only wants to know that something happened asks for one outcome at a time
        with state.feed.listening(min(room, ROOM) if isinstance(room, int) and room > 0 else ROOM) as listener:
            yield {"following": True}  # what happens from here on is told
            async for news in listener.news():
                yield told(news)

    offers: control.Offers = {
        "status": Once(status),
        "follow": Stream(follow),
        "reload": Once(reload, steers=True),
        **steering(state),
        **live(state),
    }
    async with AsyncExitStack() as serving:
        try:
            where = place()
            served = control.serve(where.path, offers, mode=where.mode, group=where.group)
            await serving.enter_async_context(served)
        except (OSError, LockHeldError) as error:
            reason = f"{error.filename or ''} ({error.strerror})" if isinstance(error, OSError) else f"({error})"
            msg = f"there can be no control socket {reason}: set control.socket"
            if state.settings.control != ControlSettings():
                raise ConfigError(msg) from error
            logger.warning("%s; until then `soulspot status` and `soulspot reload` do not reach this process", msg)
        yield


def report(state: State) -> dict[str, Any]:
    """Return how the daemon is, for `soulspot status`."""
    paused = paused_told(state.pauses.gate.paused)
    described: dict[str, Any] = {"pid": os.getpid(), "since": state.since.isoformat(), "paused": paused}
    found = current_health(state)
    if (pipeline := state.pipeline) is None:
        return described | {"health": found.state, "reasons": found.reasons, "folders": {}}
    vitals = pipeline.vitals()
    folders = {
        path_to_text(root.path): {
            "id": root.id,
            "watched": "inotify" if root.trusts_inodes else "inotify and reconcile",
            "last_event": _moment(state.last_event.get(root)),
            "last_reconcile": _moment(pipeline.reconciled.get(root)),
            "missed_by_watcher": 0 if state.rounds is None else state.rounds.missed[root],
            "unwatched_folders": len(pipeline.unwatched.get(root, ())),
            "unreadable": len(pipeline.folders.unreadable.get(root, ())),
        }
        for root in state.roots
    }
    return described | {
        "health": found.state,
        "reasons": found.reasons,
        "queue": {"in_hand": vitals.in_hand, "settling": vitals.settling, "oldest_seconds": round(vitals.oldest)},
        "finished": vitals.finished,
        "watcher": None if state.watcher is None else _described(state.watcher),
        "folders": folders,
        "hooks": [_told_of(hook) for hook in state.hooks],
    }


def _described(watcher: "Watcher") -> dict[str, Any]:
    return {"is_deaf": watcher.is_deaf, "overflows": watcher.overflows, "restarts": watcher.restarts}


def _told_of(hook: "Hook") -> dict[str, Any]:
    return {
        "hook": hook.kind,
        "place": hook.place,
        "error": hook.error,
        "waiting": hook.waiting,
        "delivered": hook.delivered,
        "failed": hook.failed,
        "last_delivery": _moment(hook.last_delivery),
    }


def current_health(state: State) -> health.Health:
    """Return how the daemon is at this moment."""
    if (pipeline := state.pipeline) is None:
        return health.Health("degraded", ("it is starting",))
    return _judge(state, pipeline, pipeline.vitals())


def _judge(state: State, pipeline: Pipeline, vitals: Vitals) -> health.Health:
    is_stuck = state.watchdog.is_stuck(vitals)
    unreadable = pipeline.folders.unreadable
    return health.judge(vitals, pipeline.faults, pipeline.held, is_stuck=is_stuck, unreadable=unreadable)


def _moment(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()


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
    while (now := _status(file, opened)) is not None and os.path.samestat(now, opened):  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(DATABASE_LOOK)
    happened = "was deleted or moved away" if now is None else "was replaced by another file"
    try:
        rescued = await backup.copy(database, backup.rescue_place(file))
        then = f"what it held is in {rescued}: `soulspot db restore {rescued}` puts it back"
    except CatalogueError as error:
        then = f"{error}; `soulspot db restore` puts a backup in its place"
    logger.critical("the catalogue %s %s while it was open; %s", file, happened, then)
    notify("STOPPING=1", f"STATUS=failed: the catalogue {file} {happened}")
    logging.shutdown()
    # Not an orderly end: to close the database would delete the write-ahead log of the file that is there now.
    os._exit(CatalogueError.exit_code)


def _status(file: Path, opened: os.stat_result) -> os.stat_result | None:
    """Return the status of a file, None where there is none, and the one before where nothing can be known."""
    try:
        return os.stat(file)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError:  # its disk does not answer: the next transaction pauses for that
        return opened
