"""Compares a part of a folder on disk with the same part of the catalogue, without what is unavailable."""

from collections.abc import Mapping
from functools import partial

from soulspot.infrastructure.persistence.records import Known
from soulspot.infrastructure.persistence.repositories import FileRepository
from soulspot.ingest.database_retry import retry_database
from soulspot.ingest.disk import planner
from soulspot.ingest.disk.planner import Plan
from soulspot.ingest.disk.walker import Batch, Root
from soulspot.ingest.missing.folder_health import FolderHealth


class Comparison:
    def __init__(self, files: FileRepository, health: FolderHealth) -> None:
        self._files = files
        self._health = health

    async def part(self, root: Root, batch: Batch, prefix: str, after: str = "") -> Plan:
        """Compare what a scan of `prefix` ("" or "folder/") found after the path `after`."""
        known = await retry_database(self._files.known_between, root.id, prefix, after, batch.upto)
        return self._plan(root, batch, known)

    async def likely_current(self, root: Root, batch: Batch, prefix: str, after: str) -> Plan:
        """Do the same with a cheaper query first, which suffices if nothing has changed."""
        if root.trusts_inodes and not root.remote:
            query = partial(self._files.current_between, reading=root.reading, failed=planner.TRANSIENT_FAILURES)
            known = await retry_database(query, root.id, prefix, after, batch.upto)
            if planner.are_all_current(batch.files, known):
                return Plan([], [], len(batch.files))
        return await self.part(root, batch, prefix, after)

    async def folder(self, root: Root, batch: Batch, prefix: str) -> Plan:
        """Compare what lies directly in a folder."""
        return self._plan(root, batch, await retry_database(self._files.known_in, root.id, prefix))

    def _plan(self, root: Root, batch: Batch, known: Mapping[str, Known]) -> Plan:
        plan, is_unavailable = planner.compare(batch.files, known), partial(self._health.is_unavailable, root)
        plan.work = [each for each in plan.work if not is_unavailable(each.file.path)]
        plan.gone = [each for each in plan.gone if not (batch.hides(each.path) or is_unavailable(each.path))]
        return plan
