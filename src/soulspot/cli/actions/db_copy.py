"""`soulspot db copy`: copies a catalogue to another database, SQLite or PostgreSQL."""

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from pydantic import ValidationError

from soulspot.cli.output import logs
from soulspot.cli.rights import act_as_owner_of
from soulspot.config.paths import database_file
from soulspot.config.sections import DatabaseSettings
from soulspot.errors import CatalogueError, ConfigError
from soulspot.infrastructure.persistence.copy import copy_catalogue
from soulspot.infrastructure.persistence.database import Database
from soulspot.infrastructure.persistence.schema import bring_up_to_date, require_current
from soulspot.infrastructure.persistence.sqlite.lock_file import writer_lock


def copy(source: str, target: str) -> None:
    logs.set_up("warning")
    source, target = _url(source), _url(target)
    file = database_file(source)
    if file is not None and not file.exists():
        msg = f"there is no catalogue at {file}"
        raise CatalogueError(msg)
    if source == target:
        msg = "source and target are the same database"
        raise ConfigError(msg)
    act_as_owner_of(source if file is not None else target)
    with _alone(source), _alone(target):
        copied = asyncio.run(_copy(source, target))
    listed = ", ".join(f"{count:,} {table.replace('_', ' ')}" for table, count in copied.items())
    print(f"copied and compared: {listed}")


async def _copy(source: str, target: str) -> dict[str, int]:
    async with Database(source, read_only=True) as original, Database(target) as copied:
        await require_current(original)
        await bring_up_to_date(copied)
        async with copied.backend.lock_catalogue("db copy"):
            return await copy_catalogue(original, copied)


def _url(text: str) -> str:
    """Return the URL of a database, given as URL or as SQLite file."""
    try:
        return DatabaseSettings(url=text if "://" in text else f"sqlite+aiosqlite:///{_absolute(text)}").url
    except ValidationError as error:
        fault = str(error.errors(include_url=False)[0].get("ctx", {}).get("error", "a database's URL"))
        msg = f"{text.partition('://')[0]}://… is not a database URL: it must be {fault}"
        raise ConfigError(msg) from None


def _absolute(path: str) -> str:
    return os.path.abspath(os.path.expanduser(path))


@contextmanager
def _alone(url: str) -> Iterator[None]:
    """Lock out other writers of an SQLite database; a PostgreSQL one is read in one snapshot."""
    file = database_file(url)
    with writer_lock(file, "db copy") if file else nullcontext():
        yield
