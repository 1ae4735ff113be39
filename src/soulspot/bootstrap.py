"""The composition root of `watch`, `scan` and the tests: builds every object once, and takes them down in reverse."""

import asyncio
import logging
import os
import signal
import socket
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, nullcontext
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
from soulspot.ingest.retry import retry_database

logger = logging.getLogger(__name__)

STOP_LIMIT = 8.0
"""Seconds that the files in hand have to finish in when the process has to stop."""

Report = Callable[[Outcome], None]


@dataclass(frozen=True, slots=True)
class ScanScope:
    """What to scan: the settings with its folders, and the parts of folders that are not meant as a whole."""

    settings: Settings
    parts: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def of(self, root: Root) -> Sequence[str]:
        return self.parts.get(root.path, ("",))


@dataclass(frozen=True, slots=True)
class Watching:
    """What feeds the scan queue of a running pipeline: events, and polling for what no event reports."""

    watcher: Watcher
    polling: Polling


@dataclass(slots=True)
class Ingest:
    """What a command that writes works with; `watching` is None unless it watches."""

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
    """Build what a command that writes needs, and hold the locks for it: database, folders, tag readers, pipeline.

    Args:
        settings: what to build it from.
        command: who holds the locks.
        report: called with each outcome, after its commit.
        named: what is meant in the folders, if not all of them.
        confirm_missing: whether a person said that all missing files are really gone.
        warm: whether to start the tag readers at once, on other cores; they start in any case if a folder is new.
        watch: whether to build a watcher and polling.
        last_event: updated with the time of the last event in each folder.
        gate: closed while ingest is paused.
        readers: tag readers that run already, and go on afterwards.
        clock: seconds that never go back.

    """
    file = database_file(settings.database.url)
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
        retry_database.file = file
        async with given_time("starting: the schema of the catalogue is brought up to date"):
            await _bring_up_to_date(database, allowed=settings.database.upgrade)
        rows, run = await retry_database(FolderRepository(database.session).all), new_id()
        node, here = this_machine(rows, settings, database)
        scope = resolve_scope(settings, here, named)
        settings, known = scope.settings, {Path(text_to_path(folder.path)) for folder in here}
        if not known.issuperset(settings.library.folders):
            readers.start()
        places = [FolderKey(node, path_to_text(str(folder))) for folder in settings.library.folders]
        await opened.enter_async_context(database.backend.lock_folders(places, command, node=node, run=run))
        check_library(settings, known)
        folder_service = FolderService(database, run=run, node=node)
        adopted = [await _adopt(folder_service, str(path), settings) for path in settings.library.folders]
        roots = [root for root, _folder in adopted]
        queue = ScanQueue(roots, last_event=last_event, clock=clock)
        watcher = Watcher([root.path for root in roots], queue.add_events, queue.enqueue_everything) if watch else None
        coverage = WatchCoverage(None if watcher is None else watcher.watched)
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
        watching = None if watcher is None else _watching(settings, pipeline, watcher, coverage, roots)
        yield Ingest(pipeline, folder_service, database, roots, scope, run, watching)


def _watching(
    settings: Settings, pipeline: Pipeline, watcher: Watcher, coverage: WatchCoverage, roots: Sequence[Root]
) -> Watching:
    polling = Polling(
        pipeline,
        watcher,
        coverage,
        roots,
        reconcile_interval=settings.library.reconcile_interval,
        poll_interval=settings.library.poll_interval,
    )
    return Watching(watcher, polling)


def _tag_readers(settings: Settings) -> TagReaders:
    tags = settings.tags
    return TagReaders(
        tags.workers or min(os.cpu_count() or 1, 4),
        memory_limit=tags.memory_limit,
        time_limit=tags.time_limit,
        journal=_place_of_journal(settings.database.url),
    )


async def _bring_up_to_date(database: Database, *, allowed: bool) -> None:
    """Upgrade the schema; wait while the disk is full, but leave it to systemd to retry a server that is away."""
    bring = partial(bring_up_to_date, database, allowed=allowed)
    await (retry_database(bring) if database.backend.retries_upgrade else bring())


def this_machine(
    rows: Collection[KnownFolder], settings: Settings, database: Database
) -> tuple[str, list[KnownFolder]]:
    """Return the name by which a catalogue knows this machine, and those of its folders that are here."""
    node = own_node(rows, settings.library.node, is_shared=database.backend.is_shared)
    return node, [row for row in rows if row.node == node]


async def _adopt(folder_service: FolderService, path: str, settings: Settings) -> tuple[Root, KnownFolder]:
    file_system = await asyncio.to_thread(file_system_of, path)
    folder = await retry_database(folder_service.adopt_folder, path, file_system)
    if file_system.is_remote:
        every, kind = settings.library.poll_interval, file_system.kind
        logger.info("folder %s lies on %s: it is looked at every %g s", path_to_text(path), kind, every)
    return root_of(folder.id, path, settings, trusts_inodes=not file_system.is_remote), folder


def _place_of_journal(url: str) -> str | None:
    """Return where what is being read is noted, None where there is no place for it."""
    try:
        place = private_file(url, "reading")
        place.parent.mkdir(parents=True, exist_ok=True)
    except (ConfigError, OSError):
        return None
    return str(place)


def root_of(folder_id: str, path: str, settings: Settings, *, trusts_inodes: bool = True) -> Root:
    """Return a watched folder as the settings want it scanned."""
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
    """Let the files in hand finish, for as long as there is time for that."""
    ingest.pipeline.stop()
    # Files that cannot be written, or may not, wait for the next start.
    is_paused = retry_database.reason is not None or ingest.pipeline.is_paused
    await asyncio.wait([running], timeout=STOP_LIMIT / 8 if is_paused else STOP_LIMIT)
    running.cancel()


def stop_on_signals() -> asyncio.Event:
    """Return an event that SIGTERM and SIGINT set; ignore the signals of broken leases from now on."""
    ignore_lease_signals()
    stop, loop = asyncio.Event(), asyncio.get_running_loop()

    def stop_or_end(number: signal.Signals) -> None:
        if stop.is_set():
            os._exit(128 + number)  # second signal: exit now, the database survives a kill
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop_or_end, number)
    return stop


def own_node(folders: Iterable[KnownFolder], wanted: str, *, is_shared: bool) -> str:
    """Return the name that was `wanted`, else the host's.

    A catalogue that is not shared (an SQLite file) is of one machine, whatever that was called when it began: one that
    is renamed, or a container that gets another name at each start, would else find none of its folders, and take
    everything in a second time.
    """
    name = wanted or socket.gethostname()
    known = {folder.node for folder in folders}
    if wanted or is_shared or name in known or len(known) != 1:
        return name
    return known.pop()


def resolve_scope(settings: Settings, known: Iterable[KnownFolder], named: Sequence[Path]) -> ScanScope:
    """Return what to scan: the music folders, or what is named in one of them or in one that is known.

    A named path that lies in none of them is a music folder of its own.
    """
    if not named:
        return ScanScope(settings)
    parts = defaultdict[str, list[str]](list)
    watched = [text_to_path(folder.path) for folder in known if folder.status not in MOUNT_STATES]
    folders = [*map(str, settings.library.folders), *watched]
    for path in map(str, named):
        inside = [
            (folder, below)
            for folder in folders
            if (below := Root("", folder).relative(os.path.abspath(path))) is not None
        ]
        folder, below = inside[0] if inside else (os.path.abspath(path), "")
        parts[folder].append(f"{below}/" if below and os.path.isdir(path) else below)
    return ScanScope(settings.with_folders([Path(folder) for folder in parts]), parts)
