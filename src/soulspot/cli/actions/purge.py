"""The command that forgets: files that have been missing for long, with their tracks."""

import asyncio
import socket
from collections.abc import Iterable
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path

import typer

from soulspot.cli.output import logs
from soulspot.cli.output.text import local_time, printable
from soulspot.cli.rights import find_catalogue, get_settings
from soulspot.config import Settings
from soulspot.config.paths import database_file
from soulspot.infrastructure.persistence.database import Database
from soulspot.infrastructure.persistence.identity import new_id
from soulspot.infrastructure.persistence.models import File
from soulspot.infrastructure.persistence.records import Place
from soulspot.infrastructure.persistence.repositories import FileRepository
from soulspot.infrastructure.persistence.schema import require_current
from soulspot.infrastructure.persistence.sqlite.lock_file import writer_lock
from soulspot.ingest.catalogue.service import IngestService
from soulspot.ingest.retry import patiently


def purge(config: Path | None, *, older_than: timedelta, dry_run: bool, confirmed: int | None) -> None:
    settings = get_settings(config_file=config)
    logs.set_up(settings.log.level, settings.log.format)
    if not asyncio.run(_purge(settings, older_than, dry_run=dry_run, confirmed=confirmed)):
        raise typer.Exit(1)


async def _purge(settings: Settings, older_than: timedelta, *, dry_run: bool, confirmed: int | None) -> bool:
    """Return whether it was done, or there was nothing to do."""
    url, before = find_catalogue(settings), datetime.now(UTC) - older_than
    file = database_file(url)
    wants_to_write = confirmed is not None and not dry_run
    with writer_lock(file, "purge") if file and wants_to_write else nullcontext():
        async with Database(url, synchronous=settings.database.synchronous, read_only=not wants_to_write) as database:
            await require_current(database)
            files = FileRepository(database.session)
            rows = await files.missing_since(before)
            if not wants_to_write or confirmed != len(rows):
                _list(rows if dry_run else ())
                return _tell(len(rows), dry_run=dry_run, confirmed=confirmed)
            run, node = new_id(), socket.gethostname()
            async with database.owning(places_of(rows), "purge", node=node, run=run):
                rows = await files.missing_since(before)  # a watcher that has just ended may have found some of them
                if confirmed != len(rows):
                    return _tell(len(rows), dry_run=dry_run, confirmed=confirmed)
                service = IngestService(database, run=run, node=node)
                for row in rows:
                    await patiently(service.purge, row)
    print(f"removed {len(rows)} files that were missing, with their tracks")
    return True


def places_of(rows: Iterable[File]) -> set[Place]:
    """Return the watched folders that files are in; each may be another machine's."""
    return {Place(row.folder.node, row.folder.path) for row in rows}


def _list(rows: Iterable[File]) -> None:
    for row in rows:
        assert row.missing_since is not None
        print(f"missing since {local_time(row.missing_since)}\t{printable(f'{row.folder.path}/{row.path}')}")


def _tell(count: int, *, dry_run: bool, confirmed: int | None) -> bool:
    if count == 0 and not confirmed:
        print("nothing has been missing for that long")
        return True
    if confirmed is not None and confirmed != count:
        print(f"nothing was removed: {count} files have been missing for that long, and --yes said {confirmed}")
        return False
    print(f"{count} files with their tracks would be removed for good: to do it, say --yes {count}")
    return dry_run
