"""Totals for `soulspot top`: queried and counted in the background, shared by all viewers."""

import asyncio
import time
from collections import Counter
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy.exc import DBAPIError

from soulspot.errors import SoulspotError
from soulspot.infrastructure.persistence.database import Database
from soulspot.infrastructure.persistence.models import File
from soulspot.infrastructure.persistence.repositories import FileRepository
from soulspot.ingest.disk.walker import Root
from soulspot.ingest.pipeline import Pipeline
from soulspot.ingest.scan_requests import count_files_ahead

SHOWN_FAILURES: Final = 5
REFRESH_SECONDS: Final = 5.0
"""Seconds between two queries, if anything has happened."""


@dataclass(frozen=True, slots=True)
class Totals:
    """Files by status, failed files by code, and the newest failures."""

    by_status: Counter[str]
    by_code: Counter[str]
    last_failures: tuple[File, ...]


@dataclass(slots=True)
class CatalogueTotals:
    """The newest totals, and the counts of walks; `newest` is None until the first query has ended."""

    newest: Totals | None = None
    _asked_at: float = 0.0
    _asked_after: int = -1
    _tasks: dict[object, asyncio.Task[None]] = field(default_factory=dict)

    def refresh(self, database: Database | None, outcomes: int) -> None:
        """Query again in the background if the totals are old and there were `outcomes` since."""
        is_due = time.monotonic() - self._asked_at > REFRESH_SECONDS and outcomes != self._asked_after
        if database is not None and is_due and "totals" not in self._tasks:
            self._asked_at, self._asked_after = time.monotonic(), outcomes
            self._start("totals", self._query(database), name="catalogue totals")

    def count_walk(self, pipeline: Pipeline, root: Root) -> None:
        """Count the files of a folder in the background, for the walk that is under way there."""
        if root not in self._tasks:
            self._start(root, _count_walk(pipeline, root), name=f"count files of {root.path}")

    def _start(self, key: object, work: Coroutine[Any, Any, None], *, name: str) -> None:
        task = self._tasks[key] = asyncio.create_task(work, name=name)
        task.add_done_callback(lambda _task: self._tasks.pop(key, None))

    async def _query(self, database: Database) -> None:
        with suppress(DBAPIError, SoulspotError, OSError):  # the database refuses or is being closed: keep the last
            self.newest = await query_totals(database)


async def query_totals(database: Database) -> Totals:
    files, by_status, by_code = FileRepository(database.session), Counter[str](), Counter[str]()
    for (_folder, status, code), count in (await files.counts()).items():
        by_status[status] += count
        if status == "failed":
            by_code[code or "?"] += count
    return Totals(by_status, by_code, tuple(await files.failures(SHOWN_FAILURES)))


async def _count_walk(pipeline: Pipeline, root: Root) -> None:
    walk = pipeline.walks.get(root)
    total = await count_files_ahead({root: [""]})
    if walk is not None:
        walk.total = total
