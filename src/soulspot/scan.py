"""Brings the catalogue up to date once: the pipeline of the daemon, without a watcher and a timer."""

import asyncio
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from soulspot.bootstrap import (
    Ingest,
    Report,
    Where,
    alone,
    end,
    located,
    opened,
    root_of,
    stop_on_signals,
    this_machine,
)
from soulspot.config import Settings
from soulspot.config.library_check import check_library
from soulspot.config.paths import database_file
from soulspot.infrastructure.filesystem import path_to_text, text_to_path
from soulspot.infrastructure.persistence.database import Database
from soulspot.infrastructure.persistence.repositories import FileRepository, FolderRepository
from soulspot.infrastructure.persistence.schema import require_current
from soulspot.ingest.disk.planner import compare
from soulspot.ingest.disk.walker import Root, count_files, walk
from soulspot.ingest.outcome import Outcome
from soulspot.ingest.retry import patiently
from soulspot.ingest.scan_requests import BUSY_LIMIT, COUNT_AFTER

if TYPE_CHECKING:
    from soulspot.infrastructure.persistence.records import Known, KnownFolder


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


async def scan(
    settings: Settings, named: Sequence[Path], *, progress: Progress, confirm_missing: bool = False
) -> ScanResult:
    """Bring the catalogue up to date with the folders, or with what is named in them, once.

    Stopped by a signal, it ends after the files in hand.
    """
    result, stop = ScanResult(), stop_on_signals()

    def count(outcome: Outcome) -> None:
        result.counts[outcome.kind] += 1
        progress.report(outcome)

    is_new = _is_new(settings)
    if is_new or not named:  # before anything is made; what is absent is judged later
        first = located(settings, (), named).settings
        check_library(first, first.library.folders)
    with alone(settings, "scan"):
        async with opened(
            settings, "scan", report=count, named=named, confirm_missing=confirm_missing, warm=is_new
        ) as ingest:
            await _scan_and_end(ingest, result, stop, progress)
    return result


async def _scan_and_end(ingest: Ingest, result: ScanResult, stop: asyncio.Event, progress: Progress) -> None:
    async with asyncio.TaskGroup() as group:
        pipeline = group.create_task(ingest.pipeline.run(), name="pipeline")
        work = group.create_task(_scan_all(ingest, result, progress), name="scan")
        stopping = group.create_task(stop.wait(), name="wait for a signal")
        counting = group.create_task(_count_ahead(ingest.roots, ingest.where, progress), name="count files ahead")
        await asyncio.wait([work, stopping], return_when=asyncio.FIRST_COMPLETED)
        for task in (work, stopping, counting):
            task.cancel()
        await end(ingest, pipeline)
    changed = {kind: count for kind, count in result.counts.items() if kind != "unchanged" and count}
    if changed:
        for root in ingest.roots:
            await patiently(ingest.service.finish_scan, root, changed)


async def dry_run(settings: Settings, named: Sequence[Path], *, report: Report) -> ScanResult:
    """Say what a scan would do, by a look at the disk and at the catalogue; read no file and write nothing."""
    result = ScanResult()
    async with Database(settings.database.url, read_only=True) as database:
        rows: list[KnownFolder] = []
        if not _is_new(settings):
            await require_current(database)
            rows = await FolderRepository(database.session).all()
        _node, here = this_machine(rows, settings, database)
        where = located(settings, here, named)
        settings, folders = where.settings, {row.path: row.id for row in here}
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


def _is_new(settings: Settings) -> bool:
    """Whether there is no catalogue yet; one on a server is made by a first look at it."""
    file = database_file(settings.database.url)
    return file is not None and not file.exists()


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


async def _scan_all(ingest: Ingest, result: ScanResult, progress: Progress) -> None:
    def unchanged(count: int) -> None:
        result.counts["unchanged"] += count
        progress.pass_over(count)

    for root in ingest.roots:
        for part in ingest.where.of(root):
            if not part or part.endswith("/"):
                await ingest.pipeline.reconcile(root, part, unchanged=unchanged)
            elif await ingest.pipeline.look_now(root, part) and os.path.lexists(root.full(part)):
                unchanged(1)
    result.still_written = await ingest.pipeline.done(give_up_after=BUSY_LIMIT)
    result.offline = {root.path: fault for root, fault in ingest.pipeline.faults.items()}
    result.held = {root.path: count for root, count in ingest.pipeline.held.items()}
