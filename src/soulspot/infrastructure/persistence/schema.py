"""The schema's version: looked up at each start, brought up to date by alembic, never guessed.

`REVISION` is what this program was written for. Where the database says the same, alembic is not even imported.
"""

import asyncio
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from sqlalchemy import inspect, text
from sqlalchemy.exc import DatabaseError, DBAPIError

from soulspot.errors import CatalogueError, UnreachableError
from soulspot.infrastructure.persistence import backup
from soulspot.infrastructure.persistence.faults import is_environment_fault, is_refused

if TYPE_CHECKING:
    from alembic.config import Config
    from sqlalchemy import Connection

    from soulspot.infrastructure.persistence.database import Database

REVISION = "5d0c3b9a7e42"
"""The newest migration; a test holds it equal to alembic's head."""

logger = logging.getLogger(__name__)


async def bring_up_to_date(database: "Database", *, allowed: bool = True) -> None:
    """Make the database's schema the one that this program needs, after copying an SQLite file that holds data.

    Raises CatalogueError when the schema is newer than this program or foreign, when it is older and `allowed` is
    false, when the upgrade fails, and when the database cannot be opened; LockHeldError when others write what has to
    be changed; and what the database says where it refuses for a reason that passes.
    """
    revision = await current_revision(database)
    if revision == REVISION:
        return
    config = _alembic_config(database)
    if revision is not None:
        require_known(database, revision)
    if not allowed:
        msg = (
            f"{database.name} has schema {revision or 'none'} and this soulspot needs {REVISION}: "
            f"set SOULSPOT_DATABASE__UPGRADE=true, or run `soulspot db upgrade` yourself"
        )
        raise CatalogueError(msg)
    async with database.lock_catalogue("db upgrade"):
        if is_unchanged := await current_revision(database) == revision:
            await _upgrade(database, config, revision)
    if not is_unchanged:  # by whom was waited for
        await bring_up_to_date(database)


async def downgrade(database: "Database", revision: str) -> None:
    """Take the schema back to a revision, or "-1" for one step, after copying an SQLite file.

    Raises CatalogueError when there is no such revision below the one that it has.
    """
    from alembic.util import CommandError

    async with database.lock_catalogue("db downgrade"):
        before = await current_revision(database)
        copied = await _copy_first(database, before)
        try:
            await asyncio.to_thread(_migrate, _alembic_config(database), "downgrade", revision)
        except CommandError as error:
            msg = f"{database.name} has schema {before or 'none'}, which cannot be taken back to {revision}: {error}"
            raise CatalogueError(msg) from error
        logger.warning(
            "the schema is taken back from %s to %s%s", before, await current_revision(database), _told(copied)
        )


def require_known(database: "Database", revision: str) -> None:
    """Raise CatalogueError when a schema is newer than this program."""
    if revision != REVISION and revision not in _known_revisions(_alembic_config(database)):
        msg = (
            f"{database.name} was made by a newer soulspot (schema {revision}, this one knows up to {REVISION}): "
            f"install that version, or restore a copy from before its upgrade"
        )
        raise CatalogueError(msg)


async def require_current(database: "Database") -> None:
    """Raise CatalogueError unless the schema is the one that this program reads."""
    revision = await current_revision(database)
    if revision != REVISION:
        msg = (
            f"{database.name} has schema {revision or 'none'} and this soulspot reads {REVISION}: "
            f"`soulspot db upgrade`, `scan` or `watch` brings it up to date"
        )
        raise CatalogueError(msg)


async def current_revision(database: "Database") -> str | None:
    """Return the revision that the database says it has, None where it is empty or not there yet."""
    if (file := database.backend.file) is not None and not file.exists():
        return None
    try:
        async with database.session() as session:
            connection = await session.connection()
            tables = set(await connection.run_sync(_table_names))
            if "alembic_version" not in tables:
                if tables:
                    msg = f"{database.name} holds other tables and no soulspot catalogue: give another database.url"
                    raise CatalogueError(msg)
                return None
            return (await session.execute(text("SELECT version_num FROM alembic_version"))).scalar()
    except DatabaseError as error:
        if is_environment_fault(error) and not is_refused(error):
            msg = f"{database.name} cannot be reached: {error.orig}"
            raise UnreachableError(msg) from error
        if (fault := await database.backend.why_unreadable()) is not None:
            msg = f"{database.name} cannot be reached: {fault}"
            raise UnreachableError(msg) from error
        msg = (
            f"{database.name} cannot be opened as a catalogue ({error.orig}) and was left as it is: "
            f"`soulspot doctor` examines it, `soulspot db restore` puts a backup in its place"
        )
        raise CatalogueError(msg) from error
    except UnreachableError as error:
        msg = f"{database.name} cannot be reached: {error}"
        raise UnreachableError(msg) from error


def migrations_folder() -> Path:
    """Return where the migrations are: inside the installed package, or at the top of a checkout."""
    packaged = Path(__file__).with_name("migrations")
    return packaged if packaged.is_dir() else Path(__file__).parents[4] / "alembic"


def _table_names(connection: "Connection") -> list[str]:
    return inspect(connection).get_table_names()


def _alembic_config(database: "Database") -> "Config":
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(migrations_folder()).replace("%", "%%"))
    config.attributes["url"] = database.url.render_as_string(hide_password=False)
    return config


def _known_revisions(config: "Config") -> set[str]:
    from alembic.script import ScriptDirectory

    return {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}


async def _upgrade(database: "Database", config: "Config", revision: str | None) -> None:
    copied = await _copy_first(database, revision)
    if revision is not None:
        logger.warning("the schema is upgraded from %s to %s%s", revision, REVISION, _told(copied))
    try:
        await asyncio.to_thread(_migrate, config, "upgrade", "head")
    except DBAPIError as error:
        # Each step is one transaction: what could not be done has left nothing behind.
        if is_environment_fault(error) and database.backend.retries_upgrade:
            if copied is not None and await current_revision(database) == revision:
                copied.unlink()  # it is tried again, with another copy: a full disk is not to be filled with them
            raise
        if is_environment_fault(error):
            msg = f"{database.name} could not be upgraded to schema {REVISION} ({str(error.orig).strip()})"
            raise UnreachableError(msg) from error
        msg = (
            f"{database.name} could not be upgraded to schema {REVISION} ({str(error.orig).strip()}) and has schema "
            f"{await current_revision(database) or 'none'}; nothing in it is lost{_told(copied)}: mend that, then start"
            " again"
        )
        raise CatalogueError(msg) from error


async def _copy_first(database: "Database", revision: str | None) -> Path | None:
    """Copy an SQLite file that holds a catalogue before its schema changes."""
    if (file := database.backend.file) is None or revision is None:
        return None
    return await backup.copy(database, backup.upgrade_place(file, revision))


def _told(copied: Path | None) -> str:
    return f"; a copy from before is {copied}" if copied is not None else ""


def _migrate(config: "Config", direction: Literal["upgrade", "downgrade"], revision: str) -> None:
    from alembic import command

    {"upgrade": command.upgrade, "downgrade": command.downgrade}[direction](config, revision)
