"""`soulspot purge`: removes long-missing files and their tracks from the catalogue."""

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
from soulspot.infrastructure.persistence.records import FolderKey
from soulspot.infrastructure.persistence.repositories import FileRepository
from soulspot.infrastructure.persistence.schema import require_current
from soulspot.infrastructure.persistence.sqlite.lock_file import writer_lock
from soulspot.ingest.catalogue.service import IngestService
from soulspot.ingest.retry import retry_database


def purge(config: Path | None, *, older_than: timedelta, dry_run: bool, confirmed: int | None) -> None:
    settings = get_settings(config_file=config)
    logs.set_up(settings.log.level, settings.log.format)
    if not asyncio.run(_purge(settings, older_than, dry_run=dry_run, confirmed=confirmed)):
        raise typer.Exit(1)


async def _purge(settings: Settings, older_than: timedelta, *, dry_run: bool, confirmed: int | None) -> bool:
    """Return whether it is done or there was nothing to do."""
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
                return _report(len(rows), dry_run=dry_run, confirmed=confirmed)
            run, node = new_id(), socket.gethostname()
            async with database.backend.lock_folders(places_of(rows), "purge", node=node, run=run):
                rows = await files.missing_since(before)  # a daemon that has just stopped may have found some of them
                if confirmed != len(rows):
                    return _report(len(rows), dry_run=dry_run, confirmed=confirmed)
                service = IngestService(database, run=run)
                for row in rows:
                    await retry_database(service.purge, row)
    print(f"removed {len(rows)} missing files and their tracks")
    return True


def places_of(rows: Iterable[File]) -> set[FolderKey]:
    """Return the watched folders of these files; they may belong to several machines."""
    return {FolderKey(row.folder.node, row.folder.path) for row in rows}


def _list(rows: Iterable[File]) -> None:
    for row in rows:
        assert row.missing_since is not None
        print(f"missing since {local_time(row.missing_since)}\t{printable(row.full_path)}")


def _report(count: int, *, dry_run: bool, confirmed: int | None) -> bool:
    if count == 0 and not confirmed:
        print("no file has been missing for that long")
        return True
    if confirmed is not None and confirmed != count:
        print(f"nothing removed: {count} files have been missing for that long, but --yes says {confirmed}")
        return False
    print(f"this would permanently remove {count} files and their tracks: confirm with --yes {count}")
    return dry_run
