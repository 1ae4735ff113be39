"""What the stages know of each other: the files in progress, and whether any stage is at work."""

import asyncio
import heapq
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from soulspot.infrastructure.filesystem import path_to_text
from soulspot.ingest.disk.planner import Work
from soulspot.ingest.disk.scan_queue import ScanQueue
from soulspot.ingest.disk.walker import Root, covers

CHECK_AGAIN = 0.2
"""Seconds after which a caller that waits for progress checks again, though no stage has reported any."""


@dataclass(slots=True, eq=False)
class Pending:
    """One path on its way through the pipeline.

    Attributes:
        work: what there is to do.
        is_fresh: whether a hint named it, so that it goes before what a scan found.
        since: when it began to wait.
        appeared: when its folder was reported as new, in seconds since 1970; its own times may be older.
        again: whether it has to be checked once more: something happened at the path meanwhile.
        due: when it is judged again, while it is not complete.
        fingerprint: the one that the catalogue has of it.
        is_reported: whether it was logged that it is still being written.

    """

    work: Work
    is_fresh: bool
    since: float
    appeared: float = 0.0
    again: bool = False
    due: float | None = None
    fingerprint: str | None = None
    is_reported: bool = False


class FilesInProgress:
    """The files that were found and are not done with, each path at most once."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._pending: dict[tuple[str, str], Pending] = {}
        self.finished = 0
        """The number of files that were done with since the start."""

    def __len__(self) -> int:
        return len(self._pending)

    def add(self, pending: Pending) -> None:
        self._pending[_key(pending)] = pending

    def finish(self, pending: Pending) -> None:
        del self._pending[_key(pending)]
        self.finished += 1

    def get(self, root: Root, path: str) -> Pending | None:
        return self._pending.get((root.id, path))

    def has(self, root: Root, path: str) -> bool:
        return (root.id, path) in self._pending

    @property
    def in_hand(self) -> int:
        """The number of files that are being read or written, or wait for that; not those that others write."""
        return sum(pending.due is None for pending in self._pending.values())

    @property
    def oldest(self) -> float:
        """Seconds for which one of them has been in here."""
        return max((self._clock() - pending.since for pending in self._pending.values()), default=0.0)

    def some(self, number: int) -> list[tuple[str, float, bool]]:
        """Return up to so many: path, seconds, and whether it is still incomplete; incomplete ones first."""
        first = heapq.nsmallest(number, self._pending.values(), key=lambda each: (each.due is None, each.since))
        return [
            (path_to_text(each.work.file.full_path), self._clock() - each.since, each.due is not None) for each in first
        ]

    def below(self, root: Root, part: str) -> list[Pending]:
        """Return the files at and below a path."""
        return [each for (folder, path), each in self._pending.items() if folder == root.id and covers(part, path)]

    def still_written(self, *, longer_than: float) -> list[str]:
        """Return the paths of the files that others have been writing for so many seconds."""
        return [each.work.file.full_path for each in self._pending.values() if self._is_late(each, longer_than)]

    def ended_or_late(self, waited: Collection[Pending], *, longer_than: float) -> list[str] | None:
        """Return which of these others have been writing for so long; None until all are either that or finished."""
        here = [each for each in waited if self._pending.get(_key(each)) is each]
        late = [each for each in here if self._is_late(each, longer_than)]
        return [each.work.file.full_path for each in late] if len(here) == len(late) else None

    def _is_late(self, pending: Pending, longer_than: float) -> bool:
        return pending.due is not None and pending.since + longer_than < self._clock()


class Activity:
    """Whether anything is being scanned, checked or ingested; stages report their work here."""

    def __init__(self, queue: ScanQueue, files: FilesInProgress) -> None:
        self._queue = queue
        self._files = files
        self._working_stages = 0
        self._progressed = asyncio.Event()

    @contextmanager
    def working(self) -> Iterator[None]:
        """Count as at work for as long as the block runs."""
        self._working_stages += 1
        self.note_progress()
        try:
            yield
        finally:
            self._working_stages -= 1
            self.note_progress()

    @property
    def is_scanning(self) -> bool:
        """Whether a stage is at work, or there is something to scan or check."""
        return bool(self._queue) or self._working_stages > 0

    @property
    def is_quiet(self) -> bool:
        """Whether there is nothing to do, apart from files that others write."""
        return not (self._files.in_hand or self.is_scanning)

    def note_progress(self) -> None:
        """Wake the callers that wait for progress."""
        self._progressed.set()

    def watch_progress(self) -> None:
        """Have `next_progress` wait for what happens from now on."""
        self._progressed.clear()

    async def next_progress(self) -> None:
        """Wait for progress since `watch_progress`, or for a short while."""
        try:
            async with asyncio.timeout(CHECK_AGAIN):
                await self._progressed.wait()
        except TimeoutError:
            return


def _key(pending: Pending) -> tuple[str, str]:
    return pending.work.file.root.id, pending.work.file.path
