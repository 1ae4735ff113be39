"""Serves scans on request while the daemon watches: each starts at once, and reports progress until it is done."""

import asyncio
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from soulspot.infrastructure.filesystem import path_to_text
from soulspot.ingest.disk.walker import Root, count_files, covers
from soulspot.ingest.outcome import Outcome
from soulspot.ingest.pipeline import Pipeline

BUSY_LIMIT: Final = 10.0
"""Seconds for which a scan waits for a file that is still being written."""
COUNT_AFTER: Final = 0.5
"""Seconds after which a walk counts the files of a scan, to show progress; a short scan is not worth it."""

Parts = Mapping[Root, Sequence[str]]
"""The paths to scan: "" is a whole root, "folder/" all below a folder, anything else one path."""


@dataclass(slots=True, eq=False)
class Request:
    """A requested scan, and its progress.

    Attributes:
        counts: numbers of files by outcome, including those that events reported meanwhile.
        failed: the outcomes of files that could not be read.
        total: the number of files to scan, once they are counted.
        is_done: whether it is complete; a request that has `ended` without it was cut off by a stop of the daemon.

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

    def add_outcome(self, root: Root, path: str, outcome: Outcome) -> None:
        """Count the outcome of a file if it belongs to this scan."""
        if any(covers(part, path) for part in self.parts.get(root, ())):
            self.counts[outcome.kind] += 1
            if outcome.kind == "failed":
                self.failed.append(outcome)

    def pass_over(self, count: int) -> None:
        self.counts["unchanged"] += count


class Requests:
    """Serves requests while `run` runs; requests that are open at its end are not done."""

    def __init__(self, pipeline: Pipeline, roots: Sequence[Root]) -> None:
        self._pipeline = pipeline
        self._roots = {f"{path_to_text(root.path).rstrip('/')}/": root for root in roots}
        self._submitted: asyncio.Queue[Request] = asyncio.Queue()
        self._open: set[Request] = set()

    def submit(self, request: Request) -> None:
        self._open.add(request)
        self._submitted.put_nowait(request)

    def on_outcome(self, outcome: Outcome) -> None:
        """Count the outcome of a file in the requests that it belongs to."""
        for folder, root in self._roots.items() if self._open else ():
            if outcome.path.startswith(folder):
                for request in self._open:
                    request.add_outcome(root, outcome.path.removeprefix(folder), outcome)

    async def run(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                while True:
                    group.create_task(self._serve(await self._submitted.get()), name="requested scan")
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
                        await scan_part(pipeline, root, path, unchanged=request.pass_over)
                request.still_written = await pipeline.wait_for(parts, give_up_after=BUSY_LIMIT)
        finally:
            counting.cancel()
        request.offline = {root.path: pipeline.faults[root] for root in parts if root in pipeline.faults}
        request.held = {root.path: pipeline.held[root] for root in parts if root in pipeline.held}
        request.is_done = True
        self._open.discard(request)
        request.ended.set()


async def scan_part(pipeline: Pipeline, root: Root, path: str, *, unchanged: Callable[[int], None]) -> None:
    """Scan a root (""), a folder in it ("folder/") or one path; call `unchanged` with numbers of unchanged files."""
    if not path or path.endswith("/"):
        await pipeline.reconciler.scan_now(root, path, unchanged=unchanged)
    elif await pipeline.hinted_paths.check_path(root, path) and os.path.lexists(root.full(path)):
        unchanged(1)


async def _count_ahead(request: Request) -> None:
    request.total = await count_files_ahead(request.parts, after=COUNT_AFTER)


async def count_files_ahead(parts: Parts, *, after: float = 0.0) -> int:
    """Return the number of files in these parts; begin `after` seconds."""
    await asyncio.sleep(after)
    return sum(
        [
            await asyncio.to_thread(count_files, root, path) if not path or path.endswith("/") else 1
            for root, paths in parts.items()
            for path in paths
        ]
    )
