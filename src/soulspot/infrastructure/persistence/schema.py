"""The schema's version: looked up at each start, brought up to date by alembic, never guessed.

`REVISION` is what this program was written for. Where the database says the same, alembic is not even imported.
"""

import asyncio
import logging
import os
import sqlite3
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import inspect, text
from sqlalchemy.exc import DatabaseError

from soulspot.errors import CatalogueError, UnreachableError
from soulspot.infrastructure.persistence.database import is_environment_fault

if TYPE_CHECKING:
    from alembic.config import Config
    from sqlalchemy import Connection

    from soulspot.infrastructure.persistence.database import Database

REVISION = "c6bee394dd21"
"""The newest migration; a test holds it equal to alembic's head."""

logger = logging.getLogger(__name__)


async def bring_up_to_date(database: "Database", *, allowed: bool = True) -> None:
    """Make the database's schema the one that this program needs, after copying an SQLite file that holds data.

    Raises CatalogueError when the schema is newer than this program or foreign, when it is older and `allowed` is
    false, and when the database cannot be opened.
    """
    revision = await current_revision(database)
    if revision == REVISION:
        return
    config = _alembic_config(database)
    if revision is not None and revision not in _known_revisions(config):
        msg = (
            f"{_name(database)} was made by a newer soulspot (schema {revision}, this one knows up to {REVISION}): "
            f"install that version, or restore a copy from before its upgrade"
        )
        raise CatalogueError(msg)
    if not allowed:
        msg = (
            f"{_name(database)} has schema {revision or 'none'} and this soulspot needs {REVISION}: "
            f"set SOULSPOT_DATABASE__UPGRADE=true, or run `alembic upgrade head` yourself"
        )
        raise CatalogueError(msg)
    if revision is not None and database.is_sqlite:
        copy = await asyncio.to_thread(_copy_sqlite, Path(str(database.url.database)), revision)
        logger.warning("the schema is upgraded from %s to %s; a copy from before is %s", revision, REVISION, copy)
    await asyncio.to_thread(_upgrade, config)


async def require_current(database: "Database") -> None:
    """Raise CatalogueError unless the schema is the one that this program reads."""
    revision = await current_revision(database)
    if revision != REVISION:
        msg = (
            f"{_name(database)} has schema {revision or 'none'} and this soulspot reads {REVISION}: "
            f"`soulspot scan` or `soulspot watch` brings it up to date"
        )
        raise CatalogueError(msg)


async def current_revision(database: "Database") -> str | None:
    """Return the revision that the database says it has, None where it is empty."""
    try:
        async with database.session() as session:
            connection = await session.connection()
            tables = set(await connection.run_sync(_table_names))
            if "alembic_version" not in tables:
                if tables:
                    msg = f"{_name(database)} holds other tables and no soulspot catalogue: give another database.url"
                    raise CatalogueError(msg)
                return None
            return (await session.execute(text("SELECT version_num FROM alembic_version"))).scalar()
    except DatabaseError as error:
        if not database.is_sqlite and is_environment_fault(error):
            msg = f"{_name(database)} cannot be reached: {error.orig}"
            raise UnreachableError(msg) from error
        msg = f"{_name(database)} cannot be opened as a catalogue: {error.orig}; it was left as it is"
        raise CatalogueError(msg) from error
    except UnreachableError as error:
        msg = f"{_name(database)} cannot be reached: {error}"
        raise UnreachableError(msg) from error


def migrations_folder() -> Path:
    """Return where the migrations are: inside the installed package, or at the top of a checkout."""
    packaged = Path(__file__).with_name("migrations")
    return packaged if packaged.is_dir() else Path(__file__).parents[4] / "alembic"


def _table_names(connection: "Connection") -> list[str]:
    return inspect(connection).get_table_names()


def _name(database: "Database") -> str:
    return str(database.url.database) if database.is_sqlite else database.url.render_as_string(hide_password=True)


def _alembic_config(database: "Database") -> "Config":
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(migrations_folder()).replace("%", "%%"))
    config.attributes["url"] = database.url.render_as_string(hide_password=False)
    return config


def _known_revisions(config: "Config") -> set[str]:
    from alembic.script import ScriptDirectory

    return {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}


def _upgrade(config: "Config") -> None:
    from alembic import command

    command.upgrade(config, "head")


def _copy_sqlite(file: Path, revision: str) -> Path:
    """Copy a database through SQLite's backup API, checked and on disk before its name appears; blocks."""
    moment = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    target = file.with_name(f"{file.name}.before-upgrade-{revision}-{moment}")
    partial = target.with_name(target.name + ".part")
    partial.unlink(missing_ok=True)
    os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    source, copy = sqlite3.connect(file), sqlite3.connect(partial)
    try:
        source.backup(copy)
        verdict = copy.execute("PRAGMA quick_check").fetchone()[0]
    finally:
        copy.close()
        source.close()
    if verdict != "ok":
        msg = f"{file} is damaged ({verdict}), so it is not upgraded: restore a copy; {partial} is what could be read"
        raise CatalogueError(msg)
    descriptor = os.open(partial, os.O_RDWR)
    os.fsync(descriptor)
    os.close(descriptor)
    partial.rename(target)
    return target
