"""Lets files go missing, late and with doubt: they are gone for long enough, their folder is well, and they are few."""

import asyncio
import logging
import time
from collections.abc import Callable, Collection

from soulspot.infrastructure.filesystem import path_to_text
from soulspot.infrastructure.persistence.repositories import FileRepository, Known
from soulspot.ingest.absence import Absences, LossGuard, fault_of, seconds_gone
from soulspot.ingest.patience import patiently
from soulspot.ingest.scanner import Root, chunks, look_at_all
from soulspot.ingest.service import IngestService, Outcome, StaleError

logger = logging.getLogger(__name__)


class Losses:
    """The watched folders, whether each is well, and what is not found in them.

    Args:
        report: called with each outcome, after its commit.
        missing_after: seconds of absence after which a file is missing.
        look_again: called with a path that has to be looked at once more, "" for a folder that is back.
        is_on_its_way: whether a path is being taken in, and so is anything but gone.
        busy: called with 1 when work begins here and with -1 when it ends.

    """

    def __init__(  # noqa: PLR0913 - the pipeline fills this in once, by name
        self,
        *,
        service: IngestService,
        files: FileRepository,
        report: Callable[[Outcome], None],
        missing_after: float,
        guard: LossGuard,
        look_again: Callable[[Root, list[str]], None],
        is_on_its_way: Callable[[Root, str], bool],
        busy: Callable[[int], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._service = service
        self._files = files
        self._report = report
        self._guard = guard
        self._look_again = look_again
        self._is_on_its_way = is_on_its_way
        self._busy = busy
        self._absences = Absences(missing_after, clock=clock)
        self._noted = asyncio.Event()
        self._roots: dict[str, Root] = {}
        self._identities: dict[Root, str] = {}
        self.faults: dict[Root, str] = {}
        self.held: dict[Root, int] = {}

    def add_root(self, root: Root, file_system_id: str, fault: str | None) -> None:
        self._roots[root.id] = root
        self._identities[root] = file_system_id
        if fault is not None:
            self.faults[root] = fault

    def root_of(self, known: Known) -> Root | None:
        """Return the folder that a file of the catalogue is in, None where that one is not watched."""
        return self._roots.get(known.folder_id)

    def __len__(self) -> int:
        return len(self._absences)

    async def note(self, root: Root, paths: Collection[str]) -> None:
        if paths:
            ages = await asyncio.to_thread(lambda: {path: seconds_gone(root, path) for path in paths})
            self._absences.note(root, paths, ages=ages.__getitem__)
            self._noted.set()

    async def run(self) -> None:
        while True:
            self._noted.clear()
            try:
                async with asyncio.timeout(self._absences.next_due()):
                    await self._noted.wait()
            except TimeoutError:
                self._busy(1)
                for root, paths in self._absences.take_due().items():
                    await self._lose(root, paths)
                self._busy(-1)

    async def _lose(self, root: Root, paths: Collection[str]) -> None:
        """Let files go missing that are not there, unless there is a doubt."""
        if not await self.is_well(root):
            return
        present = await patiently(self._files.count_present, root.id)
        if not self._guard.allows(root, len(paths) + self._absences.waiting(root), present):
            self._hold(root, len(paths) + self._absences.waiting(root), present)
            return
        lost = 0
        for some in chunks(paths):
            found = await asyncio.to_thread(look_at_all, root, some)
            self._look_again(root, [path for path, what in found.items() if what is not None])
            nothing = [path for path, what in found.items() if what is None]
            known = await patiently(self._files.known_at, root.id, nothing)
            for each in known.values():
                if each.is_missing or self._is_on_its_way(root, each.path):
                    continue
                try:
                    self._report(await patiently(self._service.lose, each))
                    lost += 1
                except StaleError:
                    self._look_again(root, [each.path])
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

    async def is_well(self, root: Root) -> bool:
        """Examine a folder; write it down where it went offline or came back."""
        some_known = await patiently(self._files.some_present, root.id)
        fault = await asyncio.to_thread(fault_of, root, self._identities[root], some_known)
        before = self.faults.get(root)
        if fault is None and before is None:
            return True
        if fault is not None:
            self.faults[root] = fault
            self._absences.forget(root)
        if fault is not None and before is None:
            logger.error("folder %s is offline: %s; nothing in it is marked missing", path_to_text(root.path), fault)
            await patiently(self._service.set_folder_status, root, "offline", fault)
        if fault is None:
            del self.faults[root]
            logger.warning("folder %s is online again", path_to_text(root.path))
            await patiently(self._service.set_folder_status, root, "online", None)
            self._look_again(root, [""])
        return fault is None
