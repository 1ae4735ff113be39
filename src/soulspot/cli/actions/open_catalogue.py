"""Opens the catalogue for a command, and finds the file that the user names."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from pathlib import Path
from typing import TypeVar

from soulspot.cli.output import logs
from soulspot.cli.output.text import printable
from soulspot.cli.rights import find_catalogue, get_settings
from soulspot.config import Settings, database_file
from soulspot.errors import NotFoundError
from soulspot.infrastructure.filesystem import path_to_text
from soulspot.infrastructure.persistence.database import Database
from soulspot.infrastructure.persistence.models import File
from soulspot.infrastructure.persistence.repositories import FileRepository
from soulspot.infrastructure.persistence.schema import require_current
from soulspot.infrastructure.persistence.sqlite.lock_file import writer_lock

_T = TypeVar("_T")


def configure(config: Path | None) -> Settings:
    """Read the settings, and log as they say."""
    settings = get_settings(config_file=config)
    logs.set_up(settings.log.level, settings.log.format)
    return settings


def query_catalogue(config: Path | None, query: Callable[[Database], Awaitable[_T]], *, any_schema: bool = False) -> _T:
    """Return the result of a query of the existing catalogue."""

    async def run() -> _T:
        async with open_catalogue(configure(config), any_schema=any_schema) as database:
            return await query(database)

    return asyncio.run(run())


@asynccontextmanager
async def open_catalogue(settings: Settings, *, any_schema: bool = False) -> AsyncIterator[Database]:
    """Open the existing catalogue for reading; raise CatalogueError unless its schema is current."""
    async with Database(find_catalogue(settings), read_only=True) as database:
        if not any_schema:
            await require_current(database)
        yield database


@asynccontextmanager
async def open_for_writing(
    settings: Settings, url: str, command: str, *, read_only: bool = False
) -> AsyncIterator[Database]:
    """Open an existing catalogue and lock out other writers; with `read_only`, open it as for a dry run.

    Raises LockHeldError, which names the process that holds the lock.
    """
    with nullcontext() if read_only else lock_out_writers(url, command):
        async with Database(url, synchronous=settings.database.synchronous, read_only=read_only) as database:
            await require_current(database)
            yield database


def lock_out_writers(url: str, command: str) -> AbstractContextManager[None]:
    """Hold the lock file of an SQLite database; on PostgreSQL the locks are in the server."""
    file = database_file(url)
    return writer_lock(file, command) if file else nullcontext()


async def find_file(database: Database, asked: str) -> File:
    """Return the file with this path or id, or the file of the track with this id."""
    files = FileRepository(database.session)
    if "/" not in asked and (file := await files.with_id(asked)) is not None:
        return file
    path = catalogue_path(asked)
    if found := await files.at(path):
        return found[0]
    raise NotFoundError(
        f"the catalogue has no file {printable(path)}: see `soulspot tracks` and `soulspot failures list`"
    )


def catalogue_path(path: str) -> str:
    """Return a path of the command line as the catalogue writes it: absolute, as lossless text."""
    return path_to_text(str(Path(path).absolute()))
