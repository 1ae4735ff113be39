"""Totals for `soulspot top` and the metrics, queried in the background and shared by all readers."""

import asyncio
import math
import time
from collections import Counter
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy.exc import SQLAlchemyError

from soulspot.errors import SoulspotError
from soulspot.infrastructure.persistence.database import Database
from soulspot.infrastructure.persistence.models import File
from soulspot.infrastructure.persistence.repositories import FileRepository
from soulspot.ingest.disk.walker import Root
from soulspot.ingest.scan.progress import WalkProgress
from soulspot.ingest.scan_requests import count_files_ahead

SHOWN_FAILURES: Final = 5
REFRESH_SECONDS: Final = 5.0
"""Seconds between two queries for `top`."""


@dataclass(frozen=True, slots=True)
class Totals:
    """Files by status, failed files by code, the newest failures, and the Unix time of the query."""

    by_status: Counter[str]
    by_code: Counter[str]
    last_failures: tuple[File, ...]
    at: float


@dataclass(slots=True)
class CatalogueTotals:
    """The newest totals, None until the first query has ended, and the background tasks that query and count."""

    newest: Totals | None = None
    _queried_at: float = -math.inf
    _queried_after: int | None = None
    _tasks: dict[object, asyncio.Task[None]] = field(default_factory=dict)

    def refresh(
        self, database: Database | None, *, outcomes: int | None = None, max_age: float = REFRESH_SECONDS
    ) -> "asyncio.Task[None] | None":
        """Query again in the background if the totals are too old, and return the task of a query in progress.

        With `outcomes`, the number of outcomes so far, query only if it has changed.
        """
        is_due = time.monotonic() - self._queried_at > max_age and (outcomes is None or outcomes != self._queried_after)
        if database is not None and is_due and "totals" not in self._tasks:
            self._queried_at, self._queried_after = time.monotonic(), outcomes
            self._start("totals", self._query(database), name="catalogue totals")
        return self._tasks.get("totals")

    def count_walk(self, walk: WalkProgress, root: Root) -> None:
        """Count the files of a folder in the background, for the progress of the walk there."""
        if root not in self._tasks:
            self._start(root, _count_walk(walk, root), name=f"count files of {root.path}")

    def _start(self, key: object, work: Coroutine[Any, Any, None], *, name: str) -> None:
        task = self._tasks[key] = asyncio.create_task(work, name=name)
        task.add_done_callback(lambda _task: self._tasks.pop(key, None))

    async def _query(self, database: Database) -> None:
        # The database refuses or is closing: keep the last totals.
        with suppress(SQLAlchemyError, SoulspotError, OSError):
            self.newest = await query_totals(database)


async def query_totals(database: Database) -> Totals:
    files, by_status, by_code = FileRepository(database.session), Counter[str](), Counter[str]()
    for (_folder, status, code), count in (await files.counts()).items():
        by_status[status] += count
        if status == "failed":
            by_code[code or "?"] += count
    return Totals(by_status, by_code, tuple(await files.failures(SHOWN_FAILURES)), time.time())


async def _count_walk(walk: WalkProgress, root: Root) -> None:
    walk.total = await count_files_ahead({root: [""]})
