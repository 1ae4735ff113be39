"""`soulspot db`: the schema, backups and integrity of the catalogue's database."""

import asyncio
import errno
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from datetime import timedelta
from pathlib import Path

import typer

from soulspot.cli.output import logs
from soulspot.cli.output.text import print_json
from soulspot.cli.rights import find_catalogue, get_settings
from soulspot.config import Settings
from soulspot.config.paths import database_file
from soulspot.errors import CatalogueError, ConfigError
from soulspot.infrastructure.persistence import backup, schema
from soulspot.infrastructure.persistence.database import Database
from soulspot.infrastructure.persistence.identity import new_id
from soulspot.infrastructure.persistence.queries import integrity
from soulspot.infrastructure.persistence.sqlite.lock_file import writer_lock
from soulspot.infrastructure.private_files import make_folder
from soulspot.infrastructure.privileges import acting_as
from soulspot.ingest.catalogue.audit_retention import Retention


def upgrade(config: Path | None) -> None:
    settings = _settings(config)
    with _alone(settings, "db upgrade"):
        before, now = asyncio.run(_changed(settings, schema.bring_up_to_date))
    print(f"the schema is {now}" + (", unchanged" if before == now else f"; it was {before or 'none'}"))


def downgrade(revision: str, config: Path | None) -> None:
    settings = _settings(config)
    with _alone(settings, "db downgrade"):
        before, now = asyncio.run(_changed(settings, lambda database: schema.downgrade(database, revision)))
    print(f"the schema is {now or 'none'}; it was {before or 'none'}")


def current(config: Path | None, *, as_json: bool) -> None:
    async def ask() -> str | None:
        async with _open_catalogue(config) as database:
            return await schema.current_revision(database)

    found = asyncio.run(ask())
    if as_json:
        print_json({"revision": found, "needed": schema.REVISION, "is_current": found == schema.REVISION})
    else:
        state = "current" if found == schema.REVISION else f"this soulspot needs {schema.REVISION}"
        print(f"schema {found or 'none'}: {state}")


def check(config: Path | None, *, as_json: bool) -> None:
    async def ask() -> list[str]:
        async with _open_catalogue(config) as database:
            return await integrity.faults(database)

    found = asyncio.run(ask())
    if as_json:
        print_json({"is_sound": not found, "faults": found})
    else:
        print("\n".join(found) or "no faults found")
    if found:
        raise typer.Exit(1)


def back_up(folder: Path | None, keep: int, config: Path | None) -> None:
    settings = _settings(config)
    url = find_catalogue(settings)
    file = _sqlite_file(url, "pg_dump")
    target = folder.absolute() if folder is not None else file.parent / "backups"

    async def copy() -> Path:
        async with Database(url, read_only=True) as database:
            return await backup.copy(database, backup.backup_place(file, target))

    try:
        if not target.is_dir():
            make_folder(target)
        if not os.access(target, os.W_OK | os.X_OK, effective_ids=True):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(target))
    except OSError as error:
        msg = f"cannot create the backup folder {target}{_as_owner()} ({error.strerror}): name another with --to"
        raise CatalogueError(msg) from error
    made = asyncio.run(copy())
    deleted = backup.keep_newest(backup.backups(file, target), keep)
    print(f"{made} ({made.stat().st_size} bytes, checked)" + (f"; {len(deleted)} older deleted" if deleted else ""))


def _as_owner() -> str:
    return f" as {acting_as()} (root acts as the owner of the catalogue)" if acting_as() else ""


def restore(source: Path | None, config: Path | None) -> None:
    settings = _settings(config)
    file = _sqlite_file(settings.database.url, "pg_restore")
    if source is None:
        _print_backups(file)
        return
    with _alone(settings, "db restore"):
        copied, revision = asyncio.run(_checked_copy(source.absolute(), file))
        kept = backup.put_in_place(copied, file)
    print(f"restored {source} to {file}; the next scan finds what has changed since")
    if revision != schema.REVISION:
        how = "the next start upgrades it" if settings.database.upgrade else "upgrade it with `soulspot db upgrade`"
        print(
            f"its schema {revision} is older than this soulspot needs ({schema.REVISION}): {how};"
            " to keep the old schema, install the older soulspot before you start one"
        )
    if kept is not None:
        print(f"the catalogue from before is kept at {kept}")


def vacuum(config: Path | None) -> None:
    settings = _settings(config)
    file = _sqlite_file(settings.database.url, "VACUUM ANALYZE in psql")

    async def act(database: Database) -> None:
        await schema.require_current(database)
        await database.backend.vacuum()

    with _alone(settings, "db vacuum"):
        before = file.stat().st_size if file.exists() else 0
        asyncio.run(_changed(settings, act))
    print(f"{file}: {before} bytes before, {file.stat().st_size} after")


def trim(config: Path | None, *, older_than: timedelta | None, dry_run: bool) -> None:
    settings = _settings(config)
    keep = older_than if older_than is not None else timedelta(days=settings.audit.keep_days)
    if older_than is None and not keep:
        msg = "nothing to trim: the settings keep the history forever; pass --older-than 365d or set audit.keep_days"
        raise ConfigError(msg)
    count = asyncio.run(_trim(settings, keep, dry_run=dry_run))
    print(f"{count} entries of the history {'would be' if dry_run else 'were'} removed")


async def _trim(settings: Settings, keep: timedelta, *, dry_run: bool) -> int:
    url = find_catalogue(settings)
    with nullcontext() if dry_run else _alone(settings, "db trim"):
        async with Database(url, synchronous=settings.database.synchronous, read_only=dry_run) as database:
            await schema.require_current(database)
            retention = Retention(database, keep=keep, run=new_id())
            return await (retention.count() if dry_run else retention.trim())


def partition(rows: int, config: Path | None, *, undo: bool) -> None:
    settings = _settings(config)
    if database_file(settings.database.url) is not None:
        msg = "`db partition` needs PostgreSQL; for SQLite, `soulspot db vacuum` reclaims free space"
        raise CatalogueError(msg)
    from soulspot.infrastructure.persistence.postgresql import partitions

    async def act() -> list[partitions.Part] | bool:
        async with Database(settings.database.url, read_only=True) as database:
            await schema.require_current(database)
            return await (partitions.unite(database.url) if undo else partitions.partition(database.url, rows))

    made = asyncio.run(act())
    if isinstance(made, list):
        for part in made:
            print(f"{part.table}: {_range(part.first, part.before)}, about {part.rows:,} entries")
    else:
        print("the history is one table" + (" again" if made else " already"))


def _range(first: int | None, before: int | None) -> str:
    if before is None:
        return "everything beyond"
    return f"before {before:,}" if first is None else f"{first:,} to {before - 1:,}"


async def _changed(settings: Settings, act: Callable[[Database], Awaitable[None]]) -> tuple[str | None, str | None]:
    async with Database(settings.database.url, synchronous=settings.database.synchronous) as database:
        before = await schema.current_revision(database)
        await act(database)
        return before, await schema.current_revision(database)


async def _checked_copy(source: Path, file: Path) -> tuple[Path, str]:
    """Check a backup and copy it beside the catalogue; return the copy and its schema revision."""
    try:
        if is_file := source.is_file():
            os.close(os.open(source, os.O_RDONLY | os.O_NONBLOCK))
    except PermissionError as error:
        msg = f"cannot read {source}{_as_owner()}: copy it to a readable folder, and restore it from there"
        raise CatalogueError(msg) from error
    if not is_file:
        msg = f"there is no backup at {source}: `soulspot db restore` without a file lists the backups"
        raise CatalogueError(msg)
    async with Database(f"sqlite+aiosqlite:///{source.as_posix().replace('%', '%25')}", read_only=True) as database:
        if (revision := await schema.current_revision(database)) is None:
            msg = f"{source} is empty: it is not a backup of a catalogue"
            raise CatalogueError(msg)
        if faults := await integrity.damage(database):
            msg = f"{source} is damaged ({faults[0]}): restore another backup"
            raise CatalogueError(msg)
        schema.require_known(database, revision)
        return await backup.copy(database, file.with_name(file.name + ".restoring")), revision


def _print_backups(file: Path) -> None:
    found = [*backup.backups(file, file.parent / "backups"), *backup.backups(file, Path("/var/backups/soulspot"))]
    found += sorted(file.parent.glob(f"{file.name}.before-*[0-9Z]")) + sorted(
        file.parent.glob(f"{file.name}.rescued-*Z")
    )
    if not found:
        msg = f"there is no backup of {file} in the usual places: name one, as in `soulspot db restore FILE`"
        raise CatalogueError(msg)
    for copy in found:
        print(copy)


@asynccontextmanager
async def _open_catalogue(config: Path | None) -> AsyncIterator[Database]:
    async with Database(find_catalogue(_settings(config)), read_only=True) as database:
        yield database


def _settings(config: Path | None) -> Settings:
    settings = get_settings(config_file=config)
    logs.set_up(settings.log.level, settings.log.format)
    return settings


def _alone(settings: Settings, command: str) -> AbstractContextManager[None]:
    file = database_file(settings.database.url)
    return writer_lock(file, command) if file else nullcontext()


def _sqlite_file(url: str, instead: str) -> Path:
    file = database_file(url)
    if file is None:
        msg = f"this command needs SQLite; for PostgreSQL, use {instead}"
        raise CatalogueError(msg)
    return file
