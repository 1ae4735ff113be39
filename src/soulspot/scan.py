"""Brings the catalogue up to date once, with the daemon's pipeline but without a watcher or a timer."""

import asyncio
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from soulspot.bootstrap import (
    Ingest,
    Report,
    drain,
    open_ingest,
    resolve_scope,
    root_of,
    stop_on_signals,
    this_machine,
    writer_lock_for,
)
from soulspot.config import Settings
from soulspot.config.library_check import check_library
from soulspot.config.paths import database_file
from soulspot.infrastructure.filesystem import path_to_text, text_to_path
from soulspot.infrastructure.persistence.database import Database
from soulspot.infrastructure.persistence.records import Known, KnownFolder
from soulspot.infrastructure.persistence.repositories import FileRepository, FolderRepository
from soulspot.infrastructure.persistence.schema import require_current
from soulspot.ingest.database_retry import retry_database
from soulspot.ingest.disk.planner import compare
from soulspot.ingest.disk.walker import Root, walk
from soulspot.ingest.outcome import Outcome
from soulspot.ingest.scan_requests import BUSY_LIMIT, COUNT_AFTER, count_files_ahead, scan_part


class Progress(Protocol):
    """Displays the progress of a scan."""

    def report(self, outcome: Outcome) -> None:
        """Add the outcome of one file."""

    def pass_over(self, count: int) -> None:
        """Add a number of unchanged files."""

    def expect(self, total: int) -> None:
        """Set the number of all files."""


@dataclass(slots=True)
class ScanResult:
    """The result of a scan: files by outcome, files still being written, folders offline or with held losses."""

    counts: Counter[str] = field(default_factory=Counter)
    still_written: list[str] = field(default_factory=list)
    offline: dict[str, str] = field(default_factory=dict)
    held: dict[str, int] = field(default_factory=dict)


async def scan(
    settings: Settings, named: Sequence[Path], *, progress: Progress, confirm_missing: bool = False
) -> ScanResult:
    """Bring the catalogue up to date with the folders, or with the named paths, once.

    A signal stops it after the files in progress.
    """
    result, stop = ScanResult(), stop_on_signals()

    def count(outcome: Outcome) -> None:
        result.counts[outcome.kind] += 1
        progress.report(outcome)

    is_new = _is_new(settings)
    if is_new or not named:  # before creating anything; `open_ingest` judges missing folders
        first = resolve_scope(settings, (), named).settings
        check_library(first, first.library.folders)
    with writer_lock_for(settings, "scan"):
        async with open_ingest(
            settings, "scan", report=count, named=named, confirm_missing=confirm_missing, warm=is_new
        ) as ingest:
            await _scan_and_end(ingest, result, stop, progress)
    return result


async def _scan_and_end(ingest: Ingest, result: ScanResult, stop: asyncio.Event, progress: Progress) -> None:
    async with asyncio.TaskGroup() as group:
        pipeline = group.create_task(ingest.pipeline.run(), name="pipeline")
        work = group.create_task(_scan_all(ingest, result, progress), name="scan")
        stopping = group.create_task(stop.wait(), name="wait for a signal")
        counting = group.create_task(_count_ahead(ingest, progress), name="count the files of a scan")
        await asyncio.wait([work, stopping], return_when=asyncio.FIRST_COMPLETED)
        for task in (work, stopping, counting):
            task.cancel()
        await drain(ingest, pipeline)
    if changed := {kind: count for kind, count in result.counts.items() if kind != "unchanged" and count}:
        for root in ingest.roots:
            await retry_database(ingest.folder_service.finish_scan, root, changed)


async def dry_run(settings: Settings, named: Sequence[Path], *, report: Report) -> ScanResult:
    """Report what a scan would do, by comparing the disk with the catalogue; read no file and write nothing."""
    result = ScanResult()
    async with Database(settings.database.url, read_only=True) as database:
        rows = list[KnownFolder]()
        if not _is_new(settings):
            await require_current(database)
            rows = await FolderRepository(database.session).all()
        _node, here = this_machine(rows, settings, database)
        scope = resolve_scope(settings, here, named)
        settings, folders = scope.settings, {row.path: row.id for row in here}
        check_library(settings, [Path(text_to_path(path)) for path in folders])
        files = FileRepository(database.session)
        for path in map(str, settings.library.folders):
            root = root_of(folders.get(path_to_text(path), ""), path, settings)
            if not os.path.isdir(path):
                result.offline[path] = "it is not there: is its disk mounted?"
                continue
            for part in scope.of(root):
                await _plan(root, part, files, result, report)
    return result


def _is_new(settings: Settings) -> bool:
    """Whether an SQLite catalogue does not exist yet; a server is not asked."""
    file = database_file(settings.database.url)
    return file is not None and not file.exists()


async def _plan(root: Root, part: str, files: FileRepository, result: ScanResult, report: Report) -> None:
    """Report what a scan of one part would do."""
    after = ""
    is_folder = not part or part.endswith("/")
    for batch in walk(root, part):
        known: Mapping[str, Known] = dict[str, Known]()
        if root.id and is_folder:
            known = await files.known_between(root.id, part, after, batch.upto)
        elif root.id:
            known = await files.known_at(root.id, [part])
        plan, after = compare(batch.files, known), batch.upto or ""
        result.counts["unchanged"] += plan.unchanged
        steps = [("added" if work.known is None else "updated", work.file.path) for work in plan.work]
        steps += [("missing", gone.path) for gone in plan.gone if not batch.hides(gone.path)]
        for kind, below in steps:
            result.counts[kind] += 1
            report(Outcome(kind, f"{path_to_text(root.path)}/{below}"))


async def _count_ahead(ingest: Ingest, progress: Progress) -> None:
    parts = {root: ingest.scope.of(root) for root in ingest.roots}
    progress.expect(await count_files_ahead(parts, after=COUNT_AFTER))


async def _scan_all(ingest: Ingest, result: ScanResult, progress: Progress) -> None:
    def unchanged(count: int) -> None:
        result.counts["unchanged"] += count
        progress.pass_over(count)

    for root in ingest.roots:
        for part in ingest.scope.of(root):
            await scan_part(ingest.pipeline, root, part, unchanged=unchanged)
    result.still_written = await ingest.pipeline.wait(give_up_after=BUSY_LIMIT)
    result.offline = {root.path: fault for root, fault in ingest.pipeline.faults.items()}
    result.held = {root.path: count for root, count in ingest.pipeline.held.items()}
