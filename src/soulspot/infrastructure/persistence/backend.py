"""What `Database` asks of SQLite and of PostgreSQL: one object for each, chosen once, with the same face."""

import sqlite3
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Protocol

from sqlalchemy import ColumnElement
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession

from soulspot.infrastructure.persistence.records import FolderKey, Writer

Notifications = Callable[[], AsyncGenerator[None, None]]
"""Yields after commits, whichever process made them, until the connection is lost."""


class Backend(Protocol):
    """One kind of database.

    Attributes:
        name: what a person knows the database by; no password is in it.
        file: the file that holds the catalogue, None on a server.
        is_shared: whether several machines may use one catalogue.
        has_concurrent_writers: whether several transactions may write at once, and so create the same artist twice.
        retries_upgrade: whether an upgrade of the schema that the environment stops is retried by this process (a disk
            that is full), or by the next start (a server that is away).
        write_engine: the connections that write.
        read_engine: the connections that only read.

    """

    name: str
    file: Path | None
    is_shared: bool
    has_concurrent_writers: bool
    retries_upgrade: bool
    write_engine: AsyncEngine
    read_engine: AsyncEngine

    def transaction(self) -> AbstractAsyncContextManager[AsyncSession]:
        """Return what begins a transaction, and commits it or rolls it back."""

    def read_session(self) -> AbstractAsyncContextManager[AsyncSession]: ...

    def snapshot(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """Return what yields a connection that reads the catalogue as it is at one moment."""

    def lock_folders(
        self, folders: Iterable[FolderKey], command: str, *, node: str, run: str
    ) -> AbstractAsyncContextManager[None]:
        """Keep other processes from writing what is in these folders."""

    def lock_catalogue(self, command: str) -> AbstractAsyncContextManager[None]:
        """Keep other processes from writing anything."""

    @property
    def change_notifications(self) -> Notifications | None:
        """What yields after each commit of any process; None if the database does not notify."""

    async def writers(self, session: AsyncSession, folders: Sequence[FolderKey]) -> list[Writer]:
        """Return the processes that the server knows to write, each with those of these folders that it has locked."""

    async def reserve(self, session: AsyncSession, names: Iterable[str]) -> bool:
        """Keep other transactions from creating what has one of these names; false where none can be in progress."""

    async def resume_numbering(self, session: AsyncSession) -> None:
        """Have the audit log number its next entry after those that were copied into it."""

    async def why_unreadable(self) -> str | None:
        """Return what keeps the catalogue's file from being read, None where nothing does."""

    async def damage(self, session: AsyncSession) -> list[str]:
        """Return what the database finds wrong in its own storage, at most ten faults of each kind."""

    async def neglected(self, session: AsyncSession) -> list[str]:
        """Return the maintenance that is due."""

    async def journal_mode(self, session: AsyncSession) -> str | None:
        """Return how SQLite journals, None on a server."""

    def in_byte_order(self, column: ColumnElement[Any]) -> ColumnElement[Any]:
        """Return a column to sort by that sorts the same in every database."""

    async def copy_into(self, target: sqlite3.Connection) -> None:
        """Copy the file as it is now, through an open connection: it may have lost its name by now."""

    async def vacuum(self) -> None:
        """Rebuild the file without its free space; blocks the event loop."""

    async def aclose(self) -> None: ...
