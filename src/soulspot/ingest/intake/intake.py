"""The way of one file, from the look that found it changed to its transaction.

    offered ─> complete? ─┬─> read its tags ─> one transaction
                  ^       └─> not yet: wait, look again
                  └─ said again meanwhile: looked at when it comes out

A path is in here at most once (`_pending`), so that the changes of one file are applied in their order. What a hint
named is read before what a walk found, and a walk waits for room, so that a file dropped during a long import is not
kept waiting.
"""

import asyncio
import heapq
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
from soulspot.ingest.catalogue.service import IngestService
from soulspot.ingest.disk.planner import Work
from soulspot.ingest.disk.walker import FoundFile, Root, chunks, covers
from soulspot.ingest.intake.queues import Later, Pending, Ready, Settling
from soulspot.ingest.intake.stability import Stability
from soulspot.ingest.missing.missing_files import Losses
from soulspot.ingest.missing.moves import Origins
from soulspot.ingest.outcome import Outcome, StaleError
from soulspot.ingest.pause_gate import Gate
from soulspot.ingest.retry import patiently

logger = logging.getLogger(__name__)

LANES = 64
"""Files that are read or written at once."""
LANES_TO_SERVER = 256
"""As many where the catalogue is on a server: most of them wait there for the first file of their artist or album."""
FRESH_ROOM = 64
"""Files that hints may have waiting for a lane: what is dropped next waits for these, and no more."""
BULK_ROOM = 256
"""Files that walks may have waiting for a lane."""
LOOK_HOLDS = 1.0
"""Seconds for which it is believed that a file has left its path."""
STALE_LIMIT = 20
"""Times in a row that a file's transaction may find the catalogue changed; more is a fault of ours."""
UNFINISHED = frozenset(("empty", "truncated", "corrupt"))
"""Failures that a file may have that is still to grow."""
RETRY_AFTER = (10.0, 60.0, 600.0)
"""Seconds after which such a file is read once more although nobody has touched it."""


@dataclass(frozen=True, slots=True)
class _Retry:
    file: FoundFile
    number: int


class Intake:
    """Takes files into the catalogue.

    Args:
        report: called with each outcome, after its commit.
        look_again: called with a path that has to be looked at once more.
        progressed: called when a file has come to its end, whichever.
        gate: closed for as long as a person has paused the ingest.
        lanes: files that are read or written at once.

    """

    def __init__(  # noqa: PLR0913 - the pipeline fills this in once, by name
        self,
        *,
        service: IngestService,
        readers: TagReaders,
        stability: Stability,
        files: FileRepository,
        losses: Losses,
        origins: Origins,
        report: Callable[[Outcome], None],
        look_again: Callable[[Root, list[str]], None],
        progressed: Callable[[], None],
        gate: Gate,
        lanes: int = LANES,
        clock: Callable[[], float] = time.monotonic,
        calendar: Callable[[], float] = time.time,
    ) -> None:
        self._service = service
        self._readers = readers
        self._stability = stability
        self._files = files
        self._losses = losses
        self._origins = origins
        self._report = report
        self._look_again = look_again
        self._progressed = progressed
        self._gate = gate
        self._number_of_lanes = lanes
        self._clock = clock
        self._calendar = calendar
        self._began = calendar()
        self._pending: dict[tuple[str, str], Pending] = {}
        self._settling = Settling(clock)
        self._ready = Ready(fresh_room=FRESH_ROOM, bulk_room=BULK_ROOM)
        self._retries: Later[_Retry] = Later(clock)
        self._not_audio: dict[tuple[str, str], object] = {}  # with the signature that was looked into
        self._stale: Counter[tuple[str, str]] = Counter()
        self.finished = 0

    async def run(self) -> None:
        """Work until `stop`."""
        async with asyncio.TaskGroup() as group:
            others = [group.create_task(self._settle()), group.create_task(self._try_again())]
            lanes = [group.create_task(self._lane()) for _number in range(self._number_of_lanes)]
            await asyncio.wait(lanes)
            for other in others:
                other.cancel()

    def stop(self) -> None:
        """Let each lane end the file that it has, and take no other."""
        self._ready.close()

    def __len__(self) -> int:
        return len(self._pending)

    @property
    def in_hand(self) -> int:
        """The number of files that are being read or written, or wait for that; not those that others write."""
        return sum(pending.due is None for pending in self._pending.values())

    @property
    def oldest(self) -> float:
        """Seconds for which one of them has been in here."""
        return max((self._clock() - pending.since for pending in self._pending.values()), default=0.0)

    def has(self, root: Root, path: str) -> bool:
        """Whether a path is on its way."""
        return (root.id, path) in self._pending

    def still_written(self, *, longer_than: float) -> list[str]:
        """Return the paths of the files that others have been writing for so many seconds."""
        return [each.work.file.full_path for each in self._pending.values() if self._is_late(each, longer_than)]

    def _is_late(self, pending: Pending, longer_than: float) -> bool:
        return pending.due is not None and pending.since + longer_than < self._clock()

    def arriving(self, number: int) -> list[tuple[str, float, bool]]:
        """Return some of what is in here: path, seconds, and whether it is waited for to be complete; these first."""
        first = heapq.nsmallest(number, self._pending.values(), key=lambda each: (each.due is None, each.since))
        return [
            (path_to_text(each.work.file.full_path), self._clock() - each.since, each.due is not None) for each in first
        ]

    def on_their_way(self, root: Root, part: str) -> list[Pending]:
        """Return what is in here at and below a path."""
        return [each for (folder, path), each in self._pending.items() if folder == root.id and covers(part, path)]

    def ended_or_late(self, waited: Collection[Pending], *, longer_than: float) -> list[str] | None:
        """Return which of these others have been writing for so long; None while one is neither that nor at its end."""
        here = [each for each in waited if self._pending.get(_key(each)) is each]
        late = [each for each in here if self._is_late(each, longer_than)]
        return [each.work.file.full_path for each in late] if len(here) == len(late) else None

    def look_once_more(self, root: Root, paths: Iterable[str]) -> None:
        """Have paths that are on their way looked at when that ends, and what they may have moved from as well."""
        for path in paths:
            if (pending := self._pending.get((root.id, path))) is not None:
                pending.again = True

    def hurry(self, root: Root, path: str) -> bool:
        """Whether a path waits to be complete; it is then looked at soon, and needs no other look."""
        pending = self._pending.get((root.id, path))
        if pending is None or pending.due is None:
            return False
        wait = self._stability.hurry(pending.work.file.full_path)
        if self._clock() + wait < pending.due:  # a file that is touched again and again is looked at all the same
            self._settling.put(pending, wait)
        return True

    async def offer(self, work: Collection[Work], *, is_fresh: bool, since: float | None = None) -> int:
        """Take files in, each unless it is on its way already; return how many were not.

        In pieces, each when there is room for it: what was looked at long before it is written may be true no more.
        `since` is when their folder was said to be new, which may be later than their own last change.
        """
        appeared = 0.0 if since is None else self._calendar() - (self._clock() - since)
        return sum([await self._offer(some, is_fresh=is_fresh, appeared=appeared) for some in chunks(work)])

    async def _offer(self, work: Collection[Work], *, is_fresh: bool, appeared: float) -> int:
        admitted = []
        sounds = await self._origins.sounds_before(work)
        for each in await self._origins.match(work):
            key = (each.file.root.id, each.file.path)
            if (pending := self._pending.get(key)) is not None:
                pending.again = True
            elif self._not_audio.get(key) != each.file.signature:
                self._pending[key] = pending = Pending(each, is_fresh, self._clock(), appeared)
                pending.sound = sounds.get(each.known.id) if each.known is not None else None
                admitted.append(pending)
        await self._judge(admitted)
        return len(admitted)

    async def _settle(self) -> None:
        while True:
            await self._judge(await self._settling.take_due())

    async def _judge(self, admitted: Collection[Pending]) -> None:
        """Send each file on to the lanes when it is complete, and to wait when it is not.

        One that has moved is not read, so whoever writes it only changes it once more.
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
                pending.is_fresh = True  # it has waited enough by the time it is complete
                self._settling.put(pending, verdict.wait)
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

    async def _lane(self) -> None:
        while (pending := await self._ready.take()) is not None:
            await self._gate.passed()
            outcome = await self._take_in(pending)
            if outcome is not None:
                self._report(self._timed(outcome, pending))
            if pending.due is None:
                self._finish(pending)
            await asyncio.sleep(0)  # what is not read may never have waited for anything

    def _timed(self, outcome: Outcome, pending: Pending) -> Outcome:
        """Add how long it took from the file's last change; not where that was before the start, or nobody knows when.

        Nothing else tells when a file was closed: a write, a rename and a change of its times all set its ctime. A
        network file system has its server's clock.
        """
        file, known = pending.work.file, pending.work.known
        changed = max(file.signature.ctime_ns / 1e9, pending.appeared)
        if changed < self._began or not file.trusts_inode or (known is not None and known.signature == file.signature):
            return outcome
        return replace(outcome, waited=max(0.0, self._calendar() - changed))

    def _finish(self, pending: Pending) -> None:
        file = pending.work.file
        del self._pending[file.root.id, file.path]
        self.finished += 1
        if pending.again:
            self._look_again(file.root, [file.path])
            origin = pending.work.moved_from
            if origin is not None and (root := self._losses.root_of(origin)) is not None:
                self._look_again(root, [origin.path])
        self._progressed()

    async def _take_in(self, pending: Pending) -> Outcome | None:
        key = _key(pending)
        try:
            outcome = await patiently(self._act, pending)
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
            if await self._has_left(work.moved_from, pending):
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
        sound = reading.tags.fingerprint
        if sound is not None and sound != pending.sound:
            origin = await self._origins.with_sound(file, sound)
            if origin is not None:
                return await self._move(file, origin, known, reading.tags)
        return await self._service.ingest(file, reading.tags, known)

    async def _has_left(self, origin: Known, pending: Pending) -> bool:
        """Whether a file is not at its own path any more, as was seen when another was taken for it."""
        if self._clock() - pending.since < LOOK_HOLDS:
            return True
        return bool(await self._origins.have_left([origin]))

    async def _move(
        self, file: FoundFile, origin: Known, occupant: Known | None, tags: TrackTags | None = None
    ) -> Outcome:
        outcome = await self._service.move(file, origin, occupant, tags)
        await self._losses.moved(origin)
        return outcome

    async def _reject(self, pending: Pending, failure: Failure) -> Outcome | None:
        """Write that a file could not be read, unless it may be one that is not whole yet; try it again anyway."""
        file, known = pending.work.file, pending.work.known
        may_be_unfinished = failure.code in UNFINISHED
        if may_be_unfinished and (wait := self._stability.rest_of_quiet(file.signature)) > 0:
            self._settling.put(pending, wait)
            return None
        if known is not None and _has_failed_so(file, known, failure):
            return None  # it was tried again, and nothing is new
        if may_be_unfinished or failure.code == "unreadable":
            self._retries.put(_Retry(file, 0), RETRY_AFTER[0])
        return await self._service.reject(file, failure, known)

    async def _try_again(self) -> None:
        """Read what failed a few times more, though nobody has touched it since: a copy may have gone on unseen."""
        while True:
            retry = await self._retries.take()
            file = retry.file
            known = (await patiently(self._files.known_at, file.root.id, [file.path])).get(file.path)
            if (
                known is not None
                and known.status == "failed"
                and not self._losses.is_out_of_sight(file.root, file.path)
            ):
                await self.offer([Work(file, known)], is_fresh=False)
            if retry.number + 1 < len(RETRY_AFTER):
                self._retries.put(_Retry(file, retry.number + 1), RETRY_AFTER[retry.number + 1])


def _key(pending: Pending) -> tuple[str, str]:
    return pending.work.file.root.id, pending.work.file.path


def _has_failed_so(file: FoundFile, known: Known, failure: Failure) -> bool:
    is_current = file.is_as(known.signature) and known.parser_version == file.root.reading
    return is_current and (known.status, known.error_code) == ("failed", failure.code)


def _is_back(file: FoundFile, known: Known) -> bool:
    """Whether a missing file is there again as it was."""
    same = file.trusts_inode and known.signature.same_content(file.signature)
    return known.is_missing and same and known.parser_version == file.root.reading
