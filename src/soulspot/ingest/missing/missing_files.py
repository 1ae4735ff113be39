"""Marks files missing, only after a grace period and only if the folder is healthy and not too many are gone.

Moves are detected before a file counts as lost.
"""

import asyncio
import logging
import os
from collections.abc import Callable, Collection
from datetime import UTC, datetime, timedelta
from functools import partial

from soulspot.infrastructure.filesystem import path_to_text
from soulspot.infrastructure.persistence.records import Known
from soulspot.infrastructure.persistence.repositories import FileRepository
from soulspot.ingest.activity import Activity, FilesInProgress
from soulspot.ingest.catalogue.folder_service import FolderService
from soulspot.ingest.catalogue.service import IngestService
from soulspot.ingest.database_retry import retry_database
from soulspot.ingest.disk.scan_queue import ScanQueue
from soulspot.ingest.disk.walker import Root, check_all, chunks, covers, why_left_alone
from soulspot.ingest.missing.folder_health import FolderHealth
from soulspot.ingest.missing.grace_period import GracePeriod, ages_of, seconds_gone
from soulspot.ingest.missing.loss_guard import LossGuard
from soulspot.ingest.missing.moves import MoveDetector
from soulspot.ingest.outcome import Outcome, StaleError
from soulspot.ingest.pause_gate import PauseGate

logger = logging.getLogger(__name__)

BUSY_WAIT = 0.25
"""Seconds between two checks of whether files are still arriving."""
COPY_WITHIN = timedelta(hours=24)
"""A copy of the same name that appeared at most this long before its original vanished is the original, moved: to
another disk, `mv` copies everything before it removes anything."""
COPY_OF_ANY_NAME = 60.0
"""A copy that appeared at most this many seconds before its original vanished may have any name: when a program
rewrites a file, with other tags and another name, the new one may be read before the old one is found gone."""
COPY_YOUNGER_BY = timedelta(seconds=60)
"""Two files that were found at about the same time always were two: neither is a copy of the other."""
QUIET_WAIT_LIMIT = 600.0
"""Seconds for which arriving files, which may be the ones that are gone, postpone the decision."""


class MissingFiles:
    """Decides about files that are not where the catalogue has them.

    Args:
        report: called with each outcome, after its commit.

    Attributes:
        held: missing files held back for confirmation, by folder.

    """

    def __init__(  # noqa: PLR0913 - the pipeline fills this in once, by name
        self,
        *,
        service: IngestService,
        folder_service: FolderService,
        files: FileRepository,
        health: FolderHealth,
        moves: MoveDetector,
        grace_period: GracePeriod,
        guard: LossGuard,
        queue: ScanQueue,
        in_progress: FilesInProgress,
        activity: Activity,
        gate: PauseGate,
        report: Callable[[Outcome], None],
        clock: Callable[[], float],
    ) -> None:
        self._service = service
        self._folder_service = folder_service
        self._files = files
        self._health = health
        self._moves = moves
        self._grace_period = grace_period
        self._guard = guard
        self._queue = queue
        self._in_progress = in_progress
        self._activity = activity
        self._gate = gate
        self._report = report
        self._clock = clock
        self._noted = asyncio.Event()
        self._is_deciding = False
        self.held: dict[Root, int] = {}

    def add_root(self, root: Root, status: str, reason: str | None) -> None:
        """Register a folder with its stored status."""
        if status == "held":
            number = (reason or "").partition(" ")[0]
            self.held[root] = int(number) if number.isdecimal() else 0

    def __len__(self) -> int:
        return len(self._grace_period)

    def undecided(self, root: Root, part: str) -> list[str]:
        """Return the paths at and below `part` that are in their grace period."""
        return [path for path in self._grace_period.waiting(root) if covers(part, path)]

    def are_decided(self, root: Root, paths: Collection[str]) -> bool:
        """Whether the outcome of each of these paths is in the catalogue."""
        return not self._is_deciding and not self._grace_period.any_of(root, paths)

    async def note(self, root: Root, paths: Collection[str], *, are_all: bool = False) -> None:
        """Note files that were not found; `are_all` if no other file of the folder is gone."""
        if are_all and not paths:
            await self.end_hold(root)
        if paths:
            await self._moves.note_gone(root, paths)
            self._grace_period.note(root, await asyncio.to_thread(ages_of, root, paths), are_all=are_all)
            self._noted.set()

    async def note_moved(self, origin: Known) -> None:
        """Note that a file has moved: drop it from the grace period."""
        if (root := self._health.root_of(origin)) is not None:
            self._grace_period.found(root, origin.path)
            if not self._is_deciding and self._grace_period.are_all_found(root):
                await self.end_hold(root)

    async def end_hold(self, root: Root) -> None:
        """Take a folder out of `held`: none of its files is gone any more."""
        if self.held.pop(root, None) is not None:
            await retry_database(
                self._folder_service.set_folder_status, root.id, path_to_text(root.path), "online", None
            )

    async def run(self) -> None:
        while True:
            self._noted.clear()
            try:
                async with asyncio.timeout(self._grace_period.next_due()):
                    await self._noted.wait()
            except TimeoutError:
                await self._wait_until_quiet()
                await self._gate.wait_until_open()
                with self._activity.working():
                    self._is_deciding = True
                    for root, paths in self._grace_period.take_due().items():
                        await self._decide(root, paths)
                    self._is_deciding = False

    async def _wait_until_quiet(self) -> None:
        """Wait while files arrive: a file that is gone may be one of them, under another name."""
        end = self._clock() + QUIET_WAIT_LIMIT
        while not self._activity.is_quiet and self._clock() < end:  # noqa: ASYNC110 - many things make it quiet
            await asyncio.sleep(BUSY_WAIT)

    async def _decide(self, root: Root, paths: Collection[str]) -> None:
        """Mark files missing that are gone, unless the folder is unhealthy or too many are gone at once."""
        if not await self._health.check(root):
            return
        gone = await self._really_gone(root, paths)
        waiting = await self._really_gone(root, self._grace_period.waiting(root))
        doubtful = {each for each in gone + waiting if not self._guard.is_confirmed(root, each.path)}
        present = await retry_database(self._files.count_present, root.id)
        is_held = bool(doubtful) and not self._guard.allows(root, len(doubtful), present)
        if is_held:
            await self._hold(root, len(doubtful), present)
            gone = [each for each in gone if each not in doubtful]
        lost = []
        for each in gone:
            try:
                self._report(await self._write_missing(root, each))
                lost.append(each)
            except StaleError:
                self._queue.enqueue(root, [each.path])
        self._guard.lost(root, sum(each in doubtful for each in lost))
        if lost and not is_held:
            await self.end_hold(root)

    async def _write_missing(self, root: Root, known: Known) -> Outcome:
        """Write that a file is missing; or that it has moved, if it was copied elsewhere and then removed."""
        if known.track_id is not None:
            copies = await retry_database(self._moved_copies_of, root, known)
            if len(copies) == 1:
                return await retry_database(self._service.merge_moved_copy, known, copies[0])
        try:
            reason = await asyncio.to_thread(why_left_alone, root, known.path)
        except OSError as error:
            raise StaleError(known.path) from error
        return await retry_database(self._service.lose, known, reason)

    async def _moved_copies_of(self, root: Root, known: Known) -> list[Known]:
        """Return the files that may be a moved one: copies of its name, else copies that are new enough."""
        copies_of = partial(self._files.later_copies_of, known.id, younger_by=COPY_YOUNGER_BY)
        copies = await copies_of(since=datetime.now(UTC) - COPY_WITHIN)
        namesakes = [each for each in copies if os.path.basename(each.path) == os.path.basename(known.path)]
        if namesakes or not copies:
            return namesakes
        age = COPY_OF_ANY_NAME + await asyncio.to_thread(seconds_gone, root, known.path)
        return await copies_of(since=datetime.now(UTC) - timedelta(seconds=age))

    async def _really_gone(self, root: Root, paths: Collection[str]) -> list[Known]:
        """Return the files that are not where the catalogue has them; has those that are back checked."""
        gone: list[Known] = []
        for some in chunks([path for path in paths if not self._health.is_unavailable(root, path)]):
            found = await asyncio.to_thread(check_all, root, some)
            self._queue.enqueue(root, [path for path, what in found.items() if what is not None])
            absent = [path for path, what in found.items() if what is None]
            known = await retry_database(self._files.known_at, root.id, absent)
            gone += [each for each in known.values() if not (each.is_missing or self._in_progress.has(root, each.path))]
        return gone

    async def _hold(self, root: Root, losing: int, present: int) -> None:
        self._grace_period.forget(root, but=partial(self._guard.is_confirmed, root))
        if root not in self.held:
            path, what = path_to_text(root.path), f"{losing} of its {present} files are gone"
            remedy = "`soulspot scan --confirm-missing` confirms the loss"
            logger.error("folder %s: %s; nothing is marked missing; %s", path, what, remedy)
            await retry_database(self._folder_service.set_folder_status, root.id, path, "held", what)
        self.held[root] = losing
