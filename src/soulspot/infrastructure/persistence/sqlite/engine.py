"""SQLite connections: one that writes in the event loop's thread, a few that read in threads of their own.

The writing one has its own dialect, because aiosqlite hands each step of each statement (cursor, execute, fetch, close)
to a thread and waits for it: some twenty hand-offs per file, each slower than the statement itself, which takes SQLite
a few microseconds.
"""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import msgspec
from sqlalchemy import URL, Connection, Pool, event
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool, ConnectionPoolEntry

from soulspot.infrastructure.persistence.sqlite.prepared import run

BUSY_TIMEOUT_MS: Final = 5_000
"""Time that a reader waits for a lock. The writer does not: it would stop the event loop, and its caller retries."""
_SAME_THREAD: Final = "sqlite+soulspot_same_thread"


class SameThreadDialect(SQLiteDialect_pysqlite):
    """sqlite3 under SQLAlchemy's asyncio extension, without a thread; `writer.py` lists what that breaks."""

    driver = "soulspot_same_thread"
    is_async = True
    supports_statement_cache = True

    @classmethod
    def get_pool_class(cls, url: object) -> type[Pool]:  # noqa: ARG003 - the base class's signature
        return AsyncAdaptedQueuePool


registry.register("sqlite.soulspot_same_thread", __name__, "SameThreadDialect")


def engines(url: URL, synchronous: str) -> tuple[AsyncEngine, AsyncEngine]:
    """Return the engine of the connection that writes, and of those that read."""
    options: dict[str, Any] = {"json_serializer": _to_json, "json_deserializer": msgspec.json.decode}
    same_thread = {"check_same_thread": False, "timeout": 0, "cached_statements": 256}
    writer = create_async_engine(url.set(drivername=_SAME_THREAD), connect_args=same_thread, **options)
    reader = create_async_engine(url, pool_size=2, max_overflow=4, **options)
    _set_up(writer, ["busy_timeout=0", "journal_mode=WAL", f"synchronous={synchronous}", "wal_autocheckpoint=0"])
    _set_up(reader, [f"busy_timeout={BUSY_TIMEOUT_MS}", "query_only=ON"])
    _begin_with_sqlalchemy(reader)  # the writer's session begins its own transactions
    return writer, reader


def _set_up(engine: AsyncEngine, pragmas: Sequence[str]) -> None:
    @event.listens_for(engine.sync_engine, "do_connect")
    def never_create(_dialect: Any, _record: Any, arguments: list[Any], options: dict[str, Any]) -> None:  # noqa: ANN401
        # Only a migration creates a catalogue. If the file is deleted while it is open, no empty one may replace it.
        arguments[0] = f"{Path(arguments[0]).absolute().as_uri()}?mode=rw"
        options["uri"] = True

    # Switch off the driver's own transaction handling, so that ours is the only one (SQLAlchemy's SQLite page).
    @event.listens_for(engine.sync_engine, "connect")
    def connect(connection: Any, _record: ConnectionPoolEntry) -> None:  # noqa: ANN401 - the driver's, untyped
        connection.isolation_level = None
        with closing(connection.cursor()) as cursor:
            for pragma in (*pragmas, "foreign_keys=ON"):
                cursor.execute(f"PRAGMA {pragma}")


def _begin_with_sqlalchemy(engine: AsyncEngine) -> None:
    @event.listens_for(engine.sync_engine, "begin")
    def begin_transaction(connection: Connection) -> None:
        with closing(connection.connection.cursor()) as cursor:
            run("BEGIN", cursor.execute, "BEGIN")  # SQLAlchemy does not convert the errors of a listener


def _to_json(value: object) -> str:
    return msgspec.json.encode(value).decode()
