"""The state that the stages share: the files in progress, and whether any stage is working."""

import asyncio
import heapq
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from soulspot.infrastructure.filesystem import path_to_text
from soulspot.ingest.disk.planner import Work
from soulspot.ingest.disk.scan_queue import ScanQueue
from soulspot.ingest.disk.walker import Root, covers

CHECK_AGAIN = 0.2
"""Seconds after which a caller that waits for progress checks again, even if no stage has reported any."""


@dataclass(slots=True, eq=False)
class Pending:
    """One path on its way through the pipeline.

    Attributes:
        work: what to do.
        is_fresh: whether a hint named it, so that it goes before what a scan found.
        since: when it was admitted.
        appeared: when its folder was reported as new, in seconds since 1970; its own times may be older.
        fingerprint: the one that the catalogue has.
        again: whether to check it again at the end, because the path has changed meanwhile.
        due: when to check it again; None once it is complete.
        is_reported: whether a warning that it is still being written has been logged.

    """

    work: Work
    is_fresh: bool
    since: float
    appeared: float = 0.0
    fingerprint: str | None = None
    again: bool = False
    due: float | None = None
    is_reported: bool = False


class FilesInProgress:
    """The files that are admitted and not finished, each path at most once.

    Attributes:
        finished: files finished since the start.

    """

    def __init__(self, *, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._pending: dict[tuple[str, str], Pending] = {}
        self.finished = 0

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
        """The number of complete files."""
        return sum(pending.due is None for pending in self._pending.values())

    @property
    def oldest(self) -> float:
        """The age of the oldest, in seconds."""
        return max((self._clock() - pending.since for pending in self._pending.values()), default=0.0)

    def some(self, number: int) -> list[tuple[str, float, bool]]:
        """Return up to `number`, incomplete ones first: path, age in seconds, and whether it is incomplete."""
        first = heapq.nsmallest(number, self._pending.values(), key=lambda each: (each.due is None, each.since))
        return [
            (path_to_text(each.work.file.full_path), self._clock() - each.since, each.due is not None) for each in first
        ]

    def below(self, root: Root, part: str) -> list[Pending]:
        """Return the files at and below a path."""
        return [each for (folder, path), each in self._pending.items() if folder == root.id and covers(part, path)]

    def finished_or_late(self, waited: Iterable[Pending] | None = None, *, longer_than: float) -> list[str] | None:
        """Return the paths of the late files; None until all others are finished.

        Late are files that have been incomplete for longer than `longer_than` seconds. If `waited` is given, no other
        files count.
        """
        pending, latest = self._pending.values(), self._clock() - longer_than
        left = pending if waited is None else [each for each in waited if self._pending.get(_key(each)) is each]
        late = [each.work.file.full_path for each in left if each.due is not None and each.since < latest]
        return late if len(late) == len(left) else None


class Activity:
    """Whether anything is being scanned, checked or ingested; stages report their work here."""

    def __init__(self, queue: ScanQueue, files: FilesInProgress) -> None:
        self._queue = queue
        self._files = files
        self._working_stages = 0
        self._progressed = asyncio.Event()

    @contextmanager
    def working(self) -> Iterator[None]:
        """Count as working while the block runs."""
        self._working_stages += 1
        self.note_progress()
        try:
            yield
        finally:
            self._working_stages -= 1
            self.note_progress()

    @property
    def is_scanning(self) -> bool:
        """Whether a stage is working, or something waits to be scanned or checked."""
        return bool(self._queue) or self._working_stages > 0

    @property
    def is_quiet(self) -> bool:
        """Whether nothing is left to do, apart from files that are still being written."""
        return not (self._files.in_hand or self.is_scanning)

    def note_progress(self) -> None:
        """Wake the callers that wait for progress."""
        self._progressed.set()

    def watch_progress(self) -> None:
        """Have `next_progress` wait for progress from now on."""
        self._progressed.clear()

    async def next_progress(self) -> None:
        """Wait for progress since `watch_progress`, or for a short while."""
        with suppress(TimeoutError):
            async with asyncio.timeout(CHECK_AGAIN):
                await self._progressed.wait()


def _key(pending: Pending) -> tuple[str, str]:
    return pending.work.file.root.id, pending.work.file.path
