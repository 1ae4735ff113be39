"""What `watch` and `scan` both begin with and end with: every object is built here, once, and taken down in reverse."""

import asyncio
import logging
import os
import signal
import socket
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass, field
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
from soulspot.infrastructure.persistence.records import KnownFolder, Place
from soulspot.infrastructure.persistence.repositories import FileRepository, FolderRepository
from soulspot.infrastructure.persistence.schema import bring_up_to_date
from soulspot.infrastructure.persistence.sqlite.lock_file import writer_lock
from soulspot.infrastructure.systemd import given_time
from soulspot.infrastructure.tags.readers.pool import TagReaders
from soulspot.ingest.catalogue.credits import CreditRules
from soulspot.ingest.catalogue.service import IngestService
from soulspot.ingest.disk.ignore_rules import Ignoring
from soulspot.ingest.disk.walker import Root
from soulspot.ingest.intake.intake import LANES, LANES_TO_SERVER
from soulspot.ingest.intake.stability import Stability
from soulspot.ingest.missing.loss_guard import LossGuard
from soulspot.ingest.outcome import Outcome
from soulspot.ingest.pause_gate import Gate
from soulspot.ingest.pipeline import Pipeline
from soulspot.ingest.retry import patiently

logger = logging.getLogger(__name__)

STOP_LIMIT = 8.0
"""Seconds that the files in hand have to end in when the process is told to stop."""

Report = Callable[[Outcome], None]


@dataclass(frozen=True, slots=True)
class Where:
    """What a scan is to look at: the settings with its folders, and the parts of those of which not all is meant."""

    settings: Settings
    parts: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def of(self, root: Root) -> Sequence[str]:
        return self.parts.get(root.path, ("",))


@dataclass(slots=True)
class Ingest:
    pipeline: Pipeline
    service: IngestService
    database: Database
    roots: list[Root]
    where: Where
    run: str


@contextmanager
def alone(settings: Settings, command: str) -> Iterator[Path | None]:
    """Be the only one that writes an SQLite database, and yield its file; PostgreSQL has `Database.owning`."""
    file = database_file(settings.database.url)
    with writer_lock(file, command) if file else nullcontext():
        yield file


@asynccontextmanager
async def opened(  # noqa: PLR0913 - by name, in this module
    settings: Settings,
    command: str,
    *,
    report: Report,
    named: Sequence[Path] = (),
    confirm_missing: bool = False,
    warm: bool = False,
    gate: Gate | None = None,
) -> AsyncIterator[Ingest]:
    """Build what a command that writes needs, and holds the lock for: database, folders, tag readers, pipeline.

    `named`: what is meant in the folders, where not all of them is.
    `warm`: the tag readers will be needed, and start on other cores meanwhile; they do where a folder is new.
    """
    ignore_lease_signals()
    file = database_file(settings.database.url)
    tags = settings.tags
    readers = TagReaders(
        tags.workers or min(os.cpu_count() or 1, 4),
        memory_limit=tags.memory_limit,
        time_limit=tags.time_limit,
        journal=_place_of_journal(settings.database.url),
    )
    async with (
        readers,
        Database(
            settings.database.url,
            synchronous=settings.database.synchronous,
            connections=settings.database.connections,
        ) as database,
        AsyncExitStack() as owned,
    ):
        if warm:
            readers.start()
        patiently.file = file
        async with given_time("starting: the schema of the catalogue is brought up to date"):
            await _bring_up_to_date(database, allowed=settings.database.upgrade)
        rows, run = await patiently(FolderRepository(database.session).all), new_id()
        node, here = this_machine(rows, settings, database)
        where = located(settings, here, named)
        settings, known = where.settings, {Path(text_to_path(folder.path)) for folder in here}
        if not known.issuperset(settings.library.folders):
            readers.start()
        places = [Place(node, path_to_text(str(folder))) for folder in settings.library.folders]
        await owned.enter_async_context(database.owning(places, command, node=node, run=run))
        check_library(settings, known)
        rules = credit_rules(settings)
        service = IngestService(database, run=run, node=node, credit_rules=rules)
        pipeline = Pipeline(
            service=service,
            files=FileRepository(database.session),
            readers=readers,
            stability=Stability(settings.library.quiet_period, leases=settings.library.leases),
            report=report,
            missing_after=settings.library.missing_after,
            guard=LossGuard(confirmed=confirm_missing),
            gate=gate,
            lanes=LANES if database.is_sqlite else LANES_TO_SERVER,
        )
        roots = [await _adopt(service, pipeline, str(path), settings) for path in settings.library.folders]
        yield Ingest(pipeline, service, database, roots, where, run)


async def _bring_up_to_date(database: Database, *, allowed: bool) -> None:
    """Upgrade the schema, and wait for a disk that is full; a server that is away is for systemd to try again."""
    bring = partial(bring_up_to_date, database, allowed=allowed)
    await (patiently(bring) if database.is_sqlite else bring())


def this_machine(
    rows: Collection[KnownFolder], settings: Settings, database: Database
) -> tuple[str, list[KnownFolder]]:
    """Return the name by which a catalogue knows this machine, and those of its folders that are here."""
    node = own_node(rows, settings.library.node, is_shared=not database.is_sqlite)
    return node, [row for row in rows if row.node == node]


async def _adopt(service: IngestService, pipeline: Pipeline, path: str, settings: Settings) -> Root:
    file_system = await asyncio.to_thread(file_system_of, path)
    folder = await patiently(service.adopt_folder, path, file_system)
    root = root_of(folder.id, path, settings, trusts_inodes=not file_system.is_remote)
    pipeline.add_root(root, folder.file_system_id, folder.status, folder.status_reason)
    if file_system.is_remote:
        every, kind = settings.library.poll_interval, file_system.kind
        logger.info("folder %s lies on %s: it is looked at every %g s", path_to_text(path), kind, every)
    return root


def _place_of_journal(url: str) -> str | None:
    """Return where what is being read is noted, None where there is no place for it."""
    try:
        place = private_file(url, "reading")
        place.parent.mkdir(parents=True, exist_ok=True)
    except (ConfigError, OSError):
        return None
    return str(place)


def root_of(folder_id: str, path: str, settings: Settings, *, trusts_inodes: bool = True) -> Root:
    """Return a watched folder as the settings want it looked at."""
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


async def end(ingest: Ingest, running: asyncio.Task[None]) -> None:
    """Let the files in hand end, for as long as there is time for that."""
    ingest.pipeline.stop()
    # What cannot be written, or may not, waits for the next start.
    is_paused = patiently.reason is not None or ingest.pipeline.is_paused
    await asyncio.wait([running], timeout=STOP_LIMIT / 8 if is_paused else STOP_LIMIT)
    running.cancel()


def stop_on_signals() -> asyncio.Event:
    stop, loop = asyncio.Event(), asyncio.get_running_loop()

    def stop_or_end(number: signal.Signals) -> None:
        if stop.is_set():
            os._exit(128 + number)  # told twice: the database is safe against an end at any moment
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


def located(settings: Settings, known: Iterable[KnownFolder], named: Sequence[Path]) -> Where:
    """Return where to look: at the music folders, or at what is named in one of them or in one that is known.

    What is named and lies in none of them is a music folder of its own.
    """
    if not named:
        return Where(settings)
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
    return Where(settings.with_folders([Path(folder) for folder in parts]), parts)
