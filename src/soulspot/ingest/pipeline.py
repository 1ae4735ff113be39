"""Joins the stages: every file goes this way, whoever said to look at it.

    hint ──> look ─┐
    walk ──────────┴─> compare with the catalogue ─> complete? ─> read its tags ─> one transaction
                                └─> gone: wait, look again ──────────────────────────────┘

A path is in here at most once (`_pending`): what is said about it meanwhile is looked at when it comes out, so that the
changes of one file are applied in their order. What a hint named is read before what a walk found, and a walk waits for
room, so that a file dropped during a long import is not kept waiting. Whatever a stage does not expect ends the task
group, and with it the process: the next start finds what is left.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TypeVar

from soulspot.infrastructure.filesystem import Signature, path_to_text
from soulspot.infrastructure.persistence.repositories import FileRepository, Known
from soulspot.infrastructure.tags import PARSER_VERSION, TagReaders
from soulspot.ingest import planner
from soulspot.ingest.absence import Absences, LossGuard, fault_of, seconds_gone
from soulspot.ingest.hints import Hints
from soulspot.ingest.patience import Patience
from soulspot.ingest.planner import Work
from soulspot.ingest.queues import Pending, Ready, Settling
from soulspot.ingest.scanner import FoundFile, FoundFolder, Root, look, walk
from soulspot.ingest.service import IngestService, Outcome, StaleError
from soulspot.ingest.stability import FIRST_WAIT, Stability

logger = logging.getLogger(__name__)

LANES = 32
"""Files that are read or written at once."""
BULK_ROOM = 256
"""Files that walks may have waiting for a lane."""
QUESTION = 500
"""Paths or inodes that one statement asks for."""
STALE_LIMIT = 20
"""Times in a row that a file's transaction may find the catalogue changed; more is a fault of ours."""
CONFIRM_AFTER = 0.5
"""Seconds after which a new folder is walked again: one that was renamed at once has had its watch moved by then."""
BLIND_AFTER = 2.0
"""Seconds after which a folder that the watcher does not watch is taken for one that it never will."""

_T = TypeVar("_T")
WatchedFolders = Callable[[], Collection[tuple[int, int]]]
"""Returns device and inode of every folder that the watcher watches; blocks."""


@dataclass(slots=True)
class Walked:
    """What a walk came to."""

    unchanged: int = 0
    blind: list[FoundFolder] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the pipeline is.

    Attributes:
        finished: files that it has been done with since the start; of two looks, the later one has more.
        in_hand: files that are complete and not done with.
        settling: files that are waited for to be complete.
        oldest: seconds for which one of them has been in here.
        paused: why the database refuses, None while it answers.

    """

    finished: int
    in_hand: int
    settling: int
    oldest: float
    paused: str | None


class Pipeline:
    """The way of a file from a hint to its transaction.

    Args:
        report: called with each outcome, after its commit.
        missing_after: seconds of absence after which a file is missing.
        watched: where there is a watcher, tells which folders it watches; a folder is only done with when it was
            watched before it was walked.

    """

    def __init__(  # noqa: PLR0913 - the composition root fills this in once, by name
        self,
        *,
        service: IngestService,
        files: FileRepository,
        readers: TagReaders,
        stability: Stability,
        report: Callable[[Outcome], None],
        missing_after: float,
        guard: LossGuard,
        watched: WatchedFolders | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._service = service
        self._files = files
        self._readers = readers
        self._stability = stability
        self._report = report
        self._guard = guard
        self._watched = watched
        self._clock = clock
        self.hints = Hints()
        self._folder_hints: dict[tuple[Root, str], float] = {}
        self._folder_hinted = asyncio.Event()
        self._pending: dict[tuple[str, str], Pending] = {}
        self._settling = Settling(clock)
        self._ready = Ready(BULK_ROOM)
        self._absences = Absences(missing_after, clock=clock)
        self._absence_noted = asyncio.Event()
        self._not_audio: dict[tuple[str, str], Signature] = {}
        self._stale: Counter[tuple[str, str]] = Counter()
        self._patiently = Patience(clock=clock)
        self._finished = 0
        self._busy_stages = 0
        self._progressed = asyncio.Event()
        self._roots: dict[str, Root] = {}
        self._identities: dict[Root, str] = {}
        self.faults: dict[Root, str] = {}
        self.held: dict[Root, int] = {}
        self.reconciled: dict[Root, datetime] = {}

    def add_root(self, root: Root, file_system_id: str, fault: str | None) -> None:
        """Make a folder one of those that are kept true; `fault` is why it was offline when it was last looked at."""
        self._roots[root.id] = root
        self._identities[root] = file_system_id
        if fault is not None:
            self.faults[root] = fault

    async def run(self) -> None:
        """Work until `stop`; whatever a stage does not expect is raised out of here."""
        async with asyncio.TaskGroup() as group:
            stages = [self._follow_hints(), self._follow_folder_hints(), self._settle(), self._confirm_absences()]
            loops = [group.create_task(stage) for stage in stages]
            lanes = [group.create_task(self._lane()) for _number in range(LANES)]
            await asyncio.wait(lanes)
            for loop in loops:
                loop.cancel()

    def stop(self) -> None:
        """Let each lane end the file that it has, and take no other."""
        self._ready.close()

    def progress(self) -> Progress:
        settling = sum(1 for each in self._pending.values() if each.due is not None)
        now = self._clock()
        oldest = max((now - each.since for each in self._pending.values()), default=0.0)
        in_hand = len(self._pending) - settling
        return Progress(self._finished, in_hand, settling, oldest, self._patiently.reason)

    async def done(self, *, give_up_after: float) -> list[str]:
        """Wait until nothing is left to do; return the paths of files that others have written for that long."""
        while True:
            self._progressed.clear()
            late = [each for each in self._pending.values() if each.since + give_up_after < self._clock()]
            still_written = [each.work.file.full_path for each in late if each.due is not None]
            others = len(self._pending) - len(still_written)
            if not (others or self.hints or self._folder_hints or self._busy_stages or len(self._absences)):
                return still_written
            try:
                async with asyncio.timeout(0.2):
                    await self._progressed.wait()
            except TimeoutError:
                continue

    async def reconcile(self, root: Root, prefix: str = "") -> Walked:
        """Compare everything at and below `prefix` ("" or "folder/") with the catalogue; set to work what differs."""
        walked = Walked()
        if not await self._is_well(root):
            return walked
        watched = None if self._watched is None else await asyncio.to_thread(self._watched)
        batches = walk(root, prefix)
        after, gone = "", list[Known]()
        while (batch := await asyncio.to_thread(next, batches, None)) is not None:
            known = await self._patiently(self._files.known_between, root.id, prefix, after, batch.upto)
            comparison = planner.compare(batch.files, known)
            walked.unchanged += comparison.unchanged
            gone += [each for each in comparison.gone if not batch.hides(each.path)]
            if watched is not None:
                walked.blind += [each for each in batch.folders if (each.device, each.inode) not in watched]
            await self._offer(comparison.work, is_fresh=False)
            after = batch.upto or ""
        await self._note_absent(root, [known.path for known in gone])
        if not prefix:
            self.reconciled[root] = datetime.now(UTC)
        return walked

    async def _follow_hints(self) -> None:
        while True:
            taken = await self.hints.take()
            self._busy_stages += 1
            for root, paths in taken.items():
                if "" in paths:
                    self._hint_folder(root, "")
                elif root not in self.faults:
                    for some in _chunks(paths):
                        await self._look_at(root, some)
            self._busy_stages -= 1
            self._progressed.set()

    async def _look_at(self, root: Root, paths: Collection[str]) -> None:
        unasked = [path for path in paths if not self._is_settling(root, path)]
        found = await asyncio.to_thread(_look_at_all, root, unasked)
        for path, what in found.items():
            if isinstance(what, FoundFolder):
                self._hint_folder(root, f"{path}/")
        files = {path: what for path, what in found.items() if isinstance(what, FoundFile)}
        nothing = [path for path, what in found.items() if what is None]
        known = await self._patiently(self._files.known_at, root.id, [*files, *nothing])
        there = {path: each for path, each in known.items() if path in files}
        await self._offer(planner.compare(files, there).work, is_fresh=True)
        gone = [path for path in nothing if path in known and not known[path].is_missing]
        for path in nothing:
            if path not in known:  # it may have been a folder
                gone += [each.path for each in await self._patiently(self._files.present_below, root.id, path)]
        await self._note_absent(root, gone)

    def _is_settling(self, root: Root, path: str) -> bool:
        """Whether a path is waiting to be complete; it is then looked at soon, and needs no other look."""
        pending = self._pending.get((root.id, path))
        if pending is None or pending.due is None:
            return False
        self._stability.hurry(pending.work.file.full_path)
        self._settling.put(pending, FIRST_WAIT)
        return True

    def _hint_folder(self, root: Root, prefix: str, since: float | None = None) -> None:
        """Have a folder walked; `since` is when that was said first, where it is walked once more."""
        self._folder_hints.setdefault((root, prefix), self._clock() if since is None else since)
        self._folder_hinted.set()

    async def _follow_folder_hints(self) -> None:
        while True:
            await self._folder_hinted.wait()
            self._folder_hinted.clear()
            self._busy_stages += 1
            taken, self._folder_hints = self._folder_hints, {}
            for (root, prefix), since in _topmost(taken):
                walked = await self.reconcile(root, prefix)
                if self._watched is not None:
                    self._walk_again(root, prefix, walked.blind, since)
            self._busy_stages -= 1
            self._progressed.set()

    def _walk_again(self, root: Root, prefix: str, blind: list[FoundFolder], since: float) -> None:
        """See to it that a folder is walked once more when its watch, and that of each folder in it, exists."""
        loop, age = asyncio.get_running_loop(), self._clock() - since
        if age < CONFIRM_AFTER and prefix:
            loop.call_later(CONFIRM_AFTER, self._hint_folder, root, prefix, since)
        if age < BLIND_AFTER:
            for folder in blind:
                loop.call_later(max(age, FIRST_WAIT), self._hint_folder, root, _prefix(folder.path), since)
        elif blind:
            paths = [path_to_text(root.full(folder.path)) for folder in blind]
            logger.warning("not watched, so only the reconcile sees what changes there: %s", ", ".join(paths[:5]))

    async def _offer(self, work: Collection[Work], *, is_fresh: bool) -> None:
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
        for inodes in _chunks(planner.inodes_to_ask(work)):
            known += await self._patiently(self._files.with_inodes, inodes)
        return [each for each in known if each.folder_id in self._roots]

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
        self._finished += 1
        if pending.again:
            self.hints.add(file.root, [file.path])
        self._progressed.set()

    async def _take_in(self, pending: Pending) -> Outcome | None:
        key = (pending.work.file.root.id, pending.work.file.path)
        try:
            outcome = await self._patiently(self._act, pending)
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
        root = self._roots[origin.folder_id]
        if root in self.faults or not origin.signature.same_content(file.signature):
            return False
        there = await asyncio.to_thread(_look_at_all, root, [origin.path])
        what = there.get(origin.path, file)
        return what is None or (isinstance(what, FoundFile) and what.signature.inode != origin.signature.inode)

    async def _note_absent(self, root: Root, paths: Collection[str]) -> None:
        if paths:
            ages = await asyncio.to_thread(lambda: {path: seconds_gone(root, path) for path in paths})
            self._absences.note(root, paths, ages=ages.__getitem__)
            self._absence_noted.set()

    async def _confirm_absences(self) -> None:
        while True:
            self._absence_noted.clear()
            try:
                async with asyncio.timeout(self._absences.next_due()):
                    await self._absence_noted.wait()
            except TimeoutError:
                self._busy_stages += 1
                for root, paths in self._absences.take_due().items():
                    await self._lose(root, paths)
                self._busy_stages -= 1
                self._progressed.set()

    async def _lose(self, root: Root, paths: Collection[str]) -> None:
        """Let files go missing that are not there, unless there is a doubt."""
        if not await self._is_well(root):
            return
        present = await self._patiently(self._files.count_present, root.id)
        if not self._guard.allows(root, len(paths) + self._absences.waiting(root), present):
            self._hold(root, len(paths) + self._absences.waiting(root), present)
            return
        lost = 0
        for some in _chunks(paths):
            found = await asyncio.to_thread(_look_at_all, root, some)
            self.hints.add(root, [path for path, what in found.items() if what is not None])
            nothing = [path for path, what in found.items() if what is None]
            known = await self._patiently(self._files.known_at, root.id, nothing)
            for each in known.values():
                if each.is_missing or (root.id, each.path) in self._pending:
                    continue
                try:
                    self._report(await self._patiently(self._service.lose, each))
                    lost += 1
                except StaleError:
                    self.hints.add(root, [each.path])
        self._guard.lost(root, lost)

    def _hold(self, root: Root, losing: int, present: int) -> None:
        if root not in self.held:
            logger.error(
                "%d of the %d files in %s are not there: nothing is marked missing; when they are really gone, say so "
                "with `soulspot scan --confirm-missing`",
                losing,
                present,
                path_to_text(root.path),
            )
        self.held[root] = losing
        self._absences.forget(root)

    async def _is_well(self, root: Root) -> bool:
        """Examine a folder; write it down where it went offline or came back."""
        some_known = await self._patiently(self._files.some_present, root.id)
        fault = await asyncio.to_thread(fault_of, root, self._identities[root], some_known)
        before = self.faults.get(root)
        if fault is None and before is None:
            return True
        if fault is not None:
            self.faults[root] = fault
            self._absences.forget(root)
        if fault is not None and before is None:
            logger.error("folder %s is offline: %s; nothing in it is marked missing", path_to_text(root.path), fault)
            await self._patiently(self._service.set_folder_status, root, "offline", fault)
        if fault is None:
            del self.faults[root]
            logger.warning("folder %s is online again", path_to_text(root.path))
            await self._patiently(self._service.set_folder_status, root, "online", None)
            self._hint_folder(root, "")
        return fault is None


def _look_at_all(root: Root, paths: Iterable[str]) -> dict[str, FoundFile | FoundFolder | None]:
    """Look at each path; one where the disk does not answer is left out, as nothing is known of it."""
    found = {}
    for path in paths:
        try:
            found[path] = look(root, path)
        except OSError as error:
            logger.warning("cannot look at %s: %s", path_to_text(root.full(path)), error.strerror)
    return found


def _is_back(file: FoundFile, known: Known) -> bool:
    """Whether a missing file is there again as it was."""
    same = file.root.trusts_inodes and known.signature.same_content(file.signature)
    return known.is_missing and same and known.parser_version == PARSER_VERSION


def _topmost(hints: dict[tuple[Root, str], float]) -> list[tuple[tuple[Root, str], float]]:
    """Leave out the folders below others: these are walked anyway."""
    kept: list[tuple[tuple[Root, str], float]] = []
    for (root, prefix), since in sorted(hints.items(), key=lambda hint: (hint[0][0].id, hint[0][1])):
        if not kept or kept[-1][0][0] != root or not prefix.startswith(kept[-1][0][1]):
            kept.append(((root, prefix), since))
    return kept


def _prefix(path: str) -> str:
    return f"{path}/" if path else ""


def _chunks(items: Collection[_T]) -> Iterable[list[_T]]:
    listed = list(items)
    return (listed[start : start + QUESTION] for start in range(0, len(listed), QUESTION))
