"""Compares a part of a folder on disk with the same part of the catalogue, as far as both can be seen."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from soulspot.infrastructure.persistence.records import Known
from soulspot.infrastructure.persistence.repositories import FileRepository
from soulspot.ingest.disk import planner
from soulspot.ingest.disk.planner import Work
from soulspot.ingest.disk.walker import Batch, Root
from soulspot.ingest.missing.folder_health import FolderHealth
from soulspot.ingest.retry import retry_database


@dataclass(slots=True)
class Compared:
    """What is to be done for a part of a folder."""

    work: list[Work]
    gone: list[str]
    unchanged: int


class Comparison:
    def __init__(self, files: FileRepository, health: FolderHealth) -> None:
        self._files = files
        self._health = health

    async def part(self, root: Root, batch: Batch, prefix: str, after: str = "") -> Compared:
        """Compare what a scan of `prefix` ("" or "folder/") found after a path."""
        known = await retry_database(self._files.known_between, root.id, prefix, after, batch.upto)
        return self._compared(root, batch, known)

    async def likely_current(self, root: Root, batch: Batch, prefix: str, after: str) -> Compared:
        """Do the same if most likely nothing has changed: the cheapest query goes first."""
        if await self._is_all_current(root, batch, prefix, after):
            return Compared([], [], len(batch.files))
        return await self.part(root, batch, prefix, after)

    async def folder(self, root: Root, batch: Batch, prefix: str) -> Compared:
        """Compare what lies in a folder itself."""
        return self._compared(root, batch, await retry_database(self._files.known_in, root.id, prefix))

    async def _is_all_current(self, root: Root, batch: Batch, prefix: str, after: str) -> bool:
        if root.remote or not root.trusts_inodes:
            return False
        asked = partial(self._files.current_between, reading=root.reading, failed=planner.MAY_PASS)
        return planner.are_all_current(batch.files, await retry_database(asked, root.id, prefix, after, batch.upto))

    def _compared(self, root: Root, batch: Batch, known: Mapping[str, Known]) -> Compared:
        comparison = planner.compare(batch.files, known)
        work = [each for each in comparison.work if not self._health.is_unavailable(root, each.file.path)]
        gone = [each.path for each in comparison.gone if not batch.hides(each.path)]
        available = [path for path in gone if not self._health.is_unavailable(root, path)]
        return Compared(work, available, comparison.unchanged)
