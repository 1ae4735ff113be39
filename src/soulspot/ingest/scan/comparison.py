"""Compares what a look at the disk found with what the catalogue knows of the same part, as far as both see it."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from soulspot.infrastructure.persistence.records import Known
from soulspot.infrastructure.persistence.repositories import FileRepository
from soulspot.ingest.disk import planner
from soulspot.ingest.disk.planner import Work
from soulspot.ingest.disk.walker import Batch, Root
from soulspot.ingest.missing.missing_files import Losses
from soulspot.ingest.retry import patiently


@dataclass(slots=True)
class Compared:
    """What is to be done for a part of a folder."""

    work: list[Work]
    gone: list[str]
    unchanged: int


class Comparing:
    def __init__(self, files: FileRepository, losses: Losses) -> None:
        self._files = files
        self._losses = losses

    async def part(self, root: Root, batch: Batch, prefix: str, after: str = "") -> Compared:
        """Compare what a walk of `prefix` ("" or "folder/") found after a path."""
        known = await patiently(self._files.known_between, root.id, prefix, after, batch.upto)
        return self._compared(root, batch, known)

    async def likely_current(self, root: Root, batch: Batch, prefix: str, after: str) -> Compared:
        """Do the same where nothing is likely to have changed: it is asked first in the way that costs the least."""
        if await self._is_all_current(root, batch, prefix, after):
            return Compared([], [], len(batch.files))
        return await self.part(root, batch, prefix, after)

    async def folder(self, root: Root, batch: Batch, prefix: str) -> Compared:
        """Compare what lies in a folder itself."""
        return self._compared(root, batch, await patiently(self._files.known_in, root.id, prefix))

    async def _is_all_current(self, root: Root, batch: Batch, prefix: str, after: str) -> bool:
        if root.remote or not root.trusts_inodes:
            return False
        asked = partial(self._files.current_between, reading=root.reading, failed=planner.MAY_PASS)
        return planner.are_all_current(batch.files, await patiently(asked, root.id, prefix, after, batch.upto))

    def _compared(self, root: Root, batch: Batch, known: Mapping[str, Known]) -> Compared:
        comparison = planner.compare(batch.files, known)
        work = [each for each in comparison.work if not self._losses.is_out_of_sight(root, each.file.path)]
        gone = [each.path for each in comparison.gone if not batch.hides(each.path)]
        in_sight = [path for path in gone if not self._losses.is_out_of_sight(root, path)]
        return Compared(work, in_sight, comparison.unchanged)
