"""PostgreSQL as a backend: a server that several machines may share, many transactions at a time."""

import socket
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import URL, ColumnElement, String, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_sessionmaker

from soulspot.infrastructure.persistence.backend import Backend, Notifications
from soulspot.infrastructure.persistence.postgresql import advisory_locks, notifications
from soulspot.infrastructure.persistence.postgresql.engine import engines, reading, unpooled
from soulspot.infrastructure.persistence.postgresql.writer import PooledTransaction, PostgresSession, WriterPool
from soulspot.infrastructure.persistence.records import FolderKey, Writer

_RESUME_NUMBERING = text(
    "SELECT setval(pg_get_serial_sequence('audit_log', 'sequence'), coalesce(max(sequence), 1), count(*) > 0)"
    " FROM audit_log"
)
_IS_PARTITIONED = text("SELECT to_regclass('audit_log_rest') IS NOT NULL")
_IS_BEYOND_PARTS = text("SELECT EXISTS (SELECT 1 FROM audit_log_rest)")


class PostgresBackend(Backend):
    """A pool of connections writes, another reads, and one that is never shared holds the locks."""

    file: Path | None = None
    is_shared = True
    has_concurrent_writers = True
    retries_upgrade = False

    def __init__(self, url: URL, *, connections: int) -> None:
        self.name = url.render_as_string(hide_password=True)
        self.write_engine, self.read_engine = engines(url, connections)
        self.lock_engine = unpooled(url)
        self._writers = WriterPool(self.write_engine, connections)
        self._read_sessions = async_sessionmaker(self.read_engine, expire_on_commit=False)

    def transaction(self) -> AbstractAsyncContextManager[AsyncSession]:
        return PooledTransaction(self._writers)

    def read_session(self) -> AbstractAsyncContextManager[AsyncSession]:
        return reading(self._read_sessions)

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[AsyncConnection]:
        async with self.read_engine.connect() as connection:
            await connection.execution_options(isolation_level="REPEATABLE READ")
            async with connection.begin():
                yield connection

    def lock_folders(
        self, folders: Iterable[FolderKey], command: str, *, node: str, run: str
    ) -> AbstractAsyncContextManager[None]:
        name, payload = advisory_locks.name_of(command, node), {"node": node, "run": run}
        return advisory_locks.lock_folders(self.lock_engine, folders, name, payload, self._writers.committed)

    def lock_catalogue(self, command: str) -> AbstractAsyncContextManager[None]:
        return advisory_locks.lock_catalogue(self.lock_engine, advisory_locks.name_of(command, socket.gethostname()))

    @property
    def change_notifications(self) -> Notifications:
        return partial(notifications.change_notifications, self.lock_engine)

    async def writers(self, session: AsyncSession, folders: Sequence[FolderKey]) -> list[Writer]:
        return await advisory_locks.writers(session, folders)

    async def reserve(self, session: AsyncSession, names: Iterable[str]) -> bool:
        assert isinstance(session, PostgresSession)
        await session.reserve(names)
        return True

    async def resume_numbering(self, session: AsyncSession) -> None:
        await session.execute(_RESUME_NUMBERING)

    async def neglected(self, session: AsyncSession) -> list[str]:
        if await session.scalar(_IS_PARTITIONED) and await session.scalar(_IS_BEYOND_PARTS):
            return ["the audit log is beyond its last part: `soulspot db partition` makes more"]
        return []

    def in_byte_order(self, column: ColumnElement[Any]) -> ColumnElement[Any]:
        return column.collate("C") if isinstance(column.type, String) else column

    async def aclose(self) -> None:
        await self.read_engine.dispose()
        await self._writers.aclose()
        await self.write_engine.dispose()
