"""The daemon in this process, on an event loop of its own: real pipeline, watcher, tag readers and database.

Only the clock may be another one. All tests share the tag readers, which take longer to start than most tests to run.
"""

import asyncio
import atexit
import contextlib
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

import psycopg
import pytest

from soulspot.bootstrap import Ingest, Watching, open_ingest
from soulspot.config import Settings
from soulspot.infrastructure.filesystem import ignore_lease_signals
from soulspot.infrastructure.persistence.database import Database
from soulspot.infrastructure.persistence.schema import bring_up_to_date
from soulspot.infrastructure.tags.readers.pool import TagReaders
from soulspot.infrastructure.watching.watcher import Watcher
from soulspot.ingest.disk.walker import Root
from soulspot.ingest.pause_gate import PauseGate
from soulspot.ingest.pipeline import Pipeline
from soulspot.ingest.polling import Polling

if TYPE_CHECKING:
    from soulspot.ingest.outcome import Outcome

_T = TypeVar("_T")


class _Shared:
    """One event loop in a thread, and the tag readers that run in it."""

    def __init__(self) -> None:
        ignore_lease_signals()
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()
        self.readers = self.call(self._start())
        atexit.register(lambda: self.call(self.readers.aclose()))
        self.empty: Path | None = None

    async def _start(self) -> TagReaders:
        return await TagReaders(1).__aenter__()

    def call(self, work: Coroutine[Any, Any, _T], seconds: float = 60) -> _T:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(seconds)


_shared: list[_Shared] = []


def shared() -> _Shared:
    if not _shared:
        _shared.append(_Shared())
    return _shared[0]


class InProcessDaemon:
    """Keeps a catalogue of `folders` up to date from `start` to `stop`.

    Args:
        place: the folder of an SQLite catalogue, or the URL of a migrated one on a server.
        watching: whether there is a watcher.
        polling: whether folders are checked without an event; that needs a watcher.
        confirmed: whether a person said that all missing files are really gone.

    """

    def __init__(
        self,
        place: Path | str,
        *folders: Path,
        watching: bool = True,
        polling: bool = False,
        clock: Callable[[], float] = time.monotonic,
        confirmed: bool = False,
        **library: object,
    ) -> None:
        self.url = place if isinstance(place, str) else f"sqlite+aiosqlite:///{place}/catalogue.db"
        self.outcomes: list[Outcome] = []
        self.gate = PauseGate()
        self.tamper: Callable[[list[str]], list[str]] = list
        self._has_watcher, self._has_polling, self._clock, self._confirmed = watching, polling, clock, confirmed
        values = {"quiet_period": 0.1, "missing_after": 0.0, "poll_interval": 3600.0, "reconcile_interval": 3600.0}
        self._settings = Settings.model_validate(
            {
                "database": {"url": self.url},
                "library": {"folders": [str(each) for each in folders], **values, **library},
            }
        )
        self._tasks: list[asyncio.Task[None]] = []
        self._ingest: Ingest
        self._stopping: asyncio.Event
        self._running: asyncio.Task[None]

    def start(self) -> Self:
        shared().call(self._start())
        return self

    def stop(self) -> None:
        shared().call(self._stop())

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_error: object) -> None:
        self.stop()

    def scan(self, seconds: float = 30) -> None:
        """Compare everything once, and wait until what differs is done."""
        shared().call(self._scan(), seconds)

    def settled(self, seconds: float = 30) -> None:
        """Wait until nothing is left to do, and nothing comes for a moment."""
        shared().call(self._settled(), seconds)

    def until(self, condition: Callable[[], object], seconds: float = 15) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "waited in vain"
            self.raise_failure()
            time.sleep(0.01)

    def raise_failure(self) -> None:
        for task in self._tasks:
            if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                raise error

    @property
    def _is_on_a_server(self) -> bool:
        return self.url.startswith("postgresql")

    @property
    def database_file(self) -> Path:
        return Path(self.url.removeprefix("sqlite+aiosqlite:///"))

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        if self._is_on_a_server:
            with psycopg.connect(self.url.replace("+asyncpg", "")) as connection:
                return connection.execute(query.encode()).fetchall()
        with contextlib.closing(sqlite3.connect(f"file:{self.database_file}?mode=ro", uri=True)) as connection:
            return connection.execute(query).fetchall()

    def ids(self, status: str = "catalogued") -> dict[str, str]:
        """Return the track of each path."""
        return dict(self.rows(f"SELECT path, track_id FROM files WHERE status = '{status}'"))

    def paths(self, status: str = "catalogued") -> set[str]:
        return set(self.ids(status))

    def actions(self) -> list[str]:
        """Return what was audited of tracks and files, in its order."""
        query = "SELECT action FROM audit_log WHERE entity_type IN ('track', 'file') ORDER BY sequence"
        return [action for (action,) in self.rows(query)]

    def changes(self) -> int:
        """Return the number of the last audit entry."""
        return int(self.rows("SELECT coalesce(max(sequence), 0) FROM audit_log")[0][0])

    @property
    def pipeline(self) -> Pipeline:
        return self._ingest.pipeline

    @property
    def roots(self) -> list[Root]:
        return self._ingest.roots

    @property
    def watching(self) -> Watching:
        assert self._ingest.watching is not None
        return self._ingest.watching

    @property
    def watcher(self) -> Watcher:
        return self.watching.watcher

    @property
    def polling(self) -> Polling:
        return self.watching.polling

    async def _start(self) -> None:
        if not self._is_on_a_server:
            self._make_catalogue()
            await self._make_catalogue_current()
        self._stopping, started = asyncio.Event(), asyncio.Event()
        self._running = asyncio.create_task(self._run(started), name="daemon under test")
        starting = asyncio.create_task(started.wait())
        await asyncio.wait([self._running, starting], return_when=asyncio.FIRST_COMPLETED)
        starting.cancel()
        if self._running.done():
            await self._running

    async def _run(self, started: asyncio.Event) -> None:
        """Run what the daemon runs until `stop`, and then cut it off, as a kill would."""
        async with open_ingest(
            self._settings,
            "watch",
            report=self.outcomes.append,
            confirm_missing=self._confirmed,
            watch=self._has_watcher,
            gate=self.gate,
            readers=shared().readers,
            clock=self._clock,
        ) as ingest:
            self._ingest = ingest
            self._tasks = [asyncio.create_task(ingest.pipeline.run(), name="pipeline")]
            if self._has_polling:
                self._tasks.append(asyncio.create_task(self.polling.run(), name="polling"))
            if self._has_watcher:
                self.watcher._on_hint = self._tampered
                self._tasks.append(asyncio.create_task(self.watcher.run(), name="watcher"))
                await self.watcher.is_live.wait()
            started.set()
            await self._stopping.wait()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _stop(self) -> None:
        self._stopping.set()
        await self._running

    def _tampered(self, full_paths: Iterable[str]) -> None:
        self.pipeline.queue.add_events(self.tamper(list(full_paths)))

    async def _scan(self) -> None:
        for root in self.roots:
            await self.pipeline.reconciler.reconcile(root)
        await self.pipeline.wait(give_up_after=10)

    async def _settled(self) -> None:
        quiet = 0
        while quiet < 3:
            await asyncio.sleep(0.03)
            await self.pipeline.wait(give_up_after=10)
            self.raise_failure()
            quiet = quiet + 1 if self.pipeline.is_quiet else 0

    def _make_catalogue(self) -> None:
        """Copy the empty catalogue that was made once: migrating takes longer than most tests."""
        self.database_file.parent.mkdir(parents=True, exist_ok=True)
        if not self.database_file.exists() and (empty := shared().empty) is not None and empty.exists():
            shutil.copyfile(empty, self.database_file)

    async def _make_catalogue_current(self) -> None:
        if self.database_file.exists():
            return
        async with Database(self.url) as database:
            await bring_up_to_date(database)
        shared().empty = shutil.copyfile(self.database_file, self.database_file.with_suffix(".empty"))

    def scan_everything(self) -> None:
        """Do what the timer does."""
        shared().loop.call_soon_threadsafe(self.pipeline.queue.enqueue_everything)

    def hint(self, paths: Iterable[str]) -> None:
        """Report that something happened at paths, as one batch of events."""
        shared().loop.call_soon_threadsafe(self.pipeline.queue.add_events, list(paths))


@pytest.fixture
def music(tmp_path: Path) -> Path:
    folder = tmp_path / "music"
    folder.mkdir()
    return folder


@pytest.fixture
def daemon(catalogue_url: str, music: Path) -> Iterator[InProcessDaemon]:
    with InProcessDaemon(catalogue_url, music) as running:
        running.settled()
        yield running
