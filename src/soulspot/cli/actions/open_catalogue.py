"""Opens the catalogue for a command that reads, and finds the file that the user names."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from soulspot.cli.output import logs
from soulspot.cli.output.text import printable
from soulspot.cli.rights import find_catalogue, get_settings
from soulspot.errors import NotFoundError
from soulspot.infrastructure.filesystem import path_to_text
from soulspot.infrastructure.persistence.database import Database
from soulspot.infrastructure.persistence.models import File
from soulspot.infrastructure.persistence.repositories import FileRepository
from soulspot.infrastructure.persistence.schema import require_current


async def find_file(database: Database, asked: str) -> File:
    """Return the file with this path or id, or the file of the track with this id."""
    files = FileRepository(database.session)
    if "/" not in asked and (file := await files.with_id(asked)) is not None:
        return file
    path = path_to_text(str(Path(asked).absolute()))
    if found := await files.at(path):
        return found[0]
    msg = f"the catalogue has no file {printable(path)}: see `soulspot tracks` and `soulspot failures list`"
    raise NotFoundError(msg)


@asynccontextmanager
async def open_catalogue(config: Path | None) -> AsyncIterator[tuple[Database, str]]:
    """Open the existing catalogue for reading; yield it and its URL."""
    settings = get_settings(config_file=config)
    logs.set_up(settings.log.level, settings.log.format)
    url = find_catalogue(settings)
    async with Database(url, read_only=True) as database:
        await require_current(database)
        yield database, url
