"""The interface of `Database` to SQLite and PostgreSQL; its defaults are those of a database that lacks a feature.

`database.py` chooses the implementation by the URL: `sqlite/backend.py` or `postgresql/backend.py`.
"""
# ruff: noqa: ARG002 - a default needs none of its arguments

import sqlite3
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession

from soulspot.infrastructure.persistence.records import FolderKey, Writer

Notifications = Callable[[], AsyncGenerator[None, None]]
"""Yields after the commits of all processes, until the connection is lost."""


class Backend(ABC):
    """One kind of database.

    Attributes:
        name: the name of the database for messages, without a password.
        file: the file that holds the catalogue, None on a server.
        is_shared: whether several machines may use one catalogue.
        has_concurrent_writers: whether several transactions may write at once, and so create the same artist twice.
        retries_upgrade: whether this process retries a schema upgrade that the environment stops (a full disk), or
            leaves that to the next start (a server that is down).
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

    @abstractmethod
    def transaction(self) -> AbstractAsyncContextManager[AsyncSession]:
        """Return a context manager that begins a transaction, and commits or rolls it back."""

    @abstractmethod
    def read_session(self) -> AbstractAsyncContextManager[AsyncSession]: ...

    @abstractmethod
    def snapshot(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """Return a context manager that yields a connection to the catalogue as it is at one moment."""

    def lock_folders(
        self, folders: Iterable[FolderKey], command: str, *, node: str, run: str
    ) -> AbstractAsyncContextManager[None]:
        """Keep other processes from writing the files of these folders, if the lock file does not already.

        Each notification of a commit names this `node` and `run`.
        """
        return nullcontext()

    def lock_catalogue(self, command: str) -> AbstractAsyncContextManager[None]:
        """Keep other processes from writing anything, if the lock file does not already."""
        return nullcontext()

    @property
    def change_notifications(self) -> Notifications | None:
        """Yields after each commit of any process; None if the database does not notify."""
        return None

    async def writers(self, session: AsyncSession, folders: Sequence[FolderKey]) -> list[Writer]:
        """Return the writing processes that the server knows, each with those of these folders that it has locked."""
        return []

    async def reserve(self, session: AsyncSession, names: Iterable[str]) -> bool:
        """Keep other transactions from creating rows with these names; false if only one can run at a time."""
        return False

    async def resume_numbering(self, session: AsyncSession) -> None:  # noqa: B027 - SQLite does so automatically
        """Make the audit log number its next entry after the copied ones."""

    async def why_unreadable(self) -> str | None:
        """Return why the catalogue's file cannot be read, None if it can."""
        return None

    async def damage(self, session: AsyncSession) -> list[str]:
        """Return what the database finds wrong in its own storage, at most ten faults of each kind."""
        return []

    async def neglected(self, session: AsyncSession) -> list[str]:
        """Return the maintenance that is due."""
        return []

    async def journal_mode(self, session: AsyncSession) -> str | None:
        """Return SQLite's journal mode, None on a server."""
        return None

    def in_byte_order(self, column: ColumnElement[Any]) -> ColumnElement[Any]:
        """Return a column to sort by that sorts the same in every database."""
        return column

    async def copy_into(self, target: sqlite3.Connection) -> None:
        """Copy the file as it is now, through an open connection: the file may have been renamed or deleted."""
        raise NotImplementedError

    async def vacuum(self) -> None:
        """Rebuild the file without its free space. Blocks the event loop."""
        raise NotImplementedError

    @abstractmethod
    async def aclose(self) -> None: ...
