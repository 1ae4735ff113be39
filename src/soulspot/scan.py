"""Brings the catalogue up to date once: the pipeline of the daemon, without a watcher and a timer."""

import asyncio
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from soulspot.assembly import Ingest, Report, alone, end, name_of_this_machine, opened, root_of, stop_on_signals
from soulspot.config import Settings, check_library, database_file
from soulspot.errors import CatalogueError
from soulspot.infrastructure.filesystem import path_to_text, text_to_path
from soulspot.infrastructure.persistence.database import Database
from soulspot.infrastructure.persistence.models import MOUNT_STATES
from soulspot.infrastructure.persistence.repositories import FileRepository, FolderRepository, Known
from soulspot.infrastructure.persistence.schema import require_current
from soulspot.ingest.patience import patiently
from soulspot.ingest.planner import compare
from soulspot.ingest.requests import BUSY_LIMIT, COUNT_AFTER
from soulspot.ingest.scanner import Root, count_files, walk
from soulspot.ingest.service import Outcome


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
        node = name_of_this_machine(rows, settings, database)
        return [text_to_path(row.path) for row in rows if row.node == node and row.status not in MOUNT_STATES]


async def scan(where: Where, *, progress: Progress, confirm_missing: bool = False) -> ScanResult:
    """Bring the catalogue up to date with the folders, once. Stopped by a signal, it ends after the files in hand."""
    settings, result, stop = where.settings, ScanResult(), stop_on_signals()

    def count(outcome: Outcome) -> None:
        result.counts[outcome.kind] += 1
        progress.report(outcome)

    check_library(settings, settings.library.folders)  # before anything is made: what is absent is judged later
    with alone(settings, "scan") as file:
        warm = file is not None and not file.exists()
        async with opened(settings, "scan", report=count, confirm_missing=confirm_missing, warm=warm) as ingest:
            await _scan_and_end(ingest, where, result, stop, progress)
    return result


async def _scan_and_end(
    ingest: Ingest, where: Where, result: ScanResult, stop: asyncio.Event, progress: Progress
) -> None:
    async with asyncio.TaskGroup() as group:
        pipeline = group.create_task(ingest.pipeline.run())
        work = group.create_task(_scan_all(ingest, where, result, progress))
        stopping = group.create_task(stop.wait())
        counting = group.create_task(_count_ahead(ingest.roots, where, progress))
        await asyncio.wait([work, stopping], return_when=asyncio.FIRST_COMPLETED)
        for task in (work, stopping, counting):
            task.cancel()
        await end(ingest, pipeline)
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
        node = name_of_this_machine(rows, settings, database)
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


async def _count_ahead(roots: Iterable[Root], where: Where, progress: Progress) -> None:
    await asyncio.sleep(COUNT_AFTER)
    counts = [await asyncio.to_thread(count_files, root, part) for root in roots for part in where.of(root)]
    progress.expect(sum(counts))


async def _scan_all(ingest: Ingest, where: Where, result: ScanResult, progress: Progress) -> None:
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
