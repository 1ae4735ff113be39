"""The composition root: builds every object once, joins them, and takes them down in reverse.

`watch` keeps folders true until it is told to stop, `scan` brings them up to date once. Both are the same pipeline:
only the watcher and the timer are missing in the second.
"""

import asyncio
import logging
import os
import signal
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Protocol

from soulspot import health, hooks, outlets
from soulspot.config import Settings, check_library, database_file
from soulspot.doorman import page_served
from soulspot.errors import CatalogueError, SoulspotError
from soulspot.infrastructure.filesystem import file_system_of, ignore_lease_signals, path_to_text, text_to_path
from soulspot.infrastructure.persistence.database import Database, Place
from soulspot.infrastructure.persistence.identity import new_id
from soulspot.infrastructure.persistence.lock import writer_lock
from soulspot.infrastructure.persistence.models import MOUNT_STATES
from soulspot.infrastructure.persistence.repositories import FileRepository, FolderRepository, Known, KnownFolder
from soulspot.infrastructure.persistence.schema import bring_up_to_date, require_current
from soulspot.infrastructure.systemd import notify
from soulspot.infrastructure.tags import TagReaders
from soulspot.ingest.absence import LossGuard
from soulspot.ingest.credits import CreditRules
from soulspot.ingest.gate import Gate
from soulspot.ingest.ignoring import Ignoring
from soulspot.ingest.patience import patiently
from soulspot.ingest.pipeline import Pipeline
from soulspot.ingest.planner import compare
from soulspot.ingest.requests import BUSY_LIMIT, COUNT_AFTER, Requests
from soulspot.ingest.retention import Retention
from soulspot.ingest.scanner import Root, count_files, walk
from soulspot.ingest.service import IngestService, Outcome
from soulspot.ingest.stability import Stability
from soulspot.nodes import own_node
from soulspot.oversight import Change, State, controlled, given_time, look_at_the_database, tell_systemd
from soulspot.pauses import Pauses
from soulspot.pauses import place_of as pause_place
from soulspot.sockets import place_to_serve

logger = logging.getLogger(__name__)

STOP_LIMIT = 8.0
"""Seconds that the files in hand have to end in when the daemon is told to stop."""

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
    database: Database
    roots: list[Root]
    run: str


async def watch(read: Callable[[], Settings], *, report: Report) -> None:
    """Keep the folders and the catalogue equal until SIGTERM or SIGINT; a second signal ends at once.

    `read` returns the settings, at the start and whenever the control socket is told to reload. What is wrong then, or
    turns out to be when the new settings are used, leaves the old ones in force.
    """
    settings, stop, changes = read(), _stop_on_signals(), asyncio.Queue[Change]()
    state = State(settings, Pauses(pause_place(settings.database.url)))

    def tell(outcome: Outcome) -> None:
        report(outcome)
        state.hear(outcome)

    check_library(settings, settings.library.folders)  # before anything is made: what is absent is judged later
    with _alone(settings, "watch"):
        async with controlled(lambda: place_to_serve(settings), state, read, changes):
            change: Change | None = None
            while True:
                try:
                    following = await _watch_with(state, stop, changes, change, tell)
                except SoulspotError as error:
                    if change is None or change.done.done():
                        raise
                    logger.error("the settings from before stay in force: %s", error)  # noqa: TRY400 - one sentence
                    change.done.set_result({"error": str(error)})
                    state.settings, change = change.before, None
                    continue
                if following is None:
                    outlets.say_what_was_not_told(state)
                    return
                state.settings, change = following.settings, following


async def _watch_with(
    state: State, stop: asyncio.Event, changes: asyncio.Queue[Change], change: Change | None, report: Report
) -> Change | None:
    """Watch until told to stop, or to go on with other settings: these are returned."""
    from soulspot.infrastructure.watcher import Watcher
    from soulspot.ingest.rounds import Rounds

    settings = state.settings

    async with (
        outlets.listening(state),
        page_served(settings),
        _open(settings, "watch", report=report, warm=True, gate=state.pauses.gate) as ingest,
        outlets.hooked(state, ingest.run, ingest.roots) as hooked,
    ):

        def hint(paths: Iterable[str]) -> None:
            for root in ingest.roots:
                below = [path for path in map(root.relative, paths) if path is not None]
                if below:
                    state.last_event[root] = datetime.now(UTC)
                    ingest.pipeline.hints.add(root, below)

        def look_everywhere() -> None:
            for root in ingest.roots:
                ingest.pipeline.look_again(root, [""])

        state.pipeline, state.roots, state.database = ingest.pipeline, ingest.roots, ingest.database
        state.asked = Requests(ingest.pipeline, ingest.roots)
        state.watchdog = health.Watchdog(settings.tags.time_limit)
        watcher = Watcher([root.path for root in ingest.roots], hint, look_everywhere)
        rounds = Rounds(
            ingest.pipeline,
            watcher,
            ingest.roots,
            reconcile_interval=settings.library.reconcile_interval,
            poll_interval=settings.library.poll_interval,
        )
        ingest.pipeline.compare_with(watcher.watched, rounds.cover)
        state.watcher, state.rounds = watcher, rounds
        async with asyncio.TaskGroup() as group:
            telling = [group.create_task(hook.run(listener)) for hook, listener in hooked]
            pipeline = group.create_task(ingest.pipeline.run())
            others = [
                group.create_task(watcher.run()),
                group.create_task(rounds.run()),
                group.create_task(look_at_the_database(ingest.database)),
                group.create_task(state.pauses.run()),
                group.create_task(state.requests.run()),
                group.create_task(outlets.write_textfile(state)),
            ]
            await watcher.is_live.wait()
            others.append(group.create_task(tell_systemd(state, ingest.pipeline)))
            if settings.audit.keep_days:
                others.append(group.create_task(_retention(settings, ingest).run()))
            notify("READY=1", f"STATUS=watching {', '.join(path_to_text(root.path) for root in ingest.roots)}")
            state.is_watching.set()
            for root in ingest.roots:
                logger.info("watching %s", path_to_text(root.path))
            if change is not None:
                change.done.set_result({"changed": True})
            following = await _stop_or_change(stop, changes)
            state.is_watching.clear()
            if following is None:
                notify("STOPPING=1", "STATUS=stopping: the files in hand are ended")
                logger.info("stopping")
            else:
                notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}", "STATUS=taking new settings")
                logger.info("taking new settings")
            for task in others:
                task.cancel()
            await _end(ingest, pipeline)
            await hooks.end(hooked, telling)
    state.pipeline = state.asked = state.database = None
    return following


async def _stop_or_change(stop: asyncio.Event, changes: asyncio.Queue[Change]) -> Change | None:
    stopped, changed = asyncio.create_task(stop.wait()), asyncio.create_task(changes.get())
    await asyncio.wait([stopped, changed], return_when=asyncio.FIRST_COMPLETED)
    for task in (stopped, changed):
        task.cancel()
    return None if stop.is_set() else changed.result()


@dataclass(frozen=True, slots=True)
class Where:
    """What a scan is to look at: the settings with its folders, and the parts of those of which not all is meant."""

    settings: Settings
    parts: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def of(self, root: Root) -> Sequence[str]:
        return self.parts.get(root.path, ("",))


async def locate(settings: Settings, folders: Sequence[Path], named: Sequence[Path]) -> Where:
    """Return where a scan looks: at all of `folders`, or at what is named in one of them or in one that is known.

    What is named and lies in none of them is a music folder of its own.
    """
    parts = defaultdict[str, list[str]](list)
    known = [*map(str, folders), *(await _known_folders(settings) if named else ())]
    for path in map(str, named):
        inside = [
            (folder, below)
            for folder in known
            if (below := Root("", folder).relative(os.path.abspath(path))) is not None
        ]
        folder, below = inside[0] if inside else (os.path.abspath(path), "")
        parts[folder].append(f"{below}/" if below and os.path.isdir(path) else below)
    library = settings.library.model_copy(update={"folders": [Path(folder) for folder in parts] or list(folders)})
    return Where(settings.model_copy(update={"library": library}), parts)


async def _known_folders(settings: Settings) -> list[str]:
    """Return the folders on this machine that the catalogue knows, none where there is no catalogue yet."""
    file = database_file(settings.database.url)
    if file is not None and not file.exists():
        return []
    async with Database(settings.database.url, read_only=True) as database:
        try:
            await require_current(database)
        except CatalogueError:  # it is older: to bring it up to date is not done by the way
            return []
        rows = await FolderRepository(database.session).all()
        node = _own_node(rows, settings, database)
        return [text_to_path(row.path) for row in rows if row.node == node and row.status not in MOUNT_STATES]


async def scan(where: Where, *, progress: Progress, confirm_missing: bool = False) -> ScanResult:
    """Bring the catalogue up to date with the folders, once. Stopped by a signal, it ends after the files in hand."""
    settings, result, stop = where.settings, ScanResult(), _stop_on_signals()

    def count(outcome: Outcome) -> None:
        result.counts[outcome.kind] += 1
        progress.report(outcome)

    check_library(settings, settings.library.folders)  # before anything is made: what is absent is judged later
    with _alone(settings, "scan") as file:
        warm = file is not None and not file.exists()
        async with _open(settings, "scan", report=count, confirm_missing=confirm_missing, warm=warm) as ingest:
            await _scan_and_end(ingest, where, result, stop, progress)
    return result


async def _scan_and_end(
    ingest: _Ingest, where: Where, result: ScanResult, stop: asyncio.Event, progress: Progress
) -> None:
    async with asyncio.TaskGroup() as group:
        pipeline = group.create_task(ingest.pipeline.run())
        work = group.create_task(_scan_all(ingest, where, result, progress))
        stopping = group.create_task(stop.wait())
        counting = group.create_task(_count_ahead(ingest.roots, where, progress))
        await asyncio.wait([work, stopping], return_when=asyncio.FIRST_COMPLETED)
        for task in (work, stopping, counting):
            task.cancel()
        await _end(ingest, pipeline)
    changed = {kind: count for kind, count in result.counts.items() if kind != "unchanged" and count}
    if changed:
        for root in ingest.roots:
            await patiently(ingest.service.finish_scan, root, changed)


async def dry_run(where: Where, *, report: Report) -> ScanResult:
    """Say what a scan would do, by a look at the disk and at the catalogue; read no file and write nothing."""
    settings, result = where.settings, ScanResult()
    check_library(settings, settings.library.folders)  # as in `_open`: what is absent is judged below
    file = database_file(settings.database.url)
    async with Database(settings.database.url, read_only=True) as database:
        is_new = file is not None and not file.exists()
        if not is_new:
            await require_current(database)
        rows = [] if is_new else await FolderRepository(database.session).all()
        node = _own_node(rows, settings, database)
        folders = {row.path: row.id for row in rows if row.node == node}
        check_library(settings, [Path(text_to_path(path)) for path in folders])
        files = FileRepository(database.session)
        for path in map(str, settings.library.folders):
            root = root_of(folders.get(path_to_text(path), ""), path, settings)
            if not os.path.isdir(path):
                result.offline[path] = "it is not there: is its disk mounted?"
                continue
            for part in where.of(root):
                await _plan(root, part, files, result, report)
    return result


async def _plan(root: Root, part: str, files: FileRepository, result: ScanResult, report: Report) -> None:
    """Say what a scan of one part would do."""
    after = ""
    is_folder = not part or part.endswith("/")
    for batch in walk(root, part):
        known: Mapping[str, Known] = {}
        if root.id and is_folder:
            known = await files.known_between(root.id, part, after, batch.upto)
        elif root.id:
            known = await files.known_at(root.id, [part])
        comparison = compare(batch.files, known)
        after = batch.upto or ""
        result.counts["unchanged"] += comparison.unchanged
        plan = [("added" if work.known is None else "updated", work.file.path) for work in comparison.work]
        plan += [("missing", gone.path) for gone in comparison.gone if not batch.hides(gone.path)]
        for kind, below in plan:
            result.counts[kind] += 1
            report(Outcome(kind, f"{path_to_text(root.path)}/{below}"))


@contextmanager
def _alone(settings: Settings, command: str) -> Iterator[Path | None]:
    """Be the only one that writes an SQLite database, and yield its file; PostgreSQL has `Database.owning`."""
    file = database_file(settings.database.url)
    with writer_lock(file, command) if file else nullcontext():
        yield file


@asynccontextmanager
async def _open(  # noqa: PLR0913 - by name, in this module
    settings: Settings,
    command: str,
    *,
    report: Report,
    confirm_missing: bool = False,
    warm: bool = False,
    gate: Gate | None = None,
) -> AsyncIterator[_Ingest]:
    """Build what a command that writes needs, and holds the lock for: database, folders, tag readers, pipeline.

    `warm`: the tag readers will be needed, and start on other cores meanwhile.
    """
    ignore_lease_signals()
    file = database_file(settings.database.url)
    tags = settings.tags
    readers = TagReaders(
        tags.workers or min(os.cpu_count() or 1, 4),
        memory_limit=tags.memory_limit,
        time_limit=tags.time_limit,
        journal=f"{file}.reading" if file else None,
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
        node = _own_node(rows, settings, database)
        places = [Place(node, path_to_text(str(folder))) for folder in settings.library.folders]
        await owned.enter_async_context(database.owning(places, command, node=node, run=run))
        check_library(settings, [Path(text_to_path(folder.path)) for folder in rows if folder.node == node])
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
        )
        roots = [await _adopt(service, pipeline, str(path), settings) for path in settings.library.folders]
        yield _Ingest(pipeline, service, database, roots, run)


async def _bring_up_to_date(database: Database, *, allowed: bool) -> None:
    """Upgrade the schema, and wait for a disk that is full; a server that is away is for systemd to try again."""
    bring = partial(bring_up_to_date, database, allowed=allowed)
    await (patiently(bring) if database.is_sqlite else bring())


def _retention(settings: Settings, ingest: _Ingest) -> Retention:
    return Retention(
        ingest.database,
        keep=timedelta(days=settings.audit.keep_days),
        run=ingest.run,
        is_quiet=lambda: ingest.pipeline.is_quiet,
    )


def _own_node(rows: Iterable[KnownFolder], settings: Settings, database: Database) -> str:
    return own_node(rows, settings.library.node, is_shared=not database.is_sqlite)


async def _adopt(service: IngestService, pipeline: Pipeline, path: str, settings: Settings) -> Root:
    file_system = await asyncio.to_thread(file_system_of, path)
    folder = await patiently(service.adopt_folder, path, file_system)
    root = root_of(folder.id, path, settings, trusts_inodes=not file_system.is_remote)
    pipeline.add_root(root, folder.file_system_id, folder.status, folder.status_reason)
    if file_system.is_remote:
        every, kind = settings.library.poll_interval, file_system.kind
        logger.info("folder %s lies on %s: it is looked at every %g s", path_to_text(path), kind, every)
    return root


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


async def _end(ingest: _Ingest, running: asyncio.Task[None]) -> None:
    """Let the files in hand end, for as long as there is time for that."""
    ingest.pipeline.stop()
    # What cannot be written, or may not, waits for the next start.
    is_paused = patiently.reason is not None or ingest.pipeline.is_paused
    await asyncio.wait([running], timeout=STOP_LIMIT / 8 if is_paused else STOP_LIMIT)
    running.cancel()


async def _count_ahead(roots: Iterable[Root], where: Where, progress: Progress) -> None:
    await asyncio.sleep(COUNT_AFTER)
    counts = [await asyncio.to_thread(count_files, root, part) for root in roots for part in where.of(root)]
    progress.expect(sum(counts))


async def _scan_all(ingest: _Ingest, where: Where, result: ScanResult, progress: Progress) -> None:
    def unchanged(count: int) -> None:
        result.counts["unchanged"] += count
        progress.pass_over(count)

    for root in ingest.roots:
        for part in where.of(root):
            if not part or part.endswith("/"):
                await ingest.pipeline.reconcile(root, part, unchanged=unchanged)
            elif await ingest.pipeline.look_now(root, part) and os.path.lexists(root.full(part)):
                unchanged(1)
    result.still_written = await ingest.pipeline.done(give_up_after=BUSY_LIMIT)
    result.offline = {root.path: fault for root, fault in ingest.pipeline.faults.items()}
    result.held = {root.path: count for root, count in ingest.pipeline.held.items()}


def _stop_on_signals() -> asyncio.Event:
    stop, loop = asyncio.Event(), asyncio.get_running_loop()

    def stop_or_end(number: signal.Signals) -> None:
        if stop.is_set():
            os._exit(128 + number)  # told twice: the database is safe against an end at any moment
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop_or_end, number)
    return stop
