"""The daemon's real parts in this process, on an event loop of their own: pipeline, watcher, tag readers, database.

Only the clock may be another one. Tag readers are shared by all, as starting them takes longer than most tests.
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

from soulspot.bootstrap import root_of
from soulspot.config import Settings
from soulspot.infrastructure.filesystem import file_system_of, ignore_lease_signals
from soulspot.infrastructure.persistence.database import Database
from soulspot.infrastructure.persistence.identity import new_id
from soulspot.infrastructure.persistence.repositories import FileRepository
from soulspot.infrastructure.persistence.schema import bring_up_to_date
from soulspot.infrastructure.tags.readers.pool import TagReaders
from soulspot.infrastructure.watching.watcher import Watcher
from soulspot.ingest.catalogue.folder_service import FolderService
from soulspot.ingest.catalogue.service import IngestService
from soulspot.ingest.intake.stability import Stability
from soulspot.ingest.missing.loss_guard import LossGuard
from soulspot.ingest.pause_gate import Gate
from soulspot.ingest.pipeline import Pipeline
from soulspot.ingest.polling import Rounds

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


class Parts:
    """A catalogue of `folders` that is kept true from `start` to `stop`.

    Args:
        place: the folder of an SQLite catalogue, or the URL of a migrated one on a server.
        watching: whether there is a watcher.
        rounds: whether folders are looked at without an event.

    """

    def __init__(
        self,
        place: Path | str,
        *folders: Path,
        watching: bool = True,
        rounds: bool = False,
        missing_after: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
        confirmed: bool = False,
        **library: object,
    ) -> None:
        self.folders = folders
        self.url = place if isinstance(place, str) else f"sqlite+aiosqlite:///{place}/catalogue.db"
        self.outcomes: list[Outcome] = []
        self._watching, self._with_rounds, self._missing_after = watching, rounds, missing_after
        self._clock, self._confirmed = clock, confirmed
        self.gate = Gate()
        self.tamper: Callable[[list[str]], list[str]] = list
        values = {"quiet_period": 0.1, "poll_interval": 3600.0, "reconcile_interval": 3600.0} | library
        self._settings = Settings.model_validate({"library": {"folders": [str(each) for each in folders], **values}})
        self._tasks: list[asyncio.Task[None]] = []

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

    async def _start(self) -> None:
        if not self._is_on_a_server:
            self._make_catalogue()
            await self._make_catalogue_current()
        self.database = Database(self.url)
        library = self._settings.library
        run = new_id()
        folder_service = FolderService(self.database, run=run, node="node")
        self.pipeline = Pipeline(
            service=IngestService(self.database, run=run),
            folder_service=folder_service,
            files=FileRepository(self.database.session),
            readers=shared().readers,
            stability=Stability(library.quiet_period, leases=library.leases),
            report=self.outcomes.append,
            missing_after=self._missing_after,
            guard=LossGuard(confirmed=self._confirmed),
            gate=self.gate,
            clock=self._clock,
        )
        self.roots = []
        for folder in map(str, self.folders):
            file_system = file_system_of(folder)
            row = await folder_service.adopt_folder(folder, file_system)
            root = root_of(row.id, folder, self._settings, trusts_inodes=not file_system.is_remote)
            self.pipeline.add_root(root, row.file_system_id, row.status, row.status_reason)
            self.roots.append(root)
        self.watcher = Watcher([str(each) for each in self.folders], self._hint, self._look_everywhere)
        self.rounds = Rounds(
            self.pipeline,
            self.watcher,
            self.roots,
            reconcile_interval=library.reconcile_interval,
            poll_interval=library.poll_interval,
        )
        self._tasks = [asyncio.create_task(self.pipeline.run())]
        if self._with_rounds:
            self._tasks.append(asyncio.create_task(self.rounds.run()))
        if self._watching:
            self.pipeline.compare_with(self.watcher.watched, self.rounds.cover)
            self._tasks.append(asyncio.create_task(self.watcher.run()))
            await self.watcher.is_live.wait()

    async def _stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.database.aclose()

    async def _scan(self) -> None:
        for root in self.roots:
            await self.pipeline.reconcile(root)
        await self.pipeline.done(give_up_after=10)

    async def _settled(self) -> None:
        quiet = 0
        while quiet < 3:
            await asyncio.sleep(0.03)
            await self.pipeline.done(give_up_after=10)
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

    def look_everywhere(self) -> None:
        """Do what the timer does."""
        shared().loop.call_soon_threadsafe(self._look_everywhere)

    def hint(self, paths: Iterable[str]) -> None:
        """Say that something happened at paths, as one batch of events."""
        shared().loop.call_soon_threadsafe(self._say, list(paths))

    def _hint(self, all_paths: Iterable[str]) -> None:
        self._say(self.tamper(list(all_paths)))

    def _say(self, paths: Iterable[str]) -> None:
        for root in self.roots:
            below = [path for path in map(root.relative, paths) if path is not None]
            if below:
                self.pipeline.hints.add(root, below)

    def _look_everywhere(self) -> None:
        for root in self.roots:
            self.pipeline.look_again(root, [""])


@pytest.fixture
def music(tmp_path: Path) -> Path:
    folder = tmp_path / "music"
    folder.mkdir()
    return folder


@pytest.fixture
def parts(catalogue_url: str, music: Path) -> Iterator[Parts]:
    with Parts(catalogue_url, music) as running:
        running.settled()
        yield running
