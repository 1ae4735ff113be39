"""The way of one file, from the look that found it changed to its transaction.

    offered ─> complete? ─┬─> read its tags ─> one transaction
                  ^       └─> not yet: wait, look again
                  └─ said again meanwhile: looked at when it comes out

A path is in here at most once (`_pending`), so that the changes of one file are applied in their order. What a hint
named is read before what a walk found, and a walk waits for room, so that a file dropped during a long import is not
kept waiting.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import replace

from soulspot.infrastructure.persistence.repositories import FileRepository, Known
from soulspot.infrastructure.tags import PARSER_VERSION, TagReaders
from soulspot.ingest import planner
from soulspot.ingest.losses import Losses
from soulspot.ingest.patience import patiently
from soulspot.ingest.planner import Work
from soulspot.ingest.queues import Pending, Ready, Settling
from soulspot.ingest.scanner import FoundFile, Root, chunks, look_at_all
from soulspot.ingest.service import IngestService, Outcome, StaleError
from soulspot.ingest.stability import FIRST_WAIT, Stability

LANES = 128
"""Files that are read or written at once."""
BULK_ROOM = 256
"""Files that walks may have waiting for a lane."""
STALE_LIMIT = 20
"""Times in a row that a file's transaction may find the catalogue changed; more is a fault of ours."""


class Intake:
    """Takes files into the catalogue.

    Args:
        report: called with each outcome, after its commit.
        look_again: called with a path that has to be looked at once more.
        progressed: called when a file has come to its end, whichever.

    """

    def __init__(  # noqa: PLR0913 - the pipeline fills this in once, by name
        self,
        *,
        service: IngestService,
        files: FileRepository,
        readers: TagReaders,
        stability: Stability,
        losses: Losses,
        report: Callable[[Outcome], None],
        look_again: Callable[[Root, list[str]], None],
        progressed: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._service = service
        self._files = files
        self._readers = readers
        self._stability = stability
        self._losses = losses
        self._report = report
        self._look_again = look_again
        self._progressed = progressed
        self._clock = clock
        self._pending: dict[tuple[str, str], Pending] = {}
        self._settling = Settling(clock)
        self._ready = Ready(BULK_ROOM)
        self._not_audio: dict[tuple[str, str], object] = {}  # with the signature that was looked into
        self._stale: Counter[tuple[str, str]] = Counter()

    async def run(self) -> None:
        """Work until `stop`."""
        async with asyncio.TaskGroup() as group:
            settling = group.create_task(self._settle())
            lanes = [group.create_task(self._lane()) for _number in range(LANES)]
            await asyncio.wait(lanes)
            settling.cancel()

    def stop(self) -> None:
        """Let each lane end the file that it has, and take no other."""
        self._ready.close()

    def __len__(self) -> int:
        return len(self._pending)

    def has(self, root: Root, path: str) -> bool:
        """Whether a path is on its way."""
        return (root.id, path) in self._pending

    def still_written(self, *, longer_than: float) -> list[str]:
        """Return the paths of the files that others have been writing for so many seconds."""
        late = [each for each in self._pending.values() if each.since + longer_than < self._clock()]
        return [each.work.file.full_path for each in late if each.due is not None]

    def hurry(self, root: Root, path: str) -> bool:
        """Whether a path waits to be complete; it is then looked at soon, and needs no other look."""
        pending = self._pending.get((root.id, path))
        if pending is None or pending.due is None:
            return False
        self._stability.hurry(pending.work.file.full_path)
        self._settling.put(pending, FIRST_WAIT)
        return True

    async def offer(self, work: Collection[Work], *, is_fresh: bool) -> None:
        """Take files in, each unless it is on its way already."""
        admitted = []
        for each in planner.match_moves(work, await self._elsewhere(work)):
            key = (each.file.root.id, each.file.path)
            if (pending := self._pending.get(key)) is not None:
                pending.again = True
            elif self._not_audio.get(key) != each.file.signature:
                self._pending[key] = pending = Pending(each, is_fresh, self._clock())
                admitted.append(pending)
        await self._judge(admitted)

    async def _elsewhere(self, work: Iterable[Work]) -> list[Known]:
        known: list[Known] = []
        for inodes in chunks(planner.inodes_to_ask(work)):
            known += await patiently(self._files.with_inodes, inodes)
        return [each for each in known if self._losses.root_of(each) is not None]

    async def _settle(self) -> None:
        while True:
            await self._judge(await self._settling.take_due())

    async def _judge(self, admitted: Collection[Pending]) -> None:
        """Send each file on to the lanes when it is complete, and to wait when it is not."""
        if not admitted:
            return
        paths = [each.work.file.full_path for each in admitted]
        verdicts = await asyncio.to_thread(lambda: [self._stability.judge(path) for path in paths])
        for pending, verdict in zip(admitted, verdicts, strict=True):
            if verdict.signature is None:
                pending.again = True
                self._finish(pending)
            elif not verdict.is_complete:
                pending.is_fresh = True  # it has waited enough by the time it is complete
                self._settling.put(pending, verdict.wait)
            else:
                file = replace(pending.work.file, signature=verdict.signature)
                pending.work = replace(pending.work, file=file)
                await self._ready.put(pending)

    async def _lane(self) -> None:
        while (pending := await self._ready.take()) is not None:
            outcome = await self._take_in(pending)
            if outcome is not None:
                self._report(outcome)
            self._finish(pending)

    def _finish(self, pending: Pending) -> None:
        file = pending.work.file
        del self._pending[file.root.id, file.path]
        if pending.again:
            self._look_again(file.root, [file.path])
        self._progressed()

    async def _take_in(self, pending: Pending) -> Outcome | None:
        key = (pending.work.file.root.id, pending.work.file.path)
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
        if work.moved_from is not None and await self._has_moved(file, work.moved_from):
            return await self._service.move(file, work.moved_from, known)
        if known is not None and _is_back(file, known):
            return await self._service.restore(file, known)
        reading = await self._readers.read(file.full_path)
        if reading.failure is not None and reading.failure.code in {"vanished", "changed"}:
            pending.again = True
            return None
        if reading.signature is not None and reading.signature != file.signature:
            pending.again = True  # it is another file by now, and may not be complete
            return None
        if reading.failure is not None:
            return await self._service.reject(file, reading.failure, known)
        if reading.tags is None:
            self._not_audio[file.root.id, file.path] = file.signature
            return None
        return await self._service.ingest(file, reading.tags, known)

    async def _has_moved(self, file: FoundFile, origin: Known) -> bool:
        """Whether a known file is not at its own path any more, so that this one is it and no copy or hard link."""
        root = self._losses.root_of(origin)
        if root is None or root in self._losses.faults or not origin.signature.same_content(file.signature):
            return False
        there = await asyncio.to_thread(look_at_all, root, [origin.path])
        what = there.get(origin.path, file)
        return what is None or (isinstance(what, FoundFile) and what.signature.inode != origin.signature.inode)


def _is_back(file: FoundFile, known: Known) -> bool:
    """Whether a missing file is there again as it was."""
    same = file.root.trusts_inodes and known.signature.same_content(file.signature)
    return known.is_missing and same and known.parser_version == PARSER_VERSION
