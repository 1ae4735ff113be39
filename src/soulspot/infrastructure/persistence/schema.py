"""The schema's version: checked at each start, upgraded by alembic, never guessed.

`REVISION` is the version that this program needs. If the database has it, alembic is not even imported.
"""

import asyncio
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import inspect, text
from sqlalchemy.exc import DatabaseError, DBAPIError

from soulspot.errors import CatalogueError, UnreachableError
from soulspot.infrastructure.persistence import backup
from soulspot.infrastructure.persistence.database import Database
from soulspot.infrastructure.persistence.faults import is_environment_fault, is_refused

if TYPE_CHECKING:
    from alembic.config import Config

REVISION = "5d0c3b9a7e42"
"""The newest migration; a test keeps it equal to alembic's head."""

logger = logging.getLogger(__name__)


async def bring_up_to_date(database: Database, *, allowed: bool = True) -> None:
    """Upgrade the schema to the one that this program needs, after copying an SQLite file that holds data.

    Raises CatalogueError if the schema is newer than this program or foreign, if it is older and `allowed` is false, if
    the upgrade fails, and if the database cannot be opened; LockHeldError if other processes write the catalogue; and
    the database's own error if that is transient and the backend retries upgrades.
    """
    revision = await current_revision(database)
    if revision == REVISION:
        return
    if revision is not None:
        require_known(database, revision)
    if not allowed:
        raise CatalogueError(
            f"{database.name} has schema {revision or 'none'} and this soulspot needs {REVISION}: "
            f"set SOULSPOT_DATABASE__UPGRADE=true, or run `soulspot db upgrade` yourself"
        )
    async with database.backend.lock_catalogue("db upgrade"):
        if is_unchanged := await current_revision(database) == revision:
            await _upgrade(database, revision)
    if not is_unchanged:  # another process upgraded it while this one waited for the lock
        await bring_up_to_date(database)


async def downgrade(database: Database, revision: str) -> None:
    """Downgrade the schema to a revision, or "-1" for one step, after copying an SQLite file.

    Raises CatalogueError if there is no such revision below the current one.
    """
    from alembic import command, util

    async with database.backend.lock_catalogue("db downgrade"):
        before = await current_revision(database)
        copied = await _copy_first(database, before)
        try:
            await asyncio.to_thread(command.downgrade, _alembic_config(database), revision)
        except util.CommandError as error:
            raise CatalogueError(
                f"{database.name} has schema {before or 'none'}, which cannot be downgraded to {revision}: {error}"
            ) from error
        after = await current_revision(database)
        logger.warning("downgraded the schema from %s to %s%s", before, after, _copy_note(copied))


def require_known(database: Database, revision: str) -> None:
    """Raise CatalogueError if a schema is newer than this program."""
    if revision != REVISION and revision not in _known_revisions(database):
        raise CatalogueError(
            f"{database.name} was made by a newer soulspot (schema {revision}, this one knows up to {REVISION}): "
            f"install that version, or restore a copy from before its upgrade"
        )


async def require_current(database: Database) -> None:
    """Raise CatalogueError unless the schema is the one that this program reads."""
    revision = await current_revision(database)
    if revision != REVISION:
        raise CatalogueError(
            f"{database.name} has schema {revision or 'none'} and this soulspot reads {REVISION}: "
            f"`soulspot db upgrade`, `scan` or `watch` brings it up to date"
        )


async def current_revision(database: Database) -> str | None:
    """Return the revision that the database records, None if it is empty or does not exist."""
    if (file := database.backend.file) is not None and not file.exists():
        return None
    try:
        async with database.session() as session:
            connection = await session.connection()
            tables = await connection.run_sync(lambda sync: inspect(sync).get_table_names())
            if "alembic_version" in tables:
                return (await session.execute(text("SELECT version_num FROM alembic_version"))).scalar()
            if tables:
                raise CatalogueError(
                    f"{database.name} holds other tables and no soulspot catalogue: give another database.url"
                )
            return None
    except DatabaseError as error:
        is_transient = is_environment_fault(error) and not is_refused(error)
        if fault := error.orig if is_transient else await database.backend.why_unreadable():
            raise UnreachableError(f"{database.name} cannot be reached: {fault}") from error
        raise CatalogueError(
            f"{database.name} cannot be opened as a catalogue ({error.orig}) and was left as it is: "
            f"`soulspot doctor` examines it, `soulspot db restore` puts a backup in its place"
        ) from error
    except UnreachableError as error:
        raise UnreachableError(f"{database.name} cannot be reached: {error}") from error


def migrations_folder() -> Path:
    """Return the folder of the migrations: inside the installed package, or at the top of a checkout."""
    packaged = Path(__file__).with_name("migrations")
    return packaged if packaged.is_dir() else Path(__file__).parents[4] / "alembic"


def _alembic_config(database: Database) -> "Config":
    from alembic.config import Config

    config = Config(attributes={"url": database.url.render_as_string(hide_password=False)})
    config.set_main_option("script_location", str(migrations_folder()).replace("%", "%%"))
    return config


def _known_revisions(database: Database) -> set[str]:
    from alembic.script import ScriptDirectory

    return {script.revision for script in ScriptDirectory.from_config(_alembic_config(database)).walk_revisions()}


async def _upgrade(database: Database, revision: str | None) -> None:
    from alembic import command

    copied = await _copy_first(database, revision)
    if revision is not None:
        logger.warning("upgrading the schema from %s to %s%s", revision, REVISION, _copy_note(copied))
    try:
        await asyncio.to_thread(command.upgrade, _alembic_config(database), "head")
    except DBAPIError as error:
        # Each step is one transaction: a step that failed has changed nothing.
        failure = f"{database.name} could not be upgraded to schema {REVISION} ({str(error.orig).strip()})"
        if not is_environment_fault(error):
            raise CatalogueError(
                f"{failure} and has schema {await current_revision(database) or 'none'}; nothing in it is lost"
                f"{_copy_note(copied)}: fix that, then start again"
            ) from error
        if not database.backend.retries_upgrade:
            raise UnreachableError(failure) from error
        if copied is not None and await current_revision(database) == revision:
            copied.unlink()  # the retry makes another copy: they must not fill the disk
        raise


async def _copy_first(database: Database, revision: str | None) -> Path | None:
    """Copy an SQLite file that holds a catalogue before its schema changes."""
    if (file := database.backend.file) is None or revision is None:
        return None
    return await backup.copy(database, backup.upgrade_place(file, revision))


def _copy_note(copied: Path | None) -> str:
    return f"; a copy from before is {copied}" if copied is not None else ""
