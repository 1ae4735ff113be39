"""A catalogue that is given tags as if files had been read: for what becomes of tags, without a file for each."""

import json
from typing import Any

import pytest
from sqlalchemy import text

from soulspot.infrastructure.filesystem import Signature
from soulspot.infrastructure.persistence.database import Database
from soulspot.infrastructure.persistence.records import Known
from soulspot.infrastructure.persistence.repositories import FileRepository
from soulspot.infrastructure.tags import TrackTags
from soulspot.ingest.catalogue.service import IngestService
from soulspot.ingest.disk.walker import FoundFile, Root
from soulspot.ingest.outcome import Outcome

FIRST, SECOND = "7cf0ea9d-86b9-4dad-ba9e-2355a64899ea", "664c3e0e-42d8-48c1-b209-1efca19c0325"


DATABASES = ["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)]
"""The parameters of what runs on each of the databases."""


class Catalogue:
    """A catalogue that is given tags as if files had been read."""

    def __init__(self, database: Database, service: IngestService, root: Root) -> None:
        self.database, self.service, self.root = database, service, root
        self._moments = 0

    def found(self, path: str) -> FoundFile:
        self._moments += 1
        return FoundFile(self.root, path, Signature(1, self._moments, 3, hash(path) % 1000))

    async def put(self, path: str, artist: str = "", **tags: Any) -> Outcome:
        """Write what a file's tags say, as a new file or as one that has changed."""
        given = {"artist": artist, "artists": (artist,)} if artist else {}
        return await self.service.ingest(
            self.found(path), TrackTags(**{"title": path, **given, **tags}), await self.known(path)
        )

    async def move(self, path: str, to: str) -> Outcome:
        origin = await self.known(path)
        assert origin is not None
        return await self.service.move(self.found(to), origin, None)

    async def known(self, path: str) -> Known | None:
        return (await FileRepository(self.database.session).known_at(self.root.id, [path])).get(path)

    async def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Return what a query finds; JSON is text, as SQLite has it."""
        async with self.database.session() as session:
            return [tuple(map(plain, row)) for row in await session.execute(text(query))]

    async def artists(self) -> list[tuple[Any, ...]]:
        return await self.rows("SELECT name, musicbrainz_id FROM artists ORDER BY created_at, id")

    async def credited(self, path: str) -> list[tuple[Any, ...]]:
        """Return role, artist's name, artist's id and credited name of a file's credits."""
        return await self.rows(
            "SELECT c.role, a.name, a.musicbrainz_id, c.credited_as FROM track_artists c"
            " JOIN artists a ON a.id = c.artist_id JOIN files f ON f.track_id = c.track_id"
            f" WHERE f.path = '{path}' ORDER BY c.role, c.position"
        )

    async def albums(self) -> dict[str, list[str]]:
        """Return the paths of the files on each album, by its title and date."""
        found: dict[str, list[str]] = {}
        query = "SELECT l.title, l.date, f.path FROM files f JOIN tracks t ON t.id = f.track_id JOIN albums l"
        for title, date, path in await self.rows(f"{query} ON l.id = t.album_id ORDER BY l.created_at, l.id, f.path"):
            found.setdefault(f"{title} {date or ''}".strip(), []).append(path)
        return found

    async def changes(self, action: str) -> list[dict[str, Any]]:
        query = f"SELECT changes FROM audit_log WHERE action = '{action}' ORDER BY sequence"
        return [json.loads(changes) for (changes,) in await self.rows(query)]

    async def actions(self) -> list[str]:
        return [action for (action,) in await self.rows("SELECT action FROM audit_log ORDER BY sequence")]


def plain(value: Any) -> Any:
    """Return a value with JSON as text, as SQLite has it."""
    is_json = isinstance(value, dict | list)
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")) if is_json else value
