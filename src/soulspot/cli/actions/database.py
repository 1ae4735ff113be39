"""`soulspot db`: the schema, backups and integrity of the catalogue's database."""

import asyncio
import errno
import os
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path

import typer

from soulspot.cli.actions.open_catalogue import (
    configure,
    lock_out_writers,
    open_catalogue,
    open_for_writing,
    query_catalogue,
)
from soulspot.cli.output.text import print_json
from soulspot.cli.rights import find_catalogue
from soulspot.config import database_file
from soulspot.config.paths import sqlite_url
from soulspot.errors import CatalogueError, ConfigError
from soulspot.infrastructure.persistence import backup, schema
from soulspot.infrastructure.persistence.database import Database
from soulspot.infrastructure.persistence.identity import new_id
from soulspot.infrastructure.persistence.queries import integrity
from soulspot.infrastructure.private_files import make_folder
from soulspot.infrastructure.privileges import acting_as
from soulspot.ingest.catalogue.audit_retention import Retention


def upgrade(config: Path | None) -> None:
    before, now = _change_schema(config, "db upgrade", schema.bring_up_to_date)
    print(f"the schema is {now}" + (", unchanged" if before == now else f"; it was {before or 'none'}"))


def downgrade(revision: str, config: Path | None) -> None:
    before, now = _change_schema(config, "db downgrade", lambda database: schema.downgrade(database, revision))
    print(f"the schema is {now or 'none'}; it was {before or 'none'}")


def current(config: Path | None, *, as_json: bool) -> None:
    found = query_catalogue(config, schema.current_revision, any_schema=True)
    if as_json:
        print_json({"revision": found, "needed": schema.REVISION, "is_current": found == schema.REVISION})
    else:
        state = "current" if found == schema.REVISION else f"this soulspot needs {schema.REVISION}"
        print(f"schema {found or 'none'}: {state}")


def check(config: Path | None, *, as_json: bool) -> None:
    found = query_catalogue(config, integrity.faults, any_schema=True)
    if as_json:
        print_json({"is_sound": not found, "faults": found})
    else:
        print("\n".join(found) or "no faults found")
    if found:
        raise typer.Exit(1)


def back_up(folder: Path | None, keep: int, config: Path | None) -> None:
    file = _sqlite_file(find_catalogue(configure(config)), "pg_dump")
    target = folder.absolute() if folder is not None else file.parent / "backups"
    try:
        if not target.is_dir():
            make_folder(target)
        if not os.access(target, os.W_OK | os.X_OK, effective_ids=True):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(target))
    except OSError as error:
        raise CatalogueError(
            f"cannot write to the backup folder {target}{_as_owner()} ({error.strerror}): name another with --to"
        ) from error
    copied = query_catalogue(
        config, lambda database: backup.copy(database, backup.backup_place(file, target)), any_schema=True
    )
    deleted = backup.keep_newest(backup.backups(file, target), keep)
    print(f"{copied} ({copied.stat().st_size} bytes, checked)" + (f"; {len(deleted)} older deleted" if deleted else ""))


def _as_owner() -> str:
    return f" as {acting_as()} (root acts as the owner of the catalogue)" if acting_as() else ""


def restore(source: Path | None, config: Path | None) -> None:
    settings = configure(config)
    file = _sqlite_file(settings.database.url, "pg_restore")
    if source is None:
        _print_backups(file)
        return
    with lock_out_writers(settings.database.url, "db restore"):
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
    settings = configure(config)
    file = _sqlite_file(settings.database.url, "VACUUM ANALYZE in psql")

    async def act() -> int:
        async with open_for_writing(settings, settings.database.url, "db vacuum") as database:
            size = file.stat().st_size
            await database.backend.vacuum()
            return size

    before = asyncio.run(act())
    print(f"{file}: {before} bytes before, {file.stat().st_size} after")


def trim(config: Path | None, *, older_than: timedelta | None, dry_run: bool) -> None:
    settings = configure(config)
    keep = older_than if older_than is not None else timedelta(days=settings.audit.keep_days)
    if older_than is None and not keep:
        raise ConfigError(
            "nothing to trim: the settings keep the history forever; pass --older-than 365d or set audit.keep_days"
        )

    async def act() -> int:
        url = find_catalogue(settings)
        async with open_for_writing(settings, url, "db trim", read_only=dry_run) as database:
            retention = Retention(database, keep=keep, run=new_id())
            return await (retention.count() if dry_run else retention.trim())

    count = asyncio.run(act())
    print(f"{count} entries of the history {'would be' if dry_run else 'were'} removed")


def partition(rows: int, config: Path | None, *, undo: bool) -> None:
    settings = configure(config)
    if database_file(settings.database.url) is not None:
        raise CatalogueError("`db partition` needs PostgreSQL; for SQLite, `soulspot db vacuum` reclaims free space")
    from soulspot.infrastructure.persistence.postgresql import partitions

    async def act() -> list[partitions.Part] | bool:
        async with open_catalogue(settings) as database:
            return await (partitions.unite(database.url) if undo else partitions.partition(database.url, rows))

    result = asyncio.run(act())
    if isinstance(result, bool):
        print("the history is one table" + (" again" if result else " already"))
        return
    for part in result:
        print(f"{part.table}: {_range(part.first, part.before)}, about {part.rows:,} entries")


def _range(first: int | None, before: int | None) -> str:
    if before is None:
        return "everything beyond"
    return f"before {before:,}" if first is None else f"{first:,} to {before - 1:,}"


def _change_schema(
    config: Path | None, command: str, change: Callable[[Database], Awaitable[None]]
) -> tuple[str | None, str | None]:
    """Return the revision before and after a change."""
    settings = configure(config)
    url = settings.database.url

    async def act() -> tuple[str | None, str | None]:
        async with Database(url, synchronous=settings.database.synchronous) as database:
            before = await schema.current_revision(database)
            await change(database)
            return before, await schema.current_revision(database)

    with lock_out_writers(url, command):
        return asyncio.run(act())


async def _checked_copy(source: Path, file: Path) -> tuple[Path, str]:
    """Check a backup and copy it beside the catalogue; return the copy and its schema revision."""
    try:
        if is_file := source.is_file():
            os.close(os.open(source, os.O_RDONLY | os.O_NONBLOCK))
    except PermissionError as error:
        raise CatalogueError(
            f"cannot read {source}{_as_owner()}: copy it to a readable folder, and restore it from there"
        ) from error
    if not is_file:
        raise CatalogueError(f"there is no backup at {source}: `soulspot db restore` without a file lists the backups")
    async with Database(sqlite_url(source), read_only=True) as database:
        if (revision := await schema.current_revision(database)) is None:
            raise CatalogueError(f"{source} is empty: it is not a backup of a catalogue")
        if faults := await integrity.damage(database):
            raise CatalogueError(f"{source} is damaged ({faults[0]}): restore another backup")
        schema.require_known(database, revision)
        return await backup.copy(database, file.with_name(file.name + ".restoring")), revision


def _print_backups(file: Path) -> None:
    folder = file.parent
    found = [
        *backup.backups(file, folder / "backups"),
        *backup.backups(file, Path("/var/backups/soulspot")),
        *sorted(folder.glob(f"{file.name}.before-*[0-9Z]")),
        *sorted(folder.glob(f"{file.name}.rescued-*Z")),
    ]
    if not found:
        raise CatalogueError(
            f"there is no backup of {file} in the usual places: name one, as in `soulspot db restore FILE`"
        )
    print(*found, sep="\n")


def _sqlite_file(url: str, instead: str) -> Path:
    file = database_file(url)
    if file is None:
        raise CatalogueError(f"this command needs SQLite; for PostgreSQL, use {instead}")
    return file
