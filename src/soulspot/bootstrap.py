"""The composition root of `watch`, `scan` and the tests: builds every object once, and takes them down in reverse."""

import asyncio
import logging
import os
import signal
import socket
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path

from soulspot.config import Settings
from soulspot.config.library_check import check_library
from soulspot.config.paths import database_file, private_file
from soulspot.errors import ConfigError
from soulspot.infrastructure.filesystem import file_system_of, ignore_lease_signals, path_to_text, text_to_path
from soulspot.infrastructure.persistence.database import Database
from soulspot.infrastructure.persistence.identity import new_id
from soulspot.infrastructure.persistence.models import MOUNT_STATES
from soulspot.infrastructure.persistence.records import FolderKey, KnownFolder
from soulspot.infrastructure.persistence.repositories import FileRepository, FolderRepository
from soulspot.infrastructure.persistence.schema import bring_up_to_date
from soulspot.infrastructure.persistence.sqlite.lock_file import writer_lock
from soulspot.infrastructure.systemd import given_time
from soulspot.infrastructure.tags.readers.pool import TagReaders
from soulspot.infrastructure.watching.watcher import Watcher
from soulspot.ingest.catalogue.credits import CreditRules
from soulspot.ingest.catalogue.folder_service import FolderService
from soulspot.ingest.catalogue.service import IngestService
from soulspot.ingest.database_retry import retry_database
from soulspot.ingest.disk.ignore_rules import Ignoring
from soulspot.ingest.disk.scan_queue import ScanQueue
from soulspot.ingest.disk.walker import Root
from soulspot.ingest.disk.watch_coverage import WatchCoverage
from soulspot.ingest.intake.intake import CONCURRENCY, CONCURRENCY_TO_SERVER
from soulspot.ingest.intake.stability import Stability
from soulspot.ingest.missing.loss_guard import LossGuard
from soulspot.ingest.outcome import Outcome
from soulspot.ingest.pause_gate import PauseGate
from soulspot.ingest.pipeline import Pipeline
from soulspot.ingest.polling import Polling

logger = logging.getLogger(__name__)

STOP_LIMIT = 8.0
"""Seconds that files in progress get to finish when the process stops."""

Report = Callable[[Outcome], None]


@dataclass(frozen=True, slots=True)
class ScanScope:
    """The settings with the folders to scan, and the parts to scan of folders that are not scanned as a whole."""

    settings: Settings
    parts: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def of(self, root: Root) -> Sequence[str]:
        return self.parts.get(root.path, ("",))


@dataclass(frozen=True, slots=True)
class Watching:
    """The sources of the scan queue of a running pipeline: the watcher, and polling for changes without events."""

    watcher: Watcher
    polling: Polling


@dataclass(slots=True)
class Ingest:
    """The objects with which a command writes the catalogue; `watching` is None unless it watches."""

    pipeline: Pipeline
    folder_service: FolderService
    database: Database
    roots: list[Root]
    scope: ScanScope
    run: str
    watching: Watching | None = None


@contextmanager
def writer_lock_for(settings: Settings, command: str) -> Iterator[Path | None]:
    """Lock an SQLite database for writing, and yield its file; PostgreSQL has `Database.lock_folders`."""
    file = database_file(settings.database.url)
    with writer_lock(file, command) if file else nullcontext():
        yield file


@asynccontextmanager
async def open_ingest(  # noqa: PLR0913 - by name, in this module
    settings: Settings,
    command: str,
    *,
    report: Report,
    named: Sequence[Path] = (),
    confirm_missing: bool = False,
    warm: bool = False,
    watch: bool = False,
    last_event: dict[Root, datetime] | None = None,
    gate: PauseGate | None = None,
    readers: TagReaders | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> AsyncIterator[Ingest]:
    """Build what a command that writes needs (database, folders, tag readers, pipeline), and hold its locks.

    Args:
        settings: the settings.
        command: the holder of the locks.
        report: called with each outcome, after its commit.
        named: paths to scan instead of whole folders.
        confirm_missing: whether a person confirmed that all missing files are really gone.
        warm: whether to start the tag readers at once, on other cores; they start in any case if a folder is new.
        watch: whether to build a watcher and polling.
        last_event: updated with the time of the last event in each folder.
        gate: closed while ingest is paused.
        readers: running tag readers, which keep running afterwards.
        clock: a monotonic clock, in seconds.

    """
    async with AsyncExitStack() as opened:
        if readers is None:
            readers = await opened.enter_async_context(_tag_readers(settings))
        database = await opened.enter_async_context(
            Database(
                settings.database.url,
                synchronous=settings.database.synchronous,
                connections=settings.database.connections,
            )
        )
        if warm:
            readers.start()
        retry_database.file = database_file(settings.database.url)
        upgrade = partial(bring_up_to_date, database, allowed=settings.database.upgrade)
        async with given_time("starting: upgrading the schema of the catalogue"):
            # Wait while the disk is full, but leave it to systemd to retry an unreachable server.
            await (retry_database(upgrade) if database.backend.retries_upgrade else upgrade())
        rows, run = await retry_database(FolderRepository(database.session).all), new_id()
        node, here = this_machine(rows, settings, database)
        scope = resolve_scope(settings, here, named)
        settings, known = scope.settings, {Path(text_to_path(folder.path)) for folder in here}
        if not known.issuperset(settings.library.folders):
            readers.start()
        keys = [FolderKey(node, path_to_text(str(folder))) for folder in settings.library.folders]
        await opened.enter_async_context(database.backend.lock_folders(keys, command, node=node, run=run))
        check_library(settings, known)
        folder_service = FolderService(database, run=run, node=node)
        adopted = [await _adopt(folder_service, str(path), settings) for path in settings.library.folders]
        roots = [root for root, _folder in adopted]
        queue = ScanQueue(roots, last_event=last_event, clock=clock)
        watcher = Watcher([root.path for root in roots], queue.add_events, queue.enqueue_everything) if watch else None
        coverage = WatchCoverage(watcher.watched if watcher else None)
        pipeline = Pipeline(
            service=IngestService(database, run=run, credit_rules=credit_rules(settings)),
            folder_service=folder_service,
            files=FileRepository(database.session),
            readers=readers,
            stability=Stability(settings.library.quiet_period, leases=settings.library.leases),
            queue=queue,
            coverage=coverage,
            report=report,
            missing_after=settings.library.missing_after,
            guard=LossGuard(confirmed=confirm_missing),
            gate=PauseGate() if gate is None else gate,
            concurrency=CONCURRENCY_TO_SERVER if database.backend.has_concurrent_writers else CONCURRENCY,
            clock=clock,
        )
        for root, folder in adopted:
            pipeline.add_root(root, folder.file_system_id, folder.status, folder.status_reason)
        watching = None
        if watcher is not None:
            polling = Polling(
                pipeline,
                watcher,
                coverage,
                roots,
                reconcile_interval=settings.library.reconcile_interval,
                poll_interval=settings.library.poll_interval,
            )
            watching = Watching(watcher, polling)
        yield Ingest(pipeline, folder_service, database, roots, scope, run, watching)


def _tag_readers(settings: Settings) -> TagReaders:
    journal, tags = None, settings.tags
    with suppress(ConfigError, OSError):  # continue without a journal if its folder cannot be created
        file = private_file(settings.database.url, "reading")
        file.parent.mkdir(parents=True, exist_ok=True)
        journal = str(file)
    workers = tags.workers or min(os.cpu_count() or 1, 4)
    return TagReaders(workers, memory_limit=tags.memory_limit, time_limit=tags.time_limit, journal=journal)


def this_machine(
    rows: Collection[KnownFolder], settings: Settings, database: Database
) -> tuple[str, list[KnownFolder]]:
    """Return this machine's name in the catalogue (the configured one, else the host's), and its folders there.

    A catalogue that is not shared (an SQLite file) belongs to one machine and keeps the name that this one had first.
    Otherwise a renamed host, or a container that gets another name at each start, would find none of its folders and
    ingest everything again.
    """
    wanted, nodes = settings.library.node, {row.node for row in rows}
    node = wanted or socket.gethostname()
    if not (wanted or database.backend.is_shared or node in nodes) and len(nodes) == 1:
        node = nodes.pop()
    return node, [row for row in rows if row.node == node]


async def _adopt(folder_service: FolderService, path: str, settings: Settings) -> tuple[Root, KnownFolder]:
    file_system = await asyncio.to_thread(file_system_of, path)
    folder = await retry_database(folder_service.adopt_folder, path, file_system)
    if file_system.is_remote:
        interval = settings.library.poll_interval
        logger.info("folder %s is on %s: polling it every %g s", path_to_text(path), file_system.kind, interval)
    return root_of(folder.id, path, settings, trusts_inodes=not file_system.is_remote), folder


def root_of(folder_id: str, path: str, settings: Settings, *, trusts_inodes: bool = True) -> Root:
    """Return a watched folder with its settings."""
    library = settings.library
    return Root(
        folder_id,
        path,
        trusts_inodes=trusts_inodes,
        hidden=library.hidden,
        follow_links=library.follow_links,
        ignoring=Ignoring(tuple(library.ignore)),
        reading=credit_rules(settings).reading(),
    )


def credit_rules(settings: Settings) -> CreditRules:
    artists = settings.artists
    return CreditRules(artists.separators, artists.keep_whole, artists.featured)


async def drain(ingest: Ingest, running: asyncio.Task[None]) -> None:
    """Let the files in progress finish, for at most STOP_LIMIT seconds."""
    ingest.pipeline.stop()
    # While paused, files in progress wait for the next start.
    is_paused = retry_database.reason is not None or ingest.pipeline.is_paused
    await asyncio.wait([running], timeout=STOP_LIMIT / 8 if is_paused else STOP_LIMIT)
    running.cancel()


def stop_on_signals() -> asyncio.Event:
    """Return an event that SIGTERM and SIGINT set, and ignore the signals of broken leases from now on."""
    ignore_lease_signals()
    stop, loop = asyncio.Event(), asyncio.get_running_loop()

    def stop_or_exit(number: signal.Signals) -> None:
        if stop.is_set():
            os._exit(128 + number)  # second signal: exit now, the database survives a kill
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop_or_exit, number)
    return stop


def resolve_scope(settings: Settings, known: Iterable[KnownFolder], named: Sequence[Path]) -> ScanScope:
    """Return what to scan: the music folders, or the named paths in them or in other known folders.

    A named path outside of all these is a music folder of its own.
    """
    if not named:
        return ScanScope(settings)
    parts = defaultdict[str, list[str]](list)
    watched = [text_to_path(folder.path) for folder in known if folder.status not in MOUNT_STATES]
    folders = [*map(str, settings.library.folders), *watched]
    for path in map(os.path.abspath, named):
        places = ((folder, Root("", folder).relative(path)) for folder in folders)
        folder, below = next(((folder, below) for folder, below in places if below is not None), (path, ""))
        parts[folder].append(f"{below}/" if below and os.path.isdir(path) else below)
    return ScanScope(settings.with_folders([Path(folder) for folder in parts]), parts)
