"""Takes each file from the scan that found it changed to its transaction.

    offered ─> complete? ─┬─> read its tags ─> one transaction
                  ^       └─> not yet: wait, judge again
                  └─ named again meanwhile: checked again at the end

A path is in progress at most once, so that the changes of one file are applied in order. What a hint named is read
before what a scan found, and a scan waits for room, so that a file dropped during a long import does not have to wait.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import replace

from soulspot.infrastructure.filesystem import path_to_text
from soulspot.infrastructure.persistence.records import Known
from soulspot.infrastructure.persistence.repositories import FileRepository
from soulspot.infrastructure.tags import Failure, TrackTags
from soulspot.infrastructure.tags.readers.pool import TagReaders
from soulspot.ingest.activity import Activity, FilesInProgress, Pending
from soulspot.ingest.catalogue.service import IngestService
from soulspot.ingest.database_retry import retry_database
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

logger = logging.getLogger(__name__)

CONCURRENCY = 64
"""Files that are read or written at once."""
CONCURRENCY_TO_SERVER = 256
"""The same for a catalogue on a server: most of them wait there for the first file of their artist or album."""
FRESH_ROOM = 64
"""Files of hints that may wait for a worker: the next dropped file waits for no more than these."""
BULK_ROOM = 256
"""Files of scans that may wait for a worker."""
CHECK_HOLDS = 1.0
"""Seconds for which a check that a file has left its path remains valid."""
STALE_LIMIT = 20
"""Times in a row that a file's transaction may find the catalogue changed; more is a bug."""
UNFINISHED = frozenset(("empty", "truncated", "corrupt"))
"""Failures that an unfinished copy may cause."""
RETRY_AFTER = (10.0, 60.0, 600.0)
"""Seconds between the retries of a failed file that no event names."""


class Intake:
    """Brings files into the catalogue.

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
        concurrency: int,
        clock: Callable[[], float],
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
        self._start = time.time()
        self._settling: DueQueue[Pending] = DueQueue(clock)
        self._ready = Ready(fresh_room=FRESH_ROOM, bulk_room=BULK_ROOM)
        self._retries: DueQueue[tuple[FoundFile, int]] = DueQueue(clock)  # with the number of retries so far
        self._not_audio: dict[tuple[str, str], object] = {}  # by path, the signature that was read
        self._stale: Counter[tuple[str, str]] = Counter()

    async def run(self) -> None:
        """Work until `stop`."""
        async with asyncio.TaskGroup() as group:
            others = [
                group.create_task(self._settle(), name="intake: incomplete files"),
                group.create_task(self._retry_failures(), name="intake: retries"),
            ]
            names = [f"intake: worker {number}" for number in range(self._concurrency)]
            await asyncio.wait([group.create_task(self._worker(), name=name) for name in names])
            for other in others:
                other.cancel()

    def stop(self) -> None:
        """Let each worker finish its file, and take no other."""
        self._ready.close()

    def recheck_when_done(self, root: Root, paths: Iterable[str]) -> None:
        """Have paths in progress checked again when they are done, and the paths that they moved from as well."""
        for path in paths:
            if (pending := self._in_progress.get(root, path)) is not None:
                pending.again = True

    def recheck_soon(self, root: Root, path: str) -> bool:
        """Judge a path soon if it waits to be complete; return whether it does, so that it needs no other check."""
        pending = self._in_progress.get(root, path)
        if pending is None or pending.due is None:
            return False
        wait = self._stability.hurry(pending.work.file.full_path)
        if self._clock() + wait < pending.due:  # never later, or a file touched again and again would never be judged
            self._let_settle(pending, wait)
        return True

    async def offer(self, work: Collection[Work], *, is_fresh: bool, since: float | None = None) -> int:
        """Admit files, each unless it is in progress already; return the number admitted.

        Works in chunks, each when there is room: what was checked long before it is written may be outdated.
        `since` is when their folder was reported as new, which may be later than their own last change.
        """
        appeared = 0.0 if since is None else time.time() - (self._clock() - since)
        return sum([await self._offer(some, is_fresh=is_fresh, appeared=appeared) for some in chunks(work)])

    async def _offer(self, work: Collection[Work], *, is_fresh: bool, appeared: float) -> int:
        admitted = []
        fingerprints = await self._moves.fingerprints_before(work)
        for each in await self._moves.match(work):
            root, path = each.file.root, each.file.path
            if (pending := self._in_progress.get(root, path)) is not None:
                pending.again = True
            elif self._not_audio.get((root.id, path)) != each.file.signature:
                before = None if each.known is None else fingerprints.get(each.known.id)
                pending = Pending(each, is_fresh, self._clock(), appeared, before)
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
        """Judge a file again in `wait` seconds."""
        pending.due = self._settling.put(pending, wait)

    async def _judge(self, admitted: Collection[Pending]) -> None:
        """Queue each complete file for the workers; let the others settle.

        A file that has moved is not read, so it need not be complete.
        """
        for pending in admitted:
            if pending.work.moved_from is not None:
                await self._ready.put(pending)
        to_read = [each for each in admitted if each.work.moved_from is None]
        if not to_read:
            return
        paths = [each.work.file.full_path for each in to_read]
        verdicts = await asyncio.to_thread(lambda: list(map(self._stability.judge, paths)))
        for pending, verdict in zip(to_read, verdicts, strict=True):
            if verdict.signature is None:
                pending.again = True
                self._finish(pending)
            elif verdict.wait:
                pending.is_fresh = True  # it goes to the fast queue: it has already waited
                self._let_settle(pending, verdict.wait)
                self._report_busy(pending)
            else:
                pending.work = replace(pending.work, file=pending.work.file._replace(signature=verdict.signature))
                await self._ready.put(pending)

    def _report_busy(self, pending: Pending) -> None:
        seconds = self._clock() - pending.since
        if seconds > self._stability.cap and not pending.is_reported:
            pending.is_reported = True
            path = path_to_text(pending.work.file.full_path)
            logger.warning("still being written after %.0f s; will be read when complete: %s", seconds, path)

    async def _worker(self) -> None:
        while (pending := await self._ready.take()) is not None:
            await self._gate.wait_until_open()
            if (outcome := await self._process(pending)) is not None:
                self._report(self._timed(outcome, pending))
            if pending.due is None:
                self._finish(pending)
            await asyncio.sleep(0)  # lets others run: a file that is not read may not have awaited anything

    def _timed(self, outcome: Outcome, pending: Pending) -> Outcome:
        """Add the seconds since the file's last change, if that is known and not before the start.

        Only the ctime shows when a file was closed: a write, a rename and a change of its times all set it. A network
        file system has its server's clock.
        """
        file, known = pending.work.file, pending.work.known
        changed = max(file.signature.ctime_ns / 1e9, pending.appeared)
        if changed < self._start or not file.trusts_inode or (known is not None and known.signature == file.signature):
            return outcome
        return replace(outcome, waited=max(0.0, time.time() - changed))

    def _finish(self, pending: Pending) -> None:
        file = pending.work.file
        self._in_progress.finish(pending)
        if pending.again:
            self._queue.enqueue(file.root, [file.path])
            origin = pending.work.moved_from
            if origin is not None and (root := self._health.root_of(origin)) is not None:
                self._queue.enqueue(root, [origin.path])
        self._activity.note_progress()

    async def _process(self, pending: Pending) -> Outcome | None:
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

    async def _act(self, pending: Pending) -> Outcome | None:  # noqa: PLR0911 - one for each case
        """Move, restore, read or reject one complete file; return None if it has to be checked again."""
        file, known, origin = pending.work.file, pending.work.known, pending.work.moved_from
        if origin is not None:
            if self._clock() - pending.since < CHECK_HOLDS or await self._moves.are_gone([origin]):
                return await self._move(file, origin, known)
            pending.again = True  # a copy, and nothing has judged whether it is complete
            return None
        if known is not None and _is_back(file, known):
            return await self._service.restore(file, known)
        reading = await self._readers.read(file.full_path, is_urgent=pending.is_fresh)
        has_changed = reading.failure is not None and reading.failure.code in {"vanished", "changed"}
        if has_changed or reading.signature not in {None, file.signature}:
            pending.again = True  # another file is there now, and may not be complete
            return None
        if reading.failure is not None:
            return await self._reject(pending, reading.failure)
        if reading.tags is None:
            self._not_audio[file.root.id, file.path] = file.signature
            return None
        fingerprint = reading.tags.fingerprint
        if (
            fingerprint is not None
            and fingerprint != pending.fingerprint
            and (origin := await self._moves.match_fingerprint(file, fingerprint)) is not None
        ):
            return await self._move(file, origin, known, reading.tags)
        return await self._service.ingest(file, reading.tags, known)

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
            return None  # it was retried, with the same result
        if may_be_unfinished or failure.code == "unreadable":
            self._retries.put((file, 0), RETRY_AFTER[0])
        return await self._service.reject(file, failure, known)

    async def _retry_failures(self) -> None:
        """Retry failed files: a slow copy may have finished without an event."""
        while True:
            for file, number in await self._retries.take_due():
                await self._retry(file, number)

    async def _retry(self, file: FoundFile, number: int) -> None:
        known = (await retry_database(self._files.known_at, file.root.id, [file.path])).get(file.path)
        has_failed = known is not None and known.status == "failed"
        if has_failed and not self._health.is_unavailable(file.root, file.path):
            await self.offer([Work(file, known)], is_fresh=False)
        if number + 1 < len(RETRY_AFTER):
            self._retries.put((file, number + 1), RETRY_AFTER[number + 1])


def _has_failed_so(file: FoundFile, known: Known, failure: Failure) -> bool:
    """Whether an unchanged file failed in the same way before."""
    failed_so = known.status == "failed" and known.error_code == failure.code
    return failed_so and file.is_as(known.signature) and known.parser_version == file.root.reading


def _is_back(file: FoundFile, known: Known) -> bool:
    """Whether a missing file is present again, unchanged."""
    same = file.trusts_inode and known.signature.same_content(file.signature)
    return known.is_missing and same and known.parser_version == file.root.reading
