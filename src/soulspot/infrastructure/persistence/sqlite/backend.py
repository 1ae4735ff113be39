"""SQLite as a backend: one file on this machine, one process that writes it, one transaction at a time."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

from sqlalchemy import URL, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_sessionmaker

from soulspot.infrastructure.persistence.backend import Backend
from soulspot.infrastructure.persistence.faults import why_not_readable
from soulspot.infrastructure.persistence.sqlite.engine import engines
from soulspot.infrastructure.persistence.sqlite.writer import SqliteWriter

_FAULTS_SHOWN = 10


class SqliteBackend(Backend):
    """One connection writes (a second would wait for the first anyway), in the event loop's thread; a few read.

    The lock file (`lock_file.py`) keeps other writers out while this process runs, so this class needs no locks.
    """

    is_shared = False
    has_concurrent_writers = False
    retries_upgrade = True

    def __init__(self, url: URL, *, synchronous: str) -> None:
        self.name = str(url.database)
        self.file: Path | None = Path(self.name)
        self.write_engine, self.read_engine = engines(url, synchronous)
        self._writer = SqliteWriter(self.write_engine)
        self._read_sessions = async_sessionmaker(self.read_engine, expire_on_commit=False)

    def transaction(self) -> AbstractAsyncContextManager[AsyncSession]:
        return self._writer

    def read_session(self) -> AbstractAsyncContextManager[AsyncSession]:
        return self._read_sessions()

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[AsyncConnection]:
        async with self.read_engine.connect() as connection, connection.begin():
            yield connection

    async def why_unreadable(self) -> str | None:
        return await asyncio.to_thread(why_not_readable, Path(self.name))

    async def damage(self, session: AsyncSession) -> list[str]:
        verdicts = [*await session.scalars(text(f"PRAGMA integrity_check({_FAULTS_SHOWN})"))]
        orphans = (await session.execute(text("PRAGMA foreign_key_check"))).all()
        return ([] if verdicts == ["ok"] else verdicts) + [
            f"table {table}, row {row}: what it refers to in {parent} is not there"
            for table, row, parent, _key in orphans[:_FAULTS_SHOWN]
        ]

    async def journal_mode(self, session: AsyncSession) -> str | None:
        return str(await session.scalar(text("PRAGMA journal_mode")))

    async def copy_into(self, target: sqlite3.Connection) -> None:
        async with self.read_engine.connect() as connection:
            raw = await connection.get_raw_connection()
            assert raw.driver_connection is not None
            await raw.driver_connection.backup(target)

    async def vacuum(self) -> None:
        await self._writer.vacuum()

    async def aclose(self) -> None:
        await self.read_engine.dispose()
        await self._writer.aclose()
        await self.write_engine.dispose()
