"""One file's way from the scan that found it changed to its transaction.

    offered ─> complete? ─┬─> read its tags ─> one transaction
                  ^       └─> not yet: wait, judge again
                  └─ named again meanwhile: checked when it comes out

A path is in here at most once, so that the changes of one file are applied in their order. What a hint named is read
before what a scan found, and a scan waits for room, so that a file dropped during a long import does not have to wait.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace

from soulspot.infrastructure.filesystem import path_to_text
from soulspot.infrastructure.persistence.records import Known
from soulspot.infrastructure.persistence.repositories import FileRepository
from soulspot.infrastructure.tags import Failure, TrackTags
from soulspot.infrastructure.tags.readers.pool import TagReaders
from soulspot.ingest.activity import Activity, FilesInProgress, Pending
from soulspot.ingest.catalogue.service import IngestService
from soulspot.ingest.disk.planner import Work
from soulspot.ingest.disk.scan_queue import ScanQueue
from soulspot.ingest.disk.walker import FoundFile, Root, chunks
from soulspot.ingest.intake.due_queue import DueQueue
from soulspot.ingest.intake.queues import Ready
from soulspot.ingest.intake.stability import Stability
from soulspot.ingest.missing.folder_health import FolderHealth
from soulspot.ingest.missing.missing_files import MissingFiles
from soulspot.ingest.missing.moves import MoveDetector
from soulspot.ingest.outcome import Outcome, StaleError
from soulspot.ingest.pause_gate import PauseGate
from soulspot.ingest.retry import retry_database

logger = logging.getLogger(__name__)

CONCURRENCY = 64
"""Files that are read or written at once."""
CONCURRENCY_TO_SERVER = 256
"""As many where the catalogue is on a server: most of them wait there for the first file of their artist or album."""
FRESH_ROOM = 64
"""Files of hints that may wait for a worker: a file that is dropped next waits for these and no more."""
BULK_ROOM = 256
"""Files of scans that may wait for a worker."""
CHECK_HOLDS = 1.0
"""Seconds for which the check that a file has left its path counts."""
STALE_LIMIT = 20
"""Times in a row that a file's transaction may find the catalogue changed; more is a fault of ours."""
UNFINISHED = frozenset(("empty", "truncated", "corrupt"))
"""Failures that a file may have that is still to grow."""
RETRY_AFTER = (10.0, 60.0, 600.0)
"""Seconds after which such a file is read once more although nobody has touched it."""


@dataclass(frozen=True, slots=True, eq=False)
class _Retry:
    file: FoundFile
    number: int


class Intake:
    """Takes files into the catalogue.

    Args:
        report: called with each outcome, after its commit.
        concurrency: files that are read or written at once.

    """

    def __init__(  # noqa: PLR0913 - the pipeline fills this in once, by name
        self,
        *,
        service: IngestService,
        readers: TagReaders,
        stability: Stability,
        files: FileRepository,
        health: FolderHealth,
        moves: MoveDetector,
        missing: MissingFiles,
        queue: ScanQueue,
        in_progress: FilesInProgress,
        activity: Activity,
        gate: PauseGate,
        report: Callable[[Outcome], None],
        concurrency: int = CONCURRENCY,
        clock: Callable[[], float] = time.monotonic,
        calendar: Callable[[], float] = time.time,
    ) -> None:
        self._service = service
        self._readers = readers
        self._stability = stability
        self._files = files
        self._health = health
        self._moves = moves
        self._missing = missing
        self._queue = queue
        self._in_progress = in_progress
        self._activity = activity
        self._gate = gate
        self._report = report
        self._concurrency = concurrency
        self._clock = clock
        self._calendar = calendar
        self._began = calendar()
        self._settling: DueQueue[Pending] = DueQueue(clock)
        self._ready = Ready(fresh_room=FRESH_ROOM, bulk_room=BULK_ROOM)
        self._retries: DueQueue[_Retry] = DueQueue(clock)
        self._not_audio: dict[tuple[str, str], object] = {}  # with the signature that was read
        self._stale: Counter[tuple[str, str]] = Counter()

    async def run(self) -> None:
        """Work until `stop`."""
        async with asyncio.TaskGroup() as group:
            others = [
                group.create_task(self._settle(), name="intake: incomplete files"),
                group.create_task(self._retry_failures(), name="intake: retries"),
            ]
            workers = [
                group.create_task(self._worker(), name=f"intake: worker {number}")
                for number in range(self._concurrency)
            ]
            await asyncio.wait(workers)
            for other in others:
                other.cancel()

    def stop(self) -> None:
        """Let each worker finish the file that it has, and take no other."""
        self._ready.close()

    def recheck_when_done(self, root: Root, paths: Iterable[str]) -> None:
        """Have paths that are in progress checked when they are done, and what they may have moved from as well."""
        for path in paths:
            if (pending := self._in_progress.get(root, path)) is not None:
                pending.again = True

    def recheck_soon(self, root: Root, path: str) -> bool:
        """Judge a path soon if it waits to be complete; return whether it does, and needs no other check."""
        pending = self._in_progress.get(root, path)
        if pending is None or pending.due is None:
            return False
        wait = self._stability.hurry(pending.work.file.full_path)
        if self._clock() + wait < pending.due:  # a file that is touched again and again is judged all the same
            self._let_settle(pending, wait)
        return True

    async def offer(self, work: Collection[Work], *, is_fresh: bool, since: float | None = None) -> int:
        """Take files in, each unless it is in progress already; return how many were not.

        In pieces, each when there is room for it: what was checked long before it is written may not be true any more.
        `since` is when their folder was reported as new, which may be later than their own last change.
        """
        appeared = 0.0 if since is None else self._calendar() - (self._clock() - since)
        return sum([await self._offer(some, is_fresh=is_fresh, appeared=appeared) for some in chunks(work)])

    async def _offer(self, work: Collection[Work], *, is_fresh: bool, appeared: float) -> int:
        admitted = []
        fingerprints = await self._moves.fingerprints_before(work)
        for each in await self._moves.match(work):
            root, path = each.file.root, each.file.path
            if (pending := self._in_progress.get(root, path)) is not None:
                pending.again = True
            elif self._not_audio.get((root.id, path)) != each.file.signature:
                pending = Pending(each, is_fresh, self._clock(), appeared)
                pending.fingerprint = fingerprints.get(each.known.id) if each.known is not None else None
                self._in_progress.add(pending)
                admitted.append(pending)
        await self._judge(admitted)
        return len(admitted)

    async def _settle(self) -> None:
        while True:
            due = await self._settling.take_due()
            for pending in due:
                pending.due = None
            await self._judge(due)

    def _let_settle(self, pending: Pending, wait: float) -> None:
        """Judge a file again in so many seconds."""
        pending.due = self._settling.put(pending, wait)

    async def _judge(self, admitted: Collection[Pending]) -> None:
        """Send each file on to the workers if it is complete, and to wait if it is not.

        One that has moved is not read, so it need not be complete.
        """
        unread = [each for each in admitted if each.work.moved_from is not None]
        for pending in unread:
            await self._ready.put(pending)
        to_read = [each for each in admitted if each.work.moved_from is None]
        if not to_read:
            return
        paths = [each.work.file.full_path for each in to_read]
        verdicts = await asyncio.to_thread(lambda: [self._stability.judge(path) for path in paths])
        for pending, verdict in zip(to_read, verdicts, strict=True):
            if verdict.signature is None:
                pending.again = True
                self._finish(pending)
            elif not verdict.is_complete:
                pending.is_fresh = True  # it goes to the fast queue: it has already waited
                self._let_settle(pending, verdict.wait)
                self._report_busy(pending)
            else:
                file = pending.work.file._replace(signature=verdict.signature)
                pending.work = replace(pending.work, file=file)
                await self._ready.put(pending)

    def _report_busy(self, pending: Pending) -> None:
        seconds = self._clock() - pending.since
        if seconds > self._stability.cap and not pending.is_reported:
            pending.is_reported = True
            path = path_to_text(pending.work.file.full_path)
            logger.warning("still being written after %.0f s, and read when it is complete: %s", seconds, path)

    async def _worker(self) -> None:
        while (pending := await self._ready.take()) is not None:
            await self._gate.wait_until_open()
            outcome = await self._take_in(pending)
            if outcome is not None:
                self._report(self._timed(outcome, pending))
            if pending.due is None:
                self._finish(pending)
            await asyncio.sleep(0)  # a file that is not read may never have awaited anything

    def _timed(self, outcome: Outcome, pending: Pending) -> Outcome:
        """Add how long it took from the file's last change, if that is known and not before the start.

        Only the ctime tells when a file was closed: a write, a rename and a change of its times all set it. A network
        file system has its server's clock.
        """
        file, known = pending.work.file, pending.work.known
        changed = max(file.signature.ctime_ns / 1e9, pending.appeared)
        if changed < self._began or not file.trusts_inode or (known is not None and known.signature == file.signature):
            return outcome
        return replace(outcome, waited=max(0.0, self._calendar() - changed))

    def _finish(self, pending: Pending) -> None:
        file = pending.work.file
        self._in_progress.finish(pending)
        if pending.again:
            self._queue.enqueue(file.root, [file.path])
            origin = pending.work.moved_from
            if origin is not None and (root := self._health.root_of(origin)) is not None:
                self._queue.enqueue(root, [origin.path])
        self._activity.note_progress()

    async def _take_in(self, pending: Pending) -> Outcome | None:
        key = pending.work.file.root.id, pending.work.file.path
        try:
            outcome = await retry_database(self._act, pending)
        except StaleError:
            self._stale[key] += 1
            if self._stale[key] > STALE_LIMIT:
                raise
            pending.again = True
            return None
        self._stale.pop(key, None)
        return outcome

    async def _act(self, pending: Pending) -> Outcome | None:  # noqa: PLR0911 - one for each thing that it can be
        """Do what there is to do with one complete file."""
        work, file, known = pending.work, pending.work.file, pending.work.known
        if work.moved_from is not None:
            if await self._is_gone(work.moved_from, pending):
                return await self._move(file, work.moved_from, known)
            pending.again = True  # it is another, and nobody knows whether it is complete
            return None
        if known is not None and _is_back(file, known):
            return await self._service.restore(file, known)
        reading = await self._readers.read(file.full_path, is_urgent=pending.is_fresh)
        if reading.failure is not None and reading.failure.code in {"vanished", "changed"}:
            pending.again = True
            return None
        if reading.signature is not None and reading.signature != file.signature:
            pending.again = True  # it is another file by now, and may not be complete
            return None
        if reading.failure is not None:
            return await self._reject(pending, reading.failure)
        if reading.tags is None:
            self._not_audio[file.root.id, file.path] = file.signature
            return None
        fingerprint = reading.tags.fingerprint
        if fingerprint is not None and fingerprint != pending.fingerprint:
            origin = await self._moves.match_fingerprint(file, fingerprint)
            if origin is not None:
                return await self._move(file, origin, known, reading.tags)
        return await self._service.ingest(file, reading.tags, known)

    async def _is_gone(self, origin: Known, pending: Pending) -> bool:
        """Whether a file is not at its own path any more, as it was when another matched it."""
        if self._clock() - pending.since < CHECK_HOLDS:
            return True
        return bool(await self._moves.are_gone([origin]))

    async def _move(
        self, file: FoundFile, origin: Known, occupant: Known | None, tags: TrackTags | None = None
    ) -> Outcome:
        outcome = await self._service.move(file, origin, occupant, tags)
        await self._missing.note_moved(origin)
        return outcome

    async def _reject(self, pending: Pending, failure: Failure) -> Outcome | None:
        """Write that a file could not be read, unless it may be unfinished; retry it in any case."""
        file, known = pending.work.file, pending.work.known
        may_be_unfinished = failure.code in UNFINISHED
        if may_be_unfinished and (wait := self._stability.rest_of_quiet(file.signature)) > 0:
            self._let_settle(pending, wait)
            return None
        if known is not None and _has_failed_so(file, known, failure):
            return None  # it was tried again, and nothing is new
        if may_be_unfinished or failure.code == "unreadable":
            self._retries.put(_Retry(file, 0), RETRY_AFTER[0])
        return await self._service.reject(file, failure, known)

    async def _retry_failures(self) -> None:
        """Retry failed files: a slow copy may have finished without an event."""
        while True:
            for retry in await self._retries.take_due():
                await self._retry(retry)

    async def _retry(self, retry: _Retry) -> None:
        file = retry.file
        known = (await retry_database(self._files.known_at, file.root.id, [file.path])).get(file.path)
        has_failed = known is not None and known.status == "failed"
        if has_failed and not self._health.is_unavailable(file.root, file.path):
            await self.offer([Work(file, known)], is_fresh=False)
        if retry.number + 1 < len(RETRY_AFTER):
            self._retries.put(_Retry(file, retry.number + 1), RETRY_AFTER[retry.number + 1])


def _has_failed_so(file: FoundFile, known: Known, failure: Failure) -> bool:
    is_current = file.is_as(known.signature) and known.parser_version == file.root.reading
    return is_current and (known.status, known.error_code) == ("failed", failure.code)


def _is_back(file: FoundFile, known: Known) -> bool:
    """Whether a missing file is there again as it was."""
    same = file.trusts_inode and known.signature.same_content(file.signature)
    return known.is_missing and same and known.parser_version == file.root.reading
