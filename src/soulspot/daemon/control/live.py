"""What `soulspot top` shows, as one stream of the control socket: how the daemon is, twice a second, and what happens.

Nothing here runs while nobody asks.
"""

import asyncio
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy.exc import DBAPIError

from soulspot.daemon.events import News
from soulspot.daemon.messages import told
from soulspot.errors import SoulspotError
from soulspot.infrastructure.filesystem import path_to_text
from soulspot.infrastructure.net.control_socket import Answer, Arguments, Offers, Stream
from soulspot.infrastructure.persistence.repositories import FileRepository
from soulspot.ingest.disk.walker import Root
from soulspot.ingest.pipeline import Pipeline
from soulspot.ingest.scan_requests import count_files_ahead

if TYPE_CHECKING:
    from soulspot.daemon.state import State

EVERY: Final = 0.5
"""Seconds between two lines of how it is."""
PAUSE: Final = 0.1
"""Seconds between two lines of what happens."""
ROOM: Final = 40
"""Outcomes that one line tells at most: the newest."""
ARRIVING: Final = 20
FAILURES: Final = 5
TOTALS_EVERY: Final = 5.0
"""Seconds between two questions to the database for numbers, where anything has happened."""
COUNT_AFTER: Final = 2.0
"""Seconds after which a walk of a whole folder is worth one that only counts."""


def live(state: "State") -> Offers:
    """Return the stream that a live view is fed by."""
    totals = _Totals(state)

    async def live_(asked: Arguments) -> AsyncIterator[Answer]:
        with state.feed.listening(ROOM) as listener:
            began = {"pid": os.getpid(), "since": state.since.isoformat(), "may_steer": asked["asker"].may_steer}
            yield began | told(News(tuple(state.feed.recent)))
            due = 0.0
            while True:
                if time.monotonic() >= due:
                    due = time.monotonic() + EVERY
                    yield {"vitals": _vitals(state, totals)}
                news = await listener.within(max(due - time.monotonic(), 0))
                if news is not None:
                    yield told(news)
                    await asyncio.sleep(min(PAUSE, max(due - time.monotonic(), 0)))

    return {"live": Stream(live_)}


def _vitals(state: "State", totals: "_Totals") -> dict[str, Any]:
    from soulspot.daemon.status import report

    vitals = report(state) | {"rates": state.pace.last(60), "totals": totals.known()}
    if (pipeline := state.pipeline) is not None:
        for root in state.roots:
            folder = vitals["folders"][path_to_text(root.path)]
            folder |= {"offline": pipeline.faults.get(root), "held": pipeline.held.get(root)}
        vitals["arriving"] = [
            {"path": path, "seconds": round(seconds, 1), "settles": settles}
            for path, seconds, settles in pipeline.in_progress(ARRIVING)
        ]
        vitals["walks"] = _walks(pipeline, totals)
    return vitals


def _walks(pipeline: Pipeline, totals: "_Totals") -> list[dict[str, Any]]:
    """Return how far the walks of whole folders are, and have them counted ahead where they take long."""
    shown = []
    for root, walk in pipeline.walks.items():
        if walk.seconds > COUNT_AFTER:
            if walk.total is None:
                totals.count_ahead(pipeline, root)
            shown.append({"folder": path_to_text(root.path), "done": walk.done, "total": walk.total,
                          "seconds": round(walk.seconds)})  # fmt: skip
    return shown


@dataclass(slots=True)
class _Totals:
    """Numbers that the catalogue has to be asked for: asked in the background, shared by all who look."""

    state: "State"
    _known: dict[str, Any] | None = None
    _asked_at: float = 0.0
    _asked_when: int = -1
    _tasks: dict[object, asyncio.Task[None]] = field(default_factory=dict)

    def known(self) -> dict[str, Any] | None:
        """Return the newest numbers there are, and see to newer ones."""
        happened = self.state.tally.kinds.total()
        is_due = time.monotonic() - self._asked_at > TOTALS_EVERY and happened != self._asked_when
        if self.state.database is not None and is_due and "numbers" not in self._tasks:
            self._asked_at, self._asked_when = time.monotonic(), happened
            self._begin("numbers", self._ask())
        return self._known

    def count_ahead(self, pipeline: Pipeline, root: Root) -> None:
        if root not in self._tasks:
            self._begin(root, self._count(pipeline, root))

    def _begin(self, name: object, work: Coroutine[Any, Any, None]) -> None:
        task = self._tasks[name] = asyncio.create_task(work)
        task.add_done_callback(lambda _task: self._tasks.pop(name, None))

    async def _ask(self) -> None:
        database = self.state.database
        assert database is not None
        with suppress(DBAPIError, SoulspotError, OSError):  # it refuses, or is being closed: the numbers stay
            files = FileRepository(database.session)
            counts, failures = await files.counts(), await files.failures(FAILURES)
            by_state, by_code = Counter[str](), Counter[str]()
            for (_folder, status, code), count in counts.items():
                by_state[status] += count
                if status == "failed":
                    by_code[code or "?"] += count
            last = [
                {
                    "path": file.full_path,
                    "code": file.error_code,
                    "detail": file.error_text,
                }
                for file in failures
            ]
            self._known = {"files": dict(by_state), "failures": dict(by_code), "last_failures": last}

    async def _count(self, pipeline: Pipeline, root: Root) -> None:
        walk = pipeline.walks.get(root)
        total = await count_files_ahead({root: [""]})
        if walk is not None:
            walk.total = total
