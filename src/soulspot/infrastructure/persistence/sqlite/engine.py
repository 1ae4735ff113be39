"""How an SQLite connection is set up."""

import sqlite3
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, event
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import ConnectionPoolEntry

BUSY_TIMEOUT_MS: Final = 5_000
"""How long a reader waits for a lock. The writer does not: it would stop the event loop, and it is tried again."""


def set_up(engine: AsyncEngine, pragmas: list[str]) -> None:
    @event.listens_for(engine.sync_engine, "do_connect")
    def never_create(_dialect: Any, _record: Any, arguments: list[Any], options: dict[str, Any]) -> None:  # noqa: ANN401
        # Only a migration makes a catalogue. One that was deleted while it was open is not to be begun anew, empty.
        arguments[0] = f"{Path(arguments[0]).absolute().as_uri()}?mode=rw"
        options["uri"] = True

    # The driver's own transaction handling is switched off, so that ours is the only one (SQLAlchemy's SQLite page).
    @event.listens_for(engine.sync_engine, "connect")
    def connect(connection: Any, _record: ConnectionPoolEntry) -> None:  # noqa: ANN401 - the driver's, untyped
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in (*pragmas, "foreign_keys=ON"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()


def begin_with_sqlalchemy(engine: AsyncEngine) -> None:
    @event.listens_for(engine.sync_engine, "begin")
    def begin_transaction(connection: Connection) -> None:
        cursor = connection.connection.cursor()
        try:
            cursor.execute("BEGIN")
        except (
            sqlite3.OperationalError
        ) as error:  # a lock, a full disk: SQLAlchemy does not look at what a listener does
            raise OperationalError("BEGIN", (), error) from error
        finally:
            cursor.close()
