"""One open catalogue: its transactions and read sessions.

A write is a visible block, and the repositories called inside it join it by themselves:

    async with database.transaction():
        track_id = await tracks.add(...)
        await audit.log_action("track_added", track_id)

Outside a transaction a repository gets a session of its own that can only read. `Database` keeps track of each task's
transaction; its `backend`, chosen by the URL, does everything else.
"""

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from contextvars import ContextVar
from typing import Any, Self

from sqlalchemy import URL, make_url
from sqlalchemy.ext.asyncio import AsyncSession

from soulspot.errors import CatalogueError
from soulspot.infrastructure.persistence.backend import Backend
from soulspot.infrastructure.persistence.records import FolderKey, Writer
from soulspot.infrastructure.persistence.sqlite.backend import SqliteBackend


class _Transaction:
    """The transaction of one task; not a generator, which would take longer than SQLite's BEGIN and COMMIT."""

    __slots__ = ("_before", "_writing", "database", "joined", "task")

    def __init__(self, database: "Database", writing: AbstractAsyncContextManager[AsyncSession]) -> None:
        self.database = database
        self._writing = writing

    async def __aenter__(self) -> AsyncSession:
        session = await self._writing.__aenter__()
        self.joined, self.task = nullcontext(session), asyncio.current_task()
        self._before = _in_progress.set(self)
        return session

    async def __aexit__(self, *error: Any) -> bool | None:  # noqa: ANN401, PYI036 - passed on, in its three parts
        _in_progress.reset(self._before)
        return await self._writing.__aexit__(*error)


_in_progress: ContextVar[_Transaction | None] = ContextVar("soulspot_transaction", default=None)


class Database:
    """One open database. Close it with `aclose`, or use it as an async context manager."""

    def __init__(
        self, url: str, *, synchronous: str = "NORMAL", read_only: bool = False, connections: int = 32
    ) -> None:
        self.url: URL = make_url(url)
        self.backend = _backend(self.url, synchronous, connections)
        self.name = self.backend.name
        self._read_only = read_only

    def transaction(self) -> AbstractAsyncContextManager[AsyncSession]:
        """Commit the changes made in the block when it ends, roll them back when it raises."""
        if self._read_only:
            raise RuntimeError("this catalogue was opened for reading only")
        if (current := _in_progress.get()) is not None and current.database is self:
            raise RuntimeError("a transaction is in progress already; the service that began it owns it")
        return _Transaction(self, self.backend.transaction())

    def session(self) -> AbstractAsyncContextManager[AsyncSession]:
        """Return the session of this task's transaction, else a new one that only reads and closes itself."""
        current = _in_progress.get()
        if current is None or current.database is not self:
            return self.backend.read_session()
        if current.task is not asyncio.current_task():
            raise RuntimeError("a task inherited the transaction of another: two tasks cannot share one connection")
        return current.joined

    async def writers(self, folders: Sequence[FolderKey]) -> list[Writer]:
        """Return the writing processes that the server knows, each with those of these folders that it has locked."""
        async with self.session() as session:
            return await self.backend.writers(session, folders)

    async def reserve(self, names: Iterable[str]) -> bool:
        """Keep other transactions from creating rows with these names; false if only one can run at a time.

        Rows that others created before are visible from now on, so query again after a reservation.
        """
        async with self.session() as session:
            return await self.backend.reserve(session, names)

    async def aclose(self) -> None:
        await self.backend.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()


def _backend(url: URL, synchronous: str, connections: int) -> Backend:
    if url.get_backend_name() == "sqlite":
        return SqliteBackend(url, synchronous=synchronous)
    try:  # only here: SQLAlchemy's dialect and the driver take longer to load than all of SQLite's
        from soulspot.infrastructure.persistence.postgresql.backend import PostgresBackend
    except ModuleNotFoundError as error:
        raise CatalogueError(
            f"PostgreSQL needs {error.name}: install it with pip install 'soulspot[postgresql]'"
        ) from error
    return PostgresBackend(url, connections=connections)
