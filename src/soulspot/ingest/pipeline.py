"""Joins the stages: every file goes this way, whoever said to look at it.

    hint ──> look ─┐                                    (here, with the walks)
    walk ──────────┴─> compare with the catalogue ─> complete? ─> read its tags ─> one transaction      (intake.py)
                                └─> gone: wait, look again, doubt ─> missing                            (losses.py)

Whatever a stage does not expect ends the task group, and with it the process: the next start finds what is left.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from soulspot.infrastructure.filesystem import path_to_text
from soulspot.infrastructure.persistence.repositories import FileRepository, Known
from soulspot.infrastructure.tags import TagReaders
from soulspot.ingest import planner
from soulspot.ingest.absence import LossGuard
from soulspot.ingest.hints import Hints
from soulspot.ingest.intake import Intake
from soulspot.ingest.losses import Losses
from soulspot.ingest.patience import patiently
from soulspot.ingest.scanner import FoundFile, FoundFolder, Root, chunks, look_at_all, walk
from soulspot.ingest.service import IngestService, Outcome
from soulspot.ingest.stability import FIRST_WAIT, Stability

logger = logging.getLogger(__name__)

CONFIRM_AFTER = 0.5
"""Seconds after which a new folder is walked again: one that was renamed at once has had its watch moved by then."""
BLIND_AFTER = 2.0
"""Seconds after which a folder that the watcher does not watch is taken for one that it never will."""

WatchedFolders = Callable[[], Collection[tuple[int, int]]]
"""Returns device and inode of every folder that the watcher watches; blocks."""


@dataclass(slots=True)
class Walked:
    """What a walk came to."""

    blind: list[FoundFolder] = field(default_factory=list)


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
        self._files = files
        self._watched = watched
        self._clock = clock
        self.hints = Hints()
        self._folder_hints: dict[tuple[Root, str], float] = {}
        self._folder_hinted = asyncio.Event()
        self._busy_stages = 0
        self._progressed = asyncio.Event()
        self._losses = Losses(
            service=service,
            files=files,
            report=report,
            missing_after=missing_after,
            guard=guard,
            look_again=self.hints.add,
            is_on_its_way=lambda root, path: self._intake.has(root, path),  # noqa: PLW0108 - it is made below
            busy=self._count_busy,
            clock=clock,
        )
        self._intake = Intake(
            service=service,
            files=files,
            readers=readers,
            stability=stability,
            losses=self._losses,
            report=report,
            look_again=self.hints.add,
            progressed=self._progressed.set,
            clock=clock,
        )

    def add_root(self, root: Root, file_system_id: str, fault: str | None) -> None:
        """Make a folder one of those that are kept true; `fault` is why it was offline when it was last looked at."""
        self._losses.add_root(root, file_system_id, fault)

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
            stages = [self._follow_hints(), self._follow_folder_hints(), self._losses.run()]
            loops = [group.create_task(stage) for stage in stages]
            await group.create_task(self._intake.run())
            for loop in loops:
                loop.cancel()

    def stop(self) -> None:
        """Let the files in hand end, and take no other."""
        self._intake.stop()

    async def done(self, *, give_up_after: float) -> list[str]:
        """Wait until nothing is left to do; return the paths of files that others have written for that long."""
        while True:
            self._progressed.clear()
            still_written = self._intake.still_written(longer_than=give_up_after)
            others = len(self._intake) - len(still_written)
            if not (others or self.hints or self._folder_hints or self._busy_stages or len(self._losses)):
                return still_written
            try:
                async with asyncio.timeout(0.2):
                    await self._progressed.wait()
            except TimeoutError:
                continue

    async def reconcile(
        self, root: Root, prefix: str = "", *, unchanged: Callable[[int], None] = lambda _count: None
    ) -> Walked:
        """Compare everything at and below `prefix` ("" or "folder/") with the catalogue; set to work what differs.

        `unchanged` is called with numbers of files that are as the catalogue has them.
        """
        walked = Walked()
        if not await self._losses.is_well(root):
            return walked
        watched = None if self._watched is None else await asyncio.to_thread(self._watched)
        batches = walk(root, prefix)
        after, gone = "", list[Known]()
        while (batch := await asyncio.to_thread(next, batches, None)) is not None:
            known = await patiently(self._files.known_between, root.id, prefix, after, batch.upto)
            comparison = planner.compare(batch.files, known)
            unchanged(comparison.unchanged)
            gone += [each for each in comparison.gone if not batch.hides(each.path)]
            if watched is not None:
                walked.blind += [each for each in batch.folders if (each.device, each.inode) not in watched]
            await self._intake.offer(comparison.work, is_fresh=False)
            after = batch.upto or ""
        await self._losses.note(root, [known.path for known in gone])
        return walked

    async def _follow_hints(self) -> None:
        while True:
            taken = await self.hints.take()
            self._count_busy(1)
            for root, paths in taken.items():
                if "" in paths:
                    self._hint_folder(root, "")
                elif root not in self.faults:
                    for some in chunks(paths):
                        await self._look_at(root, some)
            self._count_busy(-1)

    async def _look_at(self, root: Root, paths: Collection[str]) -> None:
        unasked = [path for path in paths if not self._intake.hurry(root, path)]
        found = await asyncio.to_thread(look_at_all, root, unasked)
        for path, what in found.items():
            if isinstance(what, FoundFolder):
                self._hint_folder(root, f"{path}/")
        files = {path: what for path, what in found.items() if isinstance(what, FoundFile)}
        nothing = [path for path, what in found.items() if what is None]
        known = await patiently(self._files.known_at, root.id, [*files, *nothing])
        there = {path: each for path, each in known.items() if path in files}
        await self._intake.offer(planner.compare(files, there).work, is_fresh=True)
        gone = [path for path in nothing if path in known and not known[path].is_missing]
        for path in nothing:
            if path not in known:  # it may have been a folder
                gone += [each.path for each in await patiently(self._files.present_below, root.id, path)]
        await self._losses.note(root, gone)

    def _hint_folder(self, root: Root, prefix: str, since: float | None = None) -> None:
        """Have a folder walked; `since` is when that was said first, where it is walked once more."""
        self._folder_hints.setdefault((root, prefix), self._clock() if since is None else since)
        self._folder_hinted.set()

    async def _follow_folder_hints(self) -> None:
        while True:
            await self._folder_hinted.wait()
            self._folder_hinted.clear()
            self._count_busy(1)
            taken, self._folder_hints = self._folder_hints, {}
            for (root, prefix), since in _topmost(taken):
                walked = await self.reconcile(root, prefix)
                if self._watched is not None:
                    self._walk_again(root, prefix, walked.blind, since)
            self._count_busy(-1)

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

    def _count_busy(self, change: int) -> None:
        self._busy_stages += change
        self._progressed.set()


def _topmost(hints: dict[tuple[Root, str], float]) -> list[tuple[tuple[Root, str], float]]:
    """Leave out the folders below others: these are walked anyway."""
    kept: list[tuple[tuple[Root, str], float]] = []
    for (root, prefix), since in sorted(hints.items(), key=lambda hint: (hint[0][0].id, hint[0][1])):
        if not kept or kept[-1][0][0] != root or not prefix.startswith(kept[-1][0][1]):
            kept.append(((root, prefix), since))
    return kept


def _prefix(path: str) -> str:
    return f"{path}/" if path else ""
