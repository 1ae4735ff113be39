"""The composition root: builds every object once, joins them, and takes them down in reverse.

`watch` keeps folders true until it is told to stop, `scan` brings them up to date once. Both are the same pipeline:
only the watcher and the timer are missing in the second.
"""

import asyncio
import logging
import os
import signal
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from soulspot import health
from soulspot.config import Settings, check_library, database_file
from soulspot.errors import CatalogueError
from soulspot.infrastructure.filesystem import file_system_of, ignore_lease_signals, path_to_text, text_to_path
from soulspot.infrastructure.persistence import backup
from soulspot.infrastructure.persistence.database import Database
from soulspot.infrastructure.persistence.identity import new_id
from soulspot.infrastructure.persistence.lock import writer_lock
from soulspot.infrastructure.persistence.repositories import FileRepository, FolderRepository
from soulspot.infrastructure.persistence.schema import bring_up_to_date, require_current
from soulspot.infrastructure.systemd import notify, watchdog_interval
from soulspot.infrastructure.tags import TagReaders
from soulspot.infrastructure.watcher import Watcher
from soulspot.ingest.absence import LossGuard
from soulspot.ingest.patience import Patience
from soulspot.ingest.pipeline import Pipeline, WatchedFolders
from soulspot.ingest.planner import compare
from soulspot.ingest.scanner import Root, walk
from soulspot.ingest.service import IngestService, Outcome
from soulspot.ingest.stability import Stability

logger = logging.getLogger(__name__)

ROOT_LOOK = 2.0
"""Seconds between two looks at whether a watched folder is still the one that is watched."""
DATABASE_LOOK = 2.0
"""Seconds between two looks at whether the database is still the file at its path."""
STATUS_EVERY = 1.0
"""Seconds between two lines of status, where it has changed."""
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


async def watch(settings: Settings, *, report: Report) -> None:
    """Keep the folders and the catalogue equal until SIGTERM or SIGINT; a second signal ends at once."""
    stop = _stop_on_signals()
    watcher: Watcher | None = None

    def hint(paths: Iterable[str]) -> None:
        for root in ingest.roots:
            below = [path for path in map(root.relative, paths) if path is not None]
            if below:
                ingest.pipeline.hints.add(root, below)

    def look_everywhere() -> None:
        for root in ingest.roots:
            ingest.pipeline.hints.add(root, [""])

    async with _open(settings, "watch", report=report, watched=lambda: watcher.watched() if watcher else ()) as ingest:
        watcher = Watcher([root.path for root in ingest.roots], hint, look_everywhere)
        async with asyncio.TaskGroup() as group:
            pipeline = group.create_task(ingest.pipeline.run())
            others = [
                group.create_task(watcher.run()),
                group.create_task(_look_at_roots(ingest, watcher)),
                group.create_task(_reconcile_now_and_then(look_everywhere, settings.library.reconcile_interval)),
                group.create_task(_look_at_the_database(ingest.database)),
            ]
            await watcher.is_live.wait()
            others.append(group.create_task(_tell_systemd(ingest, settings.tags.time_limit)))
            notify("READY=1", f"STATUS=watching {', '.join(path_to_text(root.path) for root in ingest.roots)}")
            for root in ingest.roots:
                logger.info("watching %s", path_to_text(root.path))
            await stop.wait()
            notify("STOPPING=1", "STATUS=stopping: the files in hand are ended")
            logger.info("stopping")
            for task in others:
                task.cancel()
            await _end(ingest, pipeline)


async def scan(settings: Settings, *, report: Report, confirm_missing: bool = False) -> ScanResult:
    """Bring the catalogue up to date with the folders, once. Stopped by a signal, it ends after the files in hand."""
    result, stop = ScanResult(), _stop_on_signals()

    def count(outcome: Outcome) -> None:
        result.counts[outcome.kind] += 1
        report(outcome)

    async with _open(settings, "scan", report=count, confirm_missing=confirm_missing) as ingest:
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
                await ingest.service.finish_scan(root, changed)
    return result


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
    command: str,
    *,
    report: Report,
    watched: WatchedFolders | None = None,
    confirm_missing: bool = False,
) -> AsyncIterator[_Ingest]:
    """Build what a command that writes needs: lock, database, schema, folders, tag readers, pipeline."""
    ignore_lease_signals()
    check_library(settings, settings.library.folders)  # before anything is made: what is absent is judged below
    file = database_file(settings.database.url)
    with writer_lock(file, command) if file else nullcontext():
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


async def _adopt(service: IngestService, pipeline: Pipeline, path: str, settings: Settings) -> Root:
    file_system = await asyncio.to_thread(file_system_of, path)
    folder = await Patience()(service.adopt_folder, path, file_system)
    root = Root(folder.id, path, trusts_inodes=not file_system.is_remote, hidden=settings.library.hidden)
    pipeline.add_root(root, folder.file_system_id, folder.status_reason if folder.status == "offline" else None)
    return root


async def _end(ingest: _Ingest, running: asyncio.Task[None]) -> None:
    """Let the files in hand end, for as long as there is time for that."""
    ingest.pipeline.stop()
    await asyncio.wait([running], timeout=STOP_LIMIT)
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


async def _tell_systemd(ingest: _Ingest, time_limit: float) -> None:
    """Keep the line of status true, and the watchdog quiet for as long as this loop turns and files get done."""
    watchdog, interval = health.Watchdog(time_limit), watchdog_interval()
    every = STATUS_EVERY if interval is None else min(STATUS_EVERY, interval / 3)
    told = ""
    while True:
        await asyncio.sleep(every)
        progress = ingest.pipeline.progress()
        is_stuck = watchdog.is_stuck(progress)
        found = health.judge(progress, ingest.pipeline.faults, ingest.pipeline.held, is_stuck=is_stuck)
        line = health.in_a_line(found, progress, ingest.roots)
        if line != told:
            notify(f"STATUS={line}")
            told = line
        if interval is not None and not is_stuck:
            notify("WATCHDOG=1")


async def _look_at_the_database(database: Database) -> None:
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
