"""Joins the stages: every file goes this way, whoever said to look at it.

    hint ──> look ─┐                                    (here, with the walks)
    walk ──────────┴─> compare with the catalogue ─> complete? ─> read its tags ─> one transaction      (intake.py)
                                └─> gone: wait, look again, doubt ─> missing                            (losses.py)

Whatever a stage does not expect ends the task group, and with it the process: the next start finds what is left.
"""

import asyncio
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

from soulspot.infrastructure.persistence.repositories import FileRepository
from soulspot.infrastructure.tags.readers.pool import TagReaders
from soulspot.ingest.catalogue.folder_service import FolderService
from soulspot.ingest.catalogue.service import IngestService
from soulspot.ingest.disk import planner
from soulspot.ingest.disk.folder_index import Folders
from soulspot.ingest.disk.hints import FolderHints, Hints
from soulspot.ingest.disk.ignore_rules import IGNORE_FILE
from soulspot.ingest.disk.planner import Work
from soulspot.ingest.disk.progress import Passage
from soulspot.ingest.disk.walker import FoundFile, FoundFolder, Root, list_folder, look_at_all, walk
from soulspot.ingest.intake.intake import LANES, Intake
from soulspot.ingest.intake.stability import FIRST_WAIT, Stability
from soulspot.ingest.missing.loss_guard import LossGuard
from soulspot.ingest.missing.missing_files import Losses
from soulspot.ingest.missing.moves import Origins
from soulspot.ingest.outcome import Outcome, Vitals
from soulspot.ingest.pause_gate import Gate
from soulspot.ingest.retry import patiently
from soulspot.ingest.scan.comparison import Comparing

CONFIRM_AFTER = 0.5
"""Seconds after which a new folder is walked again: one that was renamed at once has had its watch moved by then."""
BLIND_AFTER = 2.0
"""Seconds after which a folder that the watcher does not watch is taken for one that it never will."""
MANY_BLIND = 64
"""Unwatched folders from which on they are not looked at one by one."""
ARRIVALS = 20_000
"""New files that a walk keeps until it knows what is gone: one may be the other, moved."""
NEAR = 500
"""Files up to which a folder that a hint named goes before what a walk of everything found."""

WatchedFolders = Callable[[], Collection[tuple[int, int]]]
"""Returns device and inode of every folder that the watcher watches; blocks."""


@dataclass(slots=True)
class Walked:
    """What a walk came to: the folders, those that were not watched before it, and the files that are not there."""

    folders: list[FoundFolder] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    blind: list[FoundFolder] = field(default_factory=list)
    unreadable: dict[str, str] = field(default_factory=dict)


class Pipeline:
    """The way of a file from a hint to its transaction.

    Args:
        report: called with each outcome, after its commit.
        missing_after: seconds of absence after which a file is missing.
        gate: closed for as long as a person has paused the ingest.
        lanes: files that are read or written at once.

    """

    def __init__(  # noqa: PLR0913 - the composition root fills this in once, by name
        self,
        *,
        service: IngestService,
        folder_service: FolderService,
        files: FileRepository,
        readers: TagReaders,
        stability: Stability,
        report: Callable[[Outcome], None],
        missing_after: float,
        guard: LossGuard,
        gate: Gate | None = None,
        lanes: int = LANES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._files = files
        self._guard = guard
        self._gate = gate = gate or Gate()
        self._watched: WatchedFolders | None = None
        self._on_blind: Callable[[Root, list[str]], None] = lambda _root, _folders: None
        self._clock = clock
        self.folders = Folders()
        self.unwatched: dict[Root, set[str]] = {}
        self.reconciled: dict[Root, datetime] = {}
        self.walks: dict[Root, Passage] = {}
        self.hints = Hints()
        self._near = FolderHints()
        self._far = FolderHints()
        self._busy_stages = 0
        self._progressed = asyncio.Event()
        self._losses = Losses(
            service=service,
            folder_service=folder_service,
            files=files,
            report=report,
            missing_after=missing_after,
            guard=guard,
            look_again=self.look_again,
            is_on_its_way=lambda root, path: self._intake.has(root, path),  # noqa: PLW0108 - it is made below
            is_quiet=lambda: self.is_quiet,
            gone=lambda root, paths: self._origins.displaced(root, paths),  # noqa: PLW0108 - it is made below
            busy=self._count_busy,
            gate=gate,
            clock=clock,
        )
        self._comparing = Comparing(files, self._losses)
        self._origins = Origins(files, self._losses, readers, self.hints.untold)
        self._intake = Intake(
            service=service,
            files=files,
            readers=readers,
            stability=stability,
            losses=self._losses,
            origins=self._origins,
            report=report,
            look_again=self.look_again,
            progressed=self._progressed.set,
            gate=gate,
            lanes=lanes,
            clock=clock,
        )

    def add_root(self, root: Root, file_system_id: str, status: str, reason: str | None) -> None:
        """Make a folder one of those that are kept true; `status` is what was written of it last, and why."""
        self._losses.add_root(root, file_system_id, status, reason)

    def compare_with(self, watched: WatchedFolders, on_blind: Callable[[Root, list[str]], None]) -> None:
        """Be done with a folder only when it was watched before it was walked.

        `watched` tells which folders are, `on_blind` is called with the folders of a root that stay unwatched.
        """
        self._watched, self._on_blind = watched, on_blind

    def look_again(self, root: Root, paths: list[str]) -> None:
        """Have paths looked at: "" is the whole root, and one with a slash behind stands for all below it."""
        for path in paths:
            if path.endswith("/"):
                self._hint_folder(root, path)
        self.hints.add(root, [path for path in paths if not path.endswith("/")])

    @property
    def is_quiet(self) -> bool:
        """Whether nothing is being looked at or taken in, but for files that others write."""
        return not (self._intake.in_hand or self._has_hints or self._busy_stages)

    @property
    def is_paused(self) -> bool:
        """Whether a person has paused the ingest."""
        return self._gate.paused is not None

    @property
    def taken_in(self) -> int:
        """The number of files that came to their end since the start."""
        return self._intake.finished

    def arriving(self, number: int) -> list[tuple[str, float, bool]]:
        """Return some of the files that are on their way: path, seconds, and whether they are not complete yet."""
        return self._intake.arriving(number)

    @property
    def _has_hints(self) -> bool:
        return bool(self.hints or self._near or self._far)

    @property
    def faults(self) -> dict[Root, str]:
        """Why a folder is offline."""
        return self._losses.faults

    @property
    def held(self) -> dict[Root, int]:
        """How many files of a folder are not there and are not believed to be gone."""
        return self._losses.held

    async def run(self) -> None:
        """Work until `stop`; whatever a stage does not expect is raised out of here."""
        async with asyncio.TaskGroup() as group:
            stages = [self._follow_hints(), self._walk_near(), self._walk_far(), self._losses.run()]
            loops = [group.create_task(stage) for stage in stages]
            await group.create_task(self._intake.run())
            for loop in loops:
                loop.cancel()

    def stop(self) -> None:
        """Let the files in hand end, and take no other."""
        self._intake.stop()

    def vitals(self) -> Vitals:
        intake = self._intake
        settling = len(intake) - intake.in_hand
        oldest, held_up = intake.oldest, self._gate.paused
        return Vitals(intake.finished, intake.in_hand, settling, oldest, patiently.reason, held_up)

    async def done(self, *, give_up_after: float) -> list[str]:
        """Wait until nothing is left to do; return the paths of files that others have written for that long."""
        while True:
            self._progressed.clear()
            still_written = self._intake.still_written(longer_than=give_up_after)
            others = len(self._intake) - len(still_written)
            if not (others or self._has_hints or self._busy_stages or len(self._losses)):
                return still_written
            try:
                async with asyncio.timeout(0.2):
                    await self._progressed.wait()
            except TimeoutError:
                continue

    async def done_with(self, parts: Mapping[Root, Sequence[str]], *, give_up_after: float) -> list[str]:
        """Do the same for what is in here by now at and below some paths: what comes later is not waited for."""
        waited = [
            each for root, paths in parts.items() for path in paths for each in self._intake.on_their_way(root, path)
        ]
        absent = {
            root: [each for path in paths for each in self._losses.absent(root, path)] for root, paths in parts.items()
        }
        while True:
            self._progressed.clear()
            still_written = self._intake.ended_or_late(waited, longer_than=give_up_after)
            if still_written is not None and all(self._losses.are_decided(*each) for each in absent.items()):
                return still_written
            try:
                async with asyncio.timeout(0.2):
                    await self._progressed.wait()
            except TimeoutError:
                continue

    @contextmanager
    def confirming(self, parts: Mapping[Root, Sequence[str]]) -> Iterator[None]:
        """Believe, for as long as the block runs, that what is gone at and below some paths is really gone."""
        confirmed = [(root, path) for root, paths in parts.items() for path in paths]
        self._guard.confirmed_parts += confirmed
        try:
            yield
        finally:
            for each in confirmed:
                self._guard.confirmed_parts.remove(each)

    async def walk_now(
        self, root: Root, prefix: str, *, unchanged: Callable[[int], None] = lambda _count: None
    ) -> None:
        """Compare everything at and below `prefix` with the catalogue now, and see to what is not watched there."""
        await self._gate.passed()
        self._count_busy(1)
        since = self._clock()
        walked = await self.reconcile(root, prefix, unchanged=unchanged)
        await self._walk_again(root, prefix, walked.blind, since)
        self._count_busy(-1)

    async def look_now(self, root: Root, path: str) -> bool:
        """Look at one path now; return whether the catalogue has it as it is."""
        await self._gate.passed()
        self._count_busy(1)
        if await self._losses.is_well(root):
            await self._look_at(root, [path])
        self._count_busy(-1)
        return not (self._intake.has(root, path) or self._losses.absent(root, path))

    async def reconcile(
        self,
        root: Root,
        prefix: str = "",
        *,
        unchanged: Callable[[int], None] = lambda _count: None,
        since: float | None = None,
    ) -> Walked:
        """Compare everything at and below `prefix` ("" or "folder/") with the catalogue; set to work what differs.

        `unchanged` is called with numbers of files that are as the catalogue has them. `since` is when it was said that
        there is a new folder at `prefix`.
        """
        passage = Passage(lambda: self._intake.finished, self._clock)

        def passed_over(count: int) -> None:
            passage.passed_over += count
            unchanged(count)

        self._count_busy(1)  # between two parts of what arrived nothing may be in hand, and is not all there yet
        if not prefix:
            self.walks[root] = passage
        try:
            return await self._walk(root, prefix, passed_over, since)
        finally:
            if self.walks.get(root) is passage:
                del self.walks[root]
            self._count_busy(-1)

    async def _walk(self, root: Root, prefix: str, passed_over: Callable[[int], None], since: float | None) -> Walked:
        walked = Walked()
        if not await self._losses.is_well(root):
            return walked
        watched = await self._watched_now()
        arrived, may_have_moved = list[Work](), await self._losses.knows_any(root)
        after = ""
        batches = walk(root, prefix)
        while (batch := await asyncio.to_thread(next, batches, None)) is not None:
            await self._gate.passed()
            compared = await self._comparing.likely_current(root, batch, prefix, after)
            passed_over(compared.unchanged)
            walked.gone += compared.gone
            walked.folders += batch.folders
            walked.unreadable = batch.unreadable  # of all batches until here
            after = batch.upto or ""
            if may_have_moved and len(arrived) < ARRIVALS:
                arrived += [each for each in compared.work if each.known is None]
                compared.work = [each for each in compared.work if each.known is not None]
            await self._intake.offer(compared.work, is_fresh=False, since=since)
        await self._end_walk(root, prefix, walked, watched)
        if not prefix:
            self.reconciled[root] = datetime.now(UTC)
        # Now that it is known what is gone, and may be one of these.
        await self._intake.offer(arrived, is_fresh=False, since=since)
        return walked

    async def _walk_near_folder(
        self, root: Root, prefix: str, watched: Collection[tuple[int, int]] | None, since: float
    ) -> Walked | None:
        """Do the same for a folder while it is small, before all that walks found; None for one that is large."""
        batch = await asyncio.to_thread(next, walk(root, prefix, size=NEAR))
        if batch.upto is not None:
            return None
        compared = await self._comparing.part(root, batch, prefix)
        walked = Walked(batch.folders, compared.gone, unreadable=batch.unreadable)
        await self._end_walk(root, prefix, walked, watched)
        await self._intake.offer(compared.work, is_fresh=True, since=since)
        return walked

    async def _end_walk(
        self, root: Root, prefix: str, walked: Walked, watched: Collection[tuple[int, int]] | None
    ) -> None:
        """Remember the folders, find those that are not watched, and have what is gone confirmed."""
        if watched is not None:
            polled = self.unwatched.get(root, ())
            blind = [each for each in walked.folders if (each.device, each.inode) not in watched]
            walked.blind = [each for each in blind if each.path not in polled]
        self.folders.note(root, prefix, walked.folders, walked.unreadable)
        await self._losses.note(root, walked.gone, are_all=not prefix)

    async def _watched_now(self) -> Collection[tuple[int, int]] | None:
        return None if self._watched is None else await asyncio.to_thread(self._watched)

    async def look_into(self, root: Root, folder: str) -> int:
        """Compare the files that lie in a folder itself with the catalogue; return how many nobody had seen."""
        prefix = _prefix(folder)
        batch, below = await asyncio.to_thread(list_folder, root, prefix)
        compared = await self._comparing.folder(root, batch, prefix)
        await self._losses.note(root, compared.gone)
        self.folders.update(root, batch.folders, batch.unreadable)
        new = [path for path in below if not self.folders.knows(root, path.rstrip("/"))]
        self.look_again(root, new)
        return len(new) + await self._intake.offer(compared.work, is_fresh=True)

    async def _follow_hints(self) -> None:
        while True:
            await self._gate.passed()
            taken = await self.hints.take()
            self._count_busy(1)
            for root, paths in taken.items():
                if "" in paths or root in self.faults:
                    self._hint_folder(root, "")
                if root not in self.faults:
                    await self._look_at(root, [path for path in paths if path])
                self.hints.looked_at(root)
            self._count_busy(-1)

    async def _look_at(self, root: Root, paths: Collection[str]) -> None:
        for path in paths:
            folder, slash, name = path.rpartition("/")
            if name == IGNORE_FILE:
                self._hint_folder(root, folder + slash)
        unasked = [path for path in paths if not self._intake.hurry(root, path)]
        found = await asyncio.to_thread(look_at_all, root, unasked)
        for path, what in found.items():
            if isinstance(what, FoundFolder):
                self._hint_folder(root, f"{path}/")
        files = {
            path: what
            for path, what in found.items()
            if isinstance(what, FoundFile) and not self._losses.is_out_of_sight(root, path)
        }
        nothing = [path for path, what in found.items() if what is None]
        self._intake.look_once_more(root, nothing)
        known = await patiently(self._files.known_at, root.id, [*files, *nothing])
        gone = [path for path in nothing if path in known and not known[path].is_missing]
        for path in nothing:
            if path not in known:  # it may have been a folder
                gone += [each.path for each in await patiently(self._files.present_below, root.id, path)]
        await self._losses.note(root, [path for path in gone if not self._losses.is_out_of_sight(root, path)])
        there = {path: each for path, each in known.items() if path in files}
        await self._intake.offer(planner.compare(files, there).work, is_fresh=True)

    def _hint_folder(self, root: Root, prefix: str, since: float | None = None) -> None:
        """Have a folder walked; `since` is when that was said first, where it is walked once more."""
        self._far_or_near(prefix).add(root, prefix, self._clock() if since is None else since)

    def _far_or_near(self, prefix: str) -> FolderHints:
        return self._near if prefix else self._far

    async def _walk_near(self) -> None:
        """Walk the folders that a hint named, each while it is small: an album is not kept waiting by a library."""
        while True:
            await self._gate.passed()
            hints = await self._near.take()
            self._count_busy(1)
            watched = await self._watched_now()
            well = {root for root in {root for root, _prefix, _since in hints} if await self._losses.is_well(root)}
            for root, prefix, since in hints:
                walked = await self._walk_near_folder(root, prefix, watched, since) if root in well else Walked()
                if walked is None:
                    self._far.add(root, prefix, since)
                else:
                    await self._walk_again(root, prefix, walked.blind, since)
            self._count_busy(-1)

    async def _walk_far(self) -> None:
        """Walk what is large, at the pace at which its files are read and written."""
        while True:
            await self._gate.passed()
            hints = await self._far.take()
            self._count_busy(1)
            for root, prefix, since in hints:
                walked = await self.reconcile(root, prefix, since=since if prefix else None)
                await self._walk_again(root, prefix, walked.blind, since)
            self._count_busy(-1)

    async def _walk_again(self, root: Root, prefix: str, blind: list[FoundFolder], since: float) -> None:
        """See to it that a folder is walked once more when its watch, and that of each folder in it, exists."""
        if self._watched is None:
            return
        loop, age = asyncio.get_running_loop(), self._clock() - since
        if age < CONFIRM_AFTER and prefix:
            loop.call_later(CONFIRM_AFTER, self._hint_folder, root, prefix, since)
        if blind and age < BLIND_AFTER:
            again = [_prefix(folder.path) for folder in blind] if len(blind) < MANY_BLIND else [prefix]
            for each in again:
                loop.call_later(max(age, FIRST_WAIT), self._hint_folder, root, each, since)
        elif blind:
            watched = await self._watched_now() or ()
            for folder in blind:
                if (folder.device, folder.inode) in watched:  # since the walk began, which took its time
                    self._hint_folder(root, _prefix(folder.path))
            self._on_blind(root, [each.path for each in blind if (each.device, each.inode) not in watched])

    def _count_busy(self, change: int) -> None:
        self._busy_stages += change
        self._progressed.set()


def _prefix(path: str) -> str:
    return f"{path}/" if path else ""
