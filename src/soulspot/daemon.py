"""The composition root: builds every object once, joins them, and takes them down in reverse.

`watch` keeps folders true until it is told to stop, `scan` brings them up to date once. Both are the same pipeline:
only the watcher and the timer are missing in the second.
"""

import asyncio
import logging
import os
import signal
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from soulspot import health
from soulspot.config import Settings, check_library, database_file
from soulspot.errors import SoulspotError
from soulspot.infrastructure.filesystem import file_system_of, ignore_lease_signals, path_to_text, text_to_path
from soulspot.infrastructure.persistence.database import Database
from soulspot.infrastructure.persistence.identity import new_id
from soulspot.infrastructure.persistence.lock import writer_lock
from soulspot.infrastructure.persistence.repositories import FileRepository, FolderRepository
from soulspot.infrastructure.persistence.schema import bring_up_to_date, require_current
from soulspot.infrastructure.systemd import notify
from soulspot.infrastructure.tags import TagReaders
from soulspot.infrastructure.watcher import Watcher
from soulspot.ingest.absence import LossGuard
from soulspot.ingest.patience import Patience
from soulspot.ingest.pipeline import Pipeline, WatchedFolders
from soulspot.ingest.planner import compare
from soulspot.ingest.scanner import Root, walk
from soulspot.ingest.service import IngestService, Outcome
from soulspot.ingest.stability import Stability
from soulspot.oversight import Change, State, controlled, look_at_the_database, tell_systemd

logger = logging.getLogger(__name__)

ROOT_LOOK = 2.0
"""Seconds between two looks at whether a watched folder is still the one that is watched."""
STOP_LIMIT = 8.0
"""Seconds that the files in hand have to end in when the daemon is told to stop."""
BUSY_LIMIT = 10.0
"""Seconds after which a scan leaves a file to whoever is still writing it."""

Report = Callable[[Outcome], None]


@dataclass(slots=True)
class ScanResult:
    """What a scan did: numbers of files by outcome, the files that others still write, the folders left alone."""

    counts: Counter[str] = field(default_factory=Counter)
    still_written: list[str] = field(default_factory=list)
    offline: dict[str, str] = field(default_factory=dict)
    held: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class _Ingest:
    pipeline: Pipeline
    service: IngestService
    database: Database
    roots: list[Root]


async def watch(read: Callable[[], Settings], *, report: Report) -> None:
    """Keep the folders and the catalogue equal until SIGTERM or SIGINT; a second signal ends at once.

    `read` returns the settings, at the start and whenever the control socket is told to reload. What is wrong then, or
    turns out to be when the new settings are used, leaves the old ones in force.
    """
    settings, stop, changes = read(), _stop_on_signals(), asyncio.Queue[Change]()
    state = State(settings)
    check_library(settings, settings.library.folders)  # before anything is made: what is absent is judged later
    with _alone(settings, "watch") as file:
        async with controlled(file, state, read, changes):
            change: Change | None = None
            while True:
                try:
                    following = await _watch_with(state, stop, changes, change, report)
                except SoulspotError as error:
                    if change is None or change.done.done():
                        raise
                    logger.error("the settings from before stay in force: %s", error)  # noqa: TRY400 - one sentence
                    change.done.set_result({"error": str(error)})
                    state.settings, change = change.before, None
                    continue
                if following is None:
                    return
                state.settings, change = following.settings, following


async def _watch_with(
    state: State, stop: asyncio.Event, changes: asyncio.Queue[Change], change: Change | None, report: Report
) -> Change | None:
    """Watch until told to stop, or to go on with other settings: these are returned."""
    settings = state.settings
    watcher: Watcher | None = None

    def hint(paths: Iterable[str]) -> None:
        for root in ingest.roots:
            below = [path for path in map(root.relative, paths) if path is not None]
            if below:
                state.last_event[root] = datetime.now(UTC)
                ingest.pipeline.hints.add(root, below)

    def look_everywhere() -> None:
        for root in ingest.roots:
            ingest.pipeline.hints.add(root, [""])

    async with _open(settings, report=report, watched=lambda: watcher.watched() if watcher else ()) as ingest:
        state.pipeline, state.roots = ingest.pipeline, ingest.roots
        state.watchdog = health.Watchdog(settings.tags.time_limit)
        watcher = Watcher([root.path for root in ingest.roots], hint, look_everywhere)
        async with asyncio.TaskGroup() as group:
            pipeline = group.create_task(ingest.pipeline.run())
            others = [
                group.create_task(watcher.run()),
                group.create_task(_look_at_roots(ingest, watcher)),
                group.create_task(_reconcile_now_and_then(look_everywhere, settings.library.reconcile_interval)),
                group.create_task(look_at_the_database(ingest.database)),
            ]
            await watcher.is_live.wait()
            others.append(group.create_task(tell_systemd(state, ingest.pipeline)))
            notify("READY=1", f"STATUS=watching {', '.join(path_to_text(root.path) for root in ingest.roots)}")
            for root in ingest.roots:
                logger.info("watching %s", path_to_text(root.path))
            if change is not None:
                change.done.set_result({"changed": True})
            following = await _stop_or_change(stop, changes)
            if following is None:
                notify("STOPPING=1", "STATUS=stopping: the files in hand are ended")
                logger.info("stopping")
            else:
                notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}", "STATUS=taking new settings")
                logger.info("taking new settings")
            for task in others:
                task.cancel()
            await _end(ingest, pipeline)
    state.pipeline = None
    return following


async def _stop_or_change(stop: asyncio.Event, changes: asyncio.Queue[Change]) -> Change | None:
    stopped, changed = asyncio.create_task(stop.wait()), asyncio.create_task(changes.get())
    await asyncio.wait([stopped, changed], return_when=asyncio.FIRST_COMPLETED)
    for task in (stopped, changed):
        task.cancel()
    return None if stop.is_set() else changed.result()


async def scan(settings: Settings, *, report: Report, confirm_missing: bool = False) -> ScanResult:
    """Bring the catalogue up to date with the folders, once. Stopped by a signal, it ends after the files in hand."""
    result, stop = ScanResult(), _stop_on_signals()

    def count(outcome: Outcome) -> None:
        result.counts[outcome.kind] += 1
        report(outcome)

    check_library(settings, settings.library.folders)  # before anything is made: what is absent is judged later
    with _alone(settings, "scan"):
        async with _open(settings, report=count, confirm_missing=confirm_missing) as ingest:
            await _scan_and_end(ingest, result, stop)
    return result


async def _scan_and_end(ingest: "_Ingest", result: ScanResult, stop: asyncio.Event) -> None:
    async with asyncio.TaskGroup() as group:
        pipeline = group.create_task(ingest.pipeline.run())
        work = group.create_task(_scan_all(ingest, result))
        stopping = group.create_task(stop.wait())
        await asyncio.wait([work, stopping], return_when=asyncio.FIRST_COMPLETED)
        work.cancel()
        stopping.cancel()
        await _end(ingest, pipeline)
    changed = {kind: count for kind, count in result.counts.items() if kind != "unchanged" and count}
    if changed:
        for root in ingest.roots:
            await Patience()(ingest.service.finish_scan, root, changed)


async def dry_run(settings: Settings, *, report: Report) -> ScanResult:
    """Say what a scan would do, by a look at the disk and at the catalogue; read no file and write nothing."""
    check_library(settings, settings.library.folders)  # as in `_open`: what is absent is judged below
    result = ScanResult()
    file = database_file(settings.database.url)
    async with Database(settings.database.url, read_only=True) as database:
        is_new = file is not None and not file.exists()
        if not is_new:
            await require_current(database)
        folders = {} if is_new else {row.path: row.id for row in await FolderRepository(database.session).all()}
        check_library(settings, [Path(text_to_path(path)) for path in folders])
        files = FileRepository(database.session)
        for path in map(str, settings.library.folders):
            root = Root(folders.get(path_to_text(path), ""), path, hidden=settings.library.hidden)
            if not os.path.isdir(path):
                result.offline[path] = "it is not there: is its disk mounted?"
                continue
            after = ""
            for batch in walk(root):
                known = await files.known_between(root.id, "", after, batch.upto) if root.id else {}
                comparison = compare(batch.files, known)
                after = batch.upto or ""
                result.counts["unchanged"] += comparison.unchanged
                plan = [("added" if work.known is None else "updated", work.file.path) for work in comparison.work]
                plan += [("missing", gone.path) for gone in comparison.gone if not batch.hides(gone.path)]
                for kind, below in plan:
                    result.counts[kind] += 1
                    report(Outcome(kind, f"{path_to_text(path)}/{below}"))
    return result


@asynccontextmanager
async def _open(
    settings: Settings,
    *,
    report: Report,
    watched: WatchedFolders | None = None,
    confirm_missing: bool = False,
) -> AsyncIterator[_Ingest]:
    """Build what a command that writes needs, and holds the lock for: database, folders, tag readers, pipeline."""
    ignore_lease_signals()
    async with Database(settings.database.url, synchronous=settings.database.synchronous) as database:
        await bring_up_to_date(database, allowed=settings.database.upgrade)
        known = await FolderRepository(database.session).all()
        check_library(settings, [Path(text_to_path(folder.path)) for folder in known])
        service = IngestService(database, run=new_id(), node=socket.gethostname())
        tags = settings.tags
        async with TagReaders(
            tags.workers or min(os.cpu_count() or 1, 4), memory_limit=tags.memory_limit, time_limit=tags.time_limit
        ) as readers:
            pipeline = Pipeline(
                service=service,
                files=FileRepository(database.session),
                readers=readers,
                stability=Stability(settings.library.quiet_period, leases=settings.library.leases),
                report=report,
                missing_after=settings.library.missing_after,
                guard=LossGuard(confirmed=confirm_missing),
                watched=watched,
            )
            roots = [await _adopt(service, pipeline, str(path), settings) for path in settings.library.folders]
            yield _Ingest(pipeline, service, database, roots)


@contextmanager
def _alone(settings: Settings, command: str) -> Iterator[Path | None]:
    """Be the only one that writes; yield the file of an SQLite database."""
    file = database_file(settings.database.url)
    with writer_lock(file, command) if file else nullcontext():
        yield file


async def _adopt(service: IngestService, pipeline: Pipeline, path: str, settings: Settings) -> Root:
    file_system = await asyncio.to_thread(file_system_of, path)
    folder = await Patience()(service.adopt_folder, path, file_system)
    root = Root(folder.id, path, trusts_inodes=not file_system.is_remote, hidden=settings.library.hidden)
    pipeline.add_root(root, folder.file_system_id, folder.status_reason if folder.status == "offline" else None)
    return root


async def _end(ingest: _Ingest, running: asyncio.Task[None]) -> None:
    """Let the files in hand end, for as long as there is time for that."""
    ingest.pipeline.stop()
    is_paused = ingest.pipeline.progress().paused is not None  # what cannot be written waits for the next start
    await asyncio.wait([running], timeout=STOP_LIMIT / 8 if is_paused else STOP_LIMIT)
    running.cancel()


async def _scan_all(ingest: _Ingest, result: ScanResult) -> None:
    for root in ingest.roots:
        walked = await ingest.pipeline.reconcile(root)
        result.counts["unchanged"] += walked.unchanged
    result.still_written = await ingest.pipeline.done(give_up_after=BUSY_LIMIT)
    result.offline = {root.path: fault for root, fault in ingest.pipeline.faults.items()}
    result.held = {root.path: count for root, count in ingest.pipeline.held.items()}


async def _reconcile_now_and_then(look_everywhere: Callable[[], None], interval: float) -> None:
    while True:
        await asyncio.sleep(interval)
        look_everywhere()


async def _look_at_roots(ingest: _Ingest, watcher: Watcher) -> None:
    """Notice a folder that was unmounted, replaced or came back: no event tells of any of these."""
    before = await asyncio.to_thread(_identities, ingest.roots)
    while True:
        await asyncio.sleep(ROOT_LOOK)
        now = await asyncio.to_thread(_identities, ingest.roots)
        if now != before:
            watcher.restart()
            for root in ingest.roots:
                if now[root] != before[root]:
                    ingest.pipeline.hints.add(root, [""])
        before = now


def _identities(roots: Iterable[Root]) -> dict[Root, tuple[int, int] | None]:
    found: dict[Root, tuple[int, int] | None] = {}
    for root in roots:
        try:
            status = os.stat(root.path)
        except OSError:
            found[root] = None
        else:
            found[root] = (status.st_dev, status.st_ino)
    return found


def _stop_on_signals() -> asyncio.Event:
    stop, loop = asyncio.Event(), asyncio.get_running_loop()

    def stop_or_end(number: signal.Signals) -> None:
        if stop.is_set():
            os._exit(128 + number)  # told twice: the database is safe against an end at any moment
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop_or_end, number)
    return stop
