"""Lets files go missing, late and with doubt: gone for long enough, in a folder that is well, and not too many.

A disk that is unmounted looks like a library that somebody deleted. So each watched folder, and each file system that
is mounted below one, is examined before anything in it goes missing; a file system that was there and is not, or is
another, takes nothing along. What may have moved is matched before it counts as lost.
"""

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from soulspot.infrastructure.filesystem import FileSystem, file_systems_below, path_to_text
from soulspot.infrastructure.persistence.records import Known
from soulspot.infrastructure.persistence.repositories import FileRepository
from soulspot.ingest.catalogue.folder_service import FolderService
from soulspot.ingest.catalogue.service import IngestService
from soulspot.ingest.disk.walker import Root, chunks, covers, look_at_all, why_left_alone
from soulspot.ingest.missing.folder_health import fault_of, mount_fault_of
from soulspot.ingest.missing.grace_period import Absences, ages_of, seconds_gone
from soulspot.ingest.missing.loss_guard import LossGuard
from soulspot.ingest.outcome import Outcome, StaleError
from soulspot.ingest.pause_gate import Gate
from soulspot.ingest.retry import patiently

logger = logging.getLogger(__name__)

BUSY_WAIT = 0.25
"""Seconds until it is asked again whether files still come in."""
HEIR_WITHIN = timedelta(hours=24)
"""A copy of the same name that was made so long before its original went is the original, moved: to another disk, `mv`
copies, and removes when all is copied."""
HEIR_OF_ANY_NAME = 60.0
"""Seconds before a file vanished from which on its copy may have any name: a program that writes a file anew, with
other tags and another name, may have it read before anybody sees that the old one is gone."""
HEIR_YOUNGER_BY = timedelta(seconds=60)
"""Two that were found at one time were two all the time, and none is the copy of the other."""
BUSY_LIMIT = 600.0
"""Seconds for which files that come in, and may be those that are gone, put a loss off."""


@dataclass(slots=True)
class _Mount:
    """A file system mounted below a watched folder, at `prefix` ("folder/"), as it was when we last knew it."""

    id: str
    path: str
    identity: str
    fault: str | None = None


class Losses:
    """The watched folders, whether each is well, and what is not found in them.

    Args:
        report: called with each outcome, after its commit.
        missing_after: seconds of absence after which a file is missing.
        look_again: called with a path that has to be looked at once more, with a slash behind for all below.
        is_on_its_way: whether a path is being taken in, and so is anything but gone.
        is_quiet: whether nothing comes in.
        gone: called with files that were not found, before they are remembered as such.
        busy: called with 1 when work begins here and with -1 when it ends.
        gate: closed for as long as a person has paused the ingest.

    """

    def __init__(  # noqa: PLR0913 - the pipeline fills this in once, by name
        self,
        *,
        service: IngestService,
        folder_service: FolderService,
        files: FileRepository,
        report: Callable[[Outcome], None],
        missing_after: float,
        guard: LossGuard,
        look_again: Callable[[Root, list[str]], None],
        is_on_its_way: Callable[[Root, str], bool],
        is_quiet: Callable[[], bool],
        gone: Callable[[Root, Collection[str]], Awaitable[None]],
        busy: Callable[[int], None],
        gate: Gate,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._service = service
        self._folder_service = folder_service
        self._gate = gate
        self._is_deciding = False
        self._files = files
        self._report = report
        self._guard = guard
        self._look_again = look_again
        self._is_on_its_way = is_on_its_way
        self._is_quiet = is_quiet
        self._gone = gone
        self._busy = busy
        self._clock = clock
        self._absences = Absences(missing_after, clock=clock)
        self._noted = asyncio.Event()
        self._roots: dict[str, Root] = {}
        self._identities: dict[Root, str] = {}
        self._mounts: dict[Root, dict[str, _Mount]] = {}
        self._examining = asyncio.Lock()
        self.faults: dict[Root, str] = {}
        self.held: dict[Root, int] = {}

    def add_root(self, root: Root, file_system_id: str, status: str, reason: str | None) -> None:
        """Take up a folder, with what was written of it last."""
        self._roots[root.id] = root
        self._identities[root] = file_system_id
        if status == "offline":
            self.faults[root] = reason or ""
        elif status == "held":
            number = (reason or "").partition(" ")[0]
            self.held[root] = int(number) if number.isdecimal() else 0

    def root_of(self, known: Known) -> Root | None:
        """Return the folder that a file of the catalogue is in, None where that one is not watched."""
        return self._roots.get(known.folder_id)

    def is_out_of_sight(self, root: Root, path: str) -> bool:
        """Whether a path lies in a folder, or on a file system below one, of which nothing is known now."""
        lost = (prefix for prefix, mount in self._mounts.get(root, {}).items() if mount.fault is not None)
        return root in self.faults or any(path.startswith(prefix) or f"{path}/" == prefix for prefix in lost)

    def __len__(self) -> int:
        return len(self._absences)

    def absent(self, root: Root, part: str) -> list[str]:
        """Return the paths at and below another that are not there, and of which it is not decided what that means."""
        return [path for path in self._absences.waiting(root) if covers(part, path)]

    def are_decided(self, root: Root, paths: Collection[str]) -> bool:
        """Whether it is known of all these paths what became of them."""
        return not self._is_deciding and not self._absences.any_of(root, paths)

    async def moved(self, origin: Known) -> None:
        """Hear that a file went elsewhere: nobody need wait for it to be gone for long enough."""
        if (root := self.root_of(origin)) is not None:
            self._absences.found(root, origin.path)
            if not self._is_deciding and self._absences.are_all_found(root):
                await self.found_all(root)

    async def note(self, root: Root, paths: Collection[str], *, are_all: bool = False) -> None:
        """Remember files that were not found; `are_all` says that no other file of the folder is gone."""
        if are_all and not paths:
            await self.found_all(root)
        if paths:
            await self._gone(root, paths)
            ages = await asyncio.to_thread(ages_of, root, paths)
            self._absences.note(root, paths, ages=ages.__getitem__, are_all=are_all)
            self._noted.set()

    async def found_all(self, root: Root) -> None:
        """Take back that a loss was held: all is there."""
        if self.held.pop(root, None) is not None:
            path = path_to_text(root.path)
            await patiently(self._folder_service.set_folder_status, root.id, path, "online", None)

    async def knows_any(self, root: Root) -> bool:
        """Whether the catalogue knows of anything in a folder."""
        return bool(await patiently(self._files.some_present, root.id, "", 1))

    async def run(self) -> None:
        while True:
            self._noted.clear()
            try:
                async with asyncio.timeout(self._absences.next_due()):
                    await self._noted.wait()
            except TimeoutError:
                await self._until_nothing_comes_in()
                await self._gate.passed()
                self._busy(1)
                self._is_deciding = True
                for root, paths in self._absences.take_due().items():
                    await self._lose(root, paths)
                self._is_deciding = False
                self._busy(-1)

    async def _until_nothing_comes_in(self) -> None:
        """Wait: what is gone may be what arrives, under another name."""
        began = self._clock()
        while not self._is_quiet() and self._clock() - began < BUSY_LIMIT:  # noqa: ASYNC110 - many things make it quiet
            await asyncio.sleep(BUSY_WAIT)

    async def _lose(self, root: Root, paths: Collection[str]) -> None:
        """Let files go missing that are not there, unless there is a doubt."""
        if not await self.is_well(root):
            return
        gone = await self._really_gone(root, paths)
        waiting = await self._really_gone(root, self._absences.waiting(root))
        doubtful = {each for each in gone + waiting if not self._guard.is_confirmed(root, each.path)}
        present = await patiently(self._files.count_present, root.id)
        is_held = bool(doubtful) and not self._guard.allows(root, len(doubtful), present)
        if is_held:
            await self._hold(root, len(doubtful), present)
            gone = [each for each in gone if each not in doubtful]
        lost = []
        for each in gone:
            try:
                self._report(await self._take_leave_of(root, each))
                lost.append(each)
            except StaleError:
                self._look_again(root, [each.path])
        self._guard.lost(root, sum(each in doubtful for each in lost))
        if lost and not is_held:
            await self.found_all(root)

    async def _take_leave_of(self, root: Root, known: Known) -> Outcome:
        """Write that a file is missing, or where it went: one copied elsewhere and then removed has moved."""
        if known.track_id is not None:
            heirs = await patiently(self._heirs_of, root, known)
            if len(heirs) == 1:
                return await patiently(self._service.merge_moved_copy, known, heirs[0])
        try:
            reason = await asyncio.to_thread(why_left_alone, root, known.path)
        except OSError as error:
            raise StaleError(known.path) from error
        return await patiently(self._service.lose, known, reason)

    async def _heirs_of(self, root: Root, known: Known) -> list[Known]:
        heirs = await self._files.later_copies_of(
            known.id, younger_by=HEIR_YOUNGER_BY, since=datetime.now(UTC) - HEIR_WITHIN
        )
        namesakes = [each for each in heirs if each.path.rpartition("/")[2] == known.path.rpartition("/")[2]]
        if namesakes or not heirs:
            return namesakes
        age = HEIR_OF_ANY_NAME + await asyncio.to_thread(seconds_gone, root, known.path)
        since = datetime.now(UTC) - timedelta(seconds=age)
        return await self._files.later_copies_of(known.id, younger_by=HEIR_YOUNGER_BY, since=since)

    async def _really_gone(self, root: Root, paths: Collection[str]) -> list[Known]:
        """Return the files that are not where the catalogue has them now; what is there again is looked at."""
        gone: list[Known] = []
        for some in chunks([path for path in paths if not self.is_out_of_sight(root, path)]):
            found = await asyncio.to_thread(look_at_all, root, some)
            self._look_again(root, [path for path, what in found.items() if what is not None])
            known = await patiently(
                self._files.known_at, root.id, [path for path in some if found.get(path, "") is None]
            )
            gone += [each for each in known.values() if not (each.is_missing or self._is_on_its_way(root, each.path))]
        return gone

    async def _hold(self, root: Root, losing: int, present: int) -> None:
        self._absences.forget(root, but=lambda path: self._guard.is_confirmed(root, path))
        if root not in self.held:
            what = f"{losing} of its {present} files are not there"
            path = path_to_text(root.path)
            logger.error(
                "folder %s: %s: nothing is marked missing; when they are really gone, say so with"
                " `soulspot scan --confirm-missing`",
                path,
                what,
            )
            await patiently(self._folder_service.set_folder_status, root.id, path, "held", what)
        self.held[root] = losing

    async def is_well(self, root: Root) -> bool:
        """Examine a folder and what is mounted below; write it down where something went away or came back."""
        async with self._examining:
            some_known = await patiently(self._files.some_present, root.id)
            fault = await asyncio.to_thread(fault_of, root, self._identities[root], some_known)
            if fault is not None:
                await self._lose_sight_of(root, fault)
            elif root in self.faults:
                await self._see_again(root)
            if fault is None:
                await self._examine_mounts(root)
            return fault is None

    async def _lose_sight_of(self, root: Root, fault: str) -> None:
        self._absences.forget(root)
        is_new, self.faults[root] = root not in self.faults, fault
        if is_new:
            path = path_to_text(root.path)
            logger.error("folder %s is offline: %s; nothing in it is marked missing", path, fault)
            await patiently(self._folder_service.set_folder_status, root.id, path, "offline", fault)

    async def _see_again(self, root: Root) -> None:
        del self.faults[root]
        path = path_to_text(root.path)
        logger.warning("folder %s is online again", path)
        await patiently(self._folder_service.set_folder_status, root.id, path, "online", None)
        self._look_again(root, [""])

    async def _examine_mounts(self, root: Root) -> None:
        found = await asyncio.to_thread(file_systems_below, root.path)
        mounted = {f"{path_to_text(path)}/": file_system for path, file_system in found.items()}
        root.remote.clear()
        root.remote.update(prefix for prefix, file_system in mounted.items() if file_system.is_remote)
        mounts = self._mounts.get(root)
        if mounts is None:
            mounts = self._mounts[root] = await self._known_mounts(root)
        for prefix, file_system in mounted.items():
            if prefix not in mounts:
                mounts[prefix] = await self._new_mount(root, prefix, file_system)
        for prefix, mount in list(mounts.items()):
            await self._examine_mount(root, prefix, mount, mounted.get(prefix))

    async def _new_mount(self, root: Root, prefix: str, file_system: FileSystem) -> _Mount:
        """Remember a file system; where it hides known files, remember the one that these were on."""
        hidden = [root.full(path) for path in await patiently(self._files.some_present, root.id, prefix)]
        if hidden and not any(map(os.path.lexists, hidden)):
            file_system = replace(file_system, identity=self._identities[root])
        path = root.full(prefix.rstrip("/"))
        row = await patiently(self._folder_service.adopt_folder, path, file_system, "mounted")
        return _Mount(row.id, row.path, row.file_system_id)

    async def _known_mounts(self, root: Root) -> dict[str, _Mount]:
        rows = await patiently(self._folder_service.mounts_below, root)
        start = len(path_to_text(root.path).rstrip("/")) + 1
        known = {}
        for row in rows:
            fault = row.status_reason if row.status == "unmounted" else None
            known[f"{row.path[start:]}/"] = _Mount(row.id, row.path, row.file_system_id, fault)
        return known

    async def _examine_mount(self, root: Root, prefix: str, mount: _Mount, now: FileSystem | None) -> None:
        some_known = await patiently(self._files.some_present, root.id, prefix)
        paths = [root.full(path) for path in some_known]
        fault = None
        if not self._guard.is_confirmed(root, prefix):
            fault = await asyncio.to_thread(mount_fault_of, mount.identity, now, paths)
        if fault is None and now is not None and now.identity != mount.identity:
            mount.identity = now.identity
            await patiently(self._folder_service.set_file_system, mount.id, now)
        if (fault is None) == (mount.fault is None):
            return
        mount.fault = fault
        status = "mounted" if fault is None else "unmounted"
        await patiently(self._folder_service.set_folder_status, mount.id, mount.path, status, fault)
        if fault is None:
            logger.warning("%s is mounted again", mount.path)
            self._look_again(root, [prefix])
        else:
            logger.error("%s: %s; nothing in it is marked missing", mount.path, fault)
