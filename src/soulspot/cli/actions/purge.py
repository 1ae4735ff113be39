"""`soulspot purge`: removes long-missing files and their tracks from the catalogue."""

import asyncio
import socket
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import typer

from soulspot.cli.actions.open_catalogue import configure, open_for_writing
from soulspot.cli.output.text import local_time, printable
from soulspot.cli.rights import find_catalogue
from soulspot.config import Settings
from soulspot.infrastructure.persistence.identity import new_id
from soulspot.infrastructure.persistence.models import File
from soulspot.infrastructure.persistence.records import FolderKey
from soulspot.infrastructure.persistence.repositories import FileRepository
from soulspot.ingest.catalogue.service import IngestService
from soulspot.ingest.database_retry import retry_database


def purge(config: Path | None, *, older_than: timedelta, dry_run: bool, confirmed: int | None) -> None:
    purging = _purge(configure(config), datetime.now(UTC) - older_than, dry_run=dry_run, confirmed=confirmed)
    if not asyncio.run(purging):
        raise typer.Exit(1)


async def _purge(settings: Settings, before: datetime, *, dry_run: bool, confirmed: int | None) -> bool:
    """Return whether it is done or there was nothing to do."""
    is_reading = confirmed is None or dry_run
    async with open_for_writing(settings, find_catalogue(settings), "purge", read_only=is_reading) as database:
        files = FileRepository(database.session)
        rows = await files.missing_since(before)
        if is_reading or confirmed != len(rows):
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
