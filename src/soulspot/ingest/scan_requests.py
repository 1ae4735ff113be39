"""Serves scans that somebody requests while the daemon watches: started at once, followed until all of it is done."""

import asyncio
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from soulspot.infrastructure.filesystem import path_to_text
from soulspot.ingest.disk.walker import Root, count_files, covers
from soulspot.ingest.outcome import Outcome
from soulspot.ingest.pipeline import Pipeline

BUSY_LIMIT: Final = 10.0
"""Seconds after which a scan does not wait any longer for a file that is still being written."""
COUNT_AFTER: Final = 0.5
"""Seconds after which a scan is worth a walk that only counts the files, to show how far it is."""

Parts = Mapping[Root, Sequence[str]]
"""What to scan: "" is a whole root, "folder/" all below a folder, anything else one path."""


@dataclass(slots=True, eq=False)
class Request:
    """A scan that was requested, and how far it is.

    Attributes:
        counts: numbers of files by outcome, including those that events reported meanwhile.
        failed: those that could not be read.
        total: the number of files to scan, once they are counted.
        is_done: whether it is complete; a request that has `ended` without that was cut off by a stop of the daemon.

    """

    parts: Parts
    confirm_missing: bool = False
    counts: Counter[str] = field(default_factory=Counter)
    failed: list[Outcome] = field(default_factory=list)
    total: int | None = None
    still_written: list[str] = field(default_factory=list)
    offline: dict[str, str] = field(default_factory=dict)
    held: dict[str, int] = field(default_factory=dict)
    is_done: bool = False
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    def hear(self, root: Root, path: str, outcome: Outcome) -> None:
        """Count the outcome of a file if it is one of those that are scanned."""
        if any(covers(part, path) for part in self.parts.get(root, ())):
            self.counts[outcome.kind] += 1
            if outcome.kind == "failed":
                self.failed.append(outcome)

    def pass_over(self, count: int) -> None:
        self.counts["unchanged"] += count


class Requests:
    """Serves requests for as long as `run` runs; those that are left then end undone."""

    def __init__(self, pipeline: Pipeline, roots: Sequence[Root]) -> None:
        self._pipeline = pipeline
        self._roots = {f"{path_to_text(root.path).rstrip('/')}/": root for root in roots}
        self._asked: asyncio.Queue[Request] = asyncio.Queue()
        self._open: set[Request] = set()

    def ask(self, request: Request) -> None:
        self._open.add(request)
        self._asked.put_nowait(request)

    def hear(self, outcome: Outcome) -> None:
        """Hear what became of a file."""
        if self._open:
            for whole, root in self._roots.items():
                if outcome.path.startswith(whole):
                    for request in self._open:
                        request.hear(root, outcome.path[len(whole) :], outcome)

    async def run(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                while True:
                    group.create_task(self._serve(await self._asked.get()), name="requested scan")
        finally:
            for request in self._open:
                request.ended.set()

    async def _serve(self, request: Request) -> None:
        pipeline, parts = self._pipeline, request.parts
        counting = asyncio.create_task(_count_ahead(request), name="count the files of a scan")
        try:
            with pipeline.confirming(parts if request.confirm_missing else {}):
                for root, paths in parts.items():
                    for path in paths:
                        await self._scan(request, root, path)
                request.still_written = await pipeline.wait_for(parts, give_up_after=BUSY_LIMIT)
        finally:
            counting.cancel()
        request.offline = {root.path: pipeline.faults[root] for root in parts if root in pipeline.faults}
        request.held = {root.path: pipeline.held[root] for root in parts if root in pipeline.held}
        request.is_done = True
        self._open.discard(request)
        request.ended.set()

    async def _scan(self, request: Request, root: Root, path: str) -> None:
        if not path or path.endswith("/"):
            await self._pipeline.reconciler.scan_now(root, path, unchanged=request.pass_over)
        elif await self._pipeline.hinted_paths.check_path(root, path) and os.path.lexists(root.full(path)):
            request.pass_over(1)


async def _count_ahead(request: Request) -> None:
    request.total = await count_files_ahead(request.parts, after=COUNT_AFTER)


async def count_files_ahead(parts: Parts, *, after: float = 0.0) -> int:
    """Count the files that a scan comes to; begin after so many seconds, as a short scan is not worth it."""
    await asyncio.sleep(after)
    total = 0
    for root, paths in parts.items():
        for path in paths:
            is_folder = not path or path.endswith("/")
            total += await asyncio.to_thread(count_files, root, path) if is_folder else 1
    return total
