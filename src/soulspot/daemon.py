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
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from soulspot.config import Settings, check_library, database_file
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
from soulspot.ingest.patience import patiently
from soulspot.ingest.pipeline import Pipeline, WatchedFolders
from soulspot.ingest.planner import compare
from soulspot.ingest.scanner import Root, count_files, walk
from soulspot.ingest.service import IngestService, Outcome
from soulspot.ingest.stability import Stability

logger = logging.getLogger(__name__)

ROOT_LOOK = 2.0
"""Seconds between two looks at whether a watched folder is still the one that is watched."""
STOP_LIMIT = 8.0
"""Seconds that the files in hand have to end in when the daemon is told to stop."""
BUSY_LIMIT = 10.0
"""Seconds after which a scan leaves a file to whoever is still writing it."""

COUNT_AFTER = 0.5
"""Seconds after which a scan is worth a walk that only counts, to say how long it will take."""

Report = Callable[[Outcome], None]


class Progress(Protocol):
    """Who is told how far a scan is."""

    def report(self, outcome: Outcome) -> None:
        """Hear what became of one file."""

    def pass_over(self, count: int) -> None:
        """Hear that so many files are as the catalogue has them."""

    def expect(self, total: int) -> None:
        """Hear how many files there are in all."""


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
            ]
            await watcher.is_live.wait()
            notify("READY=1", f"STATUS=watching {', '.join(path_to_text(root.path) for root in ingest.roots)}")
            for root in ingest.roots:
                logger.info("watching %s", path_to_text(root.path))
            await stop.wait()
            notify("STOPPING=1")
            logger.info("stopping")
            for task in others:
                task.cancel()
            await _end(ingest, pipeline)


async def scan(settings: Settings, *, progress: Progress, confirm_missing: bool = False) -> ScanResult:
    """Bring the catalogue up to date with the folders, once. Stopped by a signal, it ends after the files in hand."""
    result, stop = ScanResult(), _stop_on_signals()

    def count(outcome: Outcome) -> None:
        result.counts[outcome.kind] += 1
        progress.report(outcome)

    async with _open(settings, "scan", report=count, confirm_missing=confirm_missing) as ingest:
        async with asyncio.TaskGroup() as group:
            pipeline = group.create_task(ingest.pipeline.run())
            work = group.create_task(_scan_all(ingest, result, progress))
            stopping = group.create_task(stop.wait())
            counting = group.create_task(_count_ahead(ingest.roots, progress))
            await asyncio.wait([work, stopping], return_when=asyncio.FIRST_COMPLETED)
            for task in (work, stopping, counting):
                task.cancel()
            await _end(ingest, pipeline)
        changed = {kind: count for kind, count in result.counts.items() if kind != "unchanged" and count}
        if changed:
            for root in ingest.roots:
                await patiently(ingest.service.finish_scan, root, changed)
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
        rows = [] if is_new else await FolderRepository(database.session).all()
        folders = {row.path: row.id for row in rows if row.node == socket.gethostname()}
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
    tags = settings.tags
    readers = TagReaders(
        tags.workers or min(os.cpu_count() or 1, 4), memory_limit=tags.memory_limit, time_limit=tags.time_limit
    )
    with writer_lock(file, command) if file else nullcontext():
        async with (
            readers,  # first: they start on other cores while the schema is looked at
            Database(
                settings.database.url,
                synchronous=settings.database.synchronous,
                connections=settings.database.connections,
            ) as database,
            AsyncExitStack() as owned,
        ):
            await bring_up_to_date(database, allowed=settings.database.upgrade)
            node = socket.gethostname()
            await owned.enter_async_context(database.owning(node, map(str, settings.library.folders), command))
            known = [
                folder for folder in await patiently(FolderRepository(database.session).all) if folder.node == node
            ]
            check_library(settings, [Path(text_to_path(folder.path)) for folder in known])
            service = IngestService(database, run=new_id(), node=node)
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
            yield _Ingest(pipeline, service, roots)


async def _adopt(service: IngestService, pipeline: Pipeline, path: str, settings: Settings) -> Root:
    file_system = await asyncio.to_thread(file_system_of, path)
    folder = await patiently(service.adopt_folder, path, file_system)
    root = Root(folder.id, path, trusts_inodes=not file_system.is_remote, hidden=settings.library.hidden)
    pipeline.add_root(root, folder.file_system_id, folder.status_reason if folder.status == "offline" else None)
    return root


async def _end(ingest: _Ingest, running: asyncio.Task[None]) -> None:
    """Let the files in hand end, for as long as there is time for that."""
    ingest.pipeline.stop()
    await asyncio.wait([running], timeout=STOP_LIMIT)
    running.cancel()


async def _count_ahead(roots: Iterable[Root], progress: Progress) -> None:
    await asyncio.sleep(COUNT_AFTER)
    progress.expect(sum([await asyncio.to_thread(count_files, root) for root in roots]))


async def _scan_all(ingest: _Ingest, result: ScanResult, progress: Progress) -> None:
    def unchanged(count: int) -> None:
        result.counts["unchanged"] += count
        progress.pass_over(count)

    for root in ingest.roots:
        await ingest.pipeline.reconcile(root, unchanged=unchanged)
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
