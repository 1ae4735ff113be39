"""How many round trips a file's transaction takes, and that batched statements store the right values."""

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import pytest
from sqlalchemy import event
from sqlalchemy.exc import IntegrityError
from tests.support.postgres_server import Server
from tests.support.tagged_catalogue import Catalogue

from soulspot.infrastructure.filesystem import FileSystem
from soulspot.infrastructure.persistence.database import Database
from soulspot.infrastructure.persistence.postgresql.backend import PostgresBackend
from soulspot.infrastructure.persistence.records import FolderKey
from soulspot.infrastructure.persistence.repositories import AuditRepository, FileRepository, FolderRepository
from soulspot.ingest.catalogue.folder_service import FolderService
from soulspot.ingest.catalogue.service import IngestService
from soulspot.ingest.disk.walker import Root

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from postgres import Proxy

pytestmark = pytest.mark.postgresql

HOSTILE = [
    "'; DROP TABLE tracks; --",
    "back\\slash' \\' \\\\",
    "{} {0} $1 %s :its_id",
    'quoted "name"',
    "\u2028 \u200bñ",
]


@dataclass
class Remote:
    """A catalogue on a server behind a proxy, which counts the messages."""

    catalogue: Catalogue
    proxy: Proxy
    url: str

    async def trips(self, act: Callable[[], Awaitable[object]]) -> int:
        before = self.proxy.sent
        await act()
        return self.proxy.sent - before


@pytest.fixture
async def remote(postgres_server: Server, postgres_catalogue: str) -> AsyncIterator[Remote]:
    proxy = await asyncio.to_thread(Proxy, postgres_server.port, 0.0)
    url = postgres_server.tcp_url(postgres_catalogue, proxy.port)
    async with Database(url, connections=1) as database:
        service = IngestService(database, run="run")
        folder = await FolderService(database, run="run", node="node").adopt_folder(
            "/music", FileSystem("ext4", "uuid", "/")
        )
        yield Remote(Catalogue(database, service, Root(folder.id, "/music")), proxy, url)


async def test_a_file_needs_few_round_trips(remote: Remote) -> None:
    put, move, service = remote.catalogue.put, remote.catalogue.move, remote.catalogue.service
    tags = {"album": "Album", "album_artist": "One"}
    for number in range(3):  # warm up: statements are prepared once
        await put(f"{number}.mp3", "One", **tags)
        await put(f"{number}.mp3", "One", title=f"Other {number}", **tags)
        await move(f"{number}.mp3", f"moved {number}.mp3")
    moving, leaving = await remote.catalogue.known("moved 0.mp3"), await remote.catalogue.known("moved 1.mp3")
    assert moving is not None
    assert leaving is not None
    lookup = await remote.trips(lambda: remote.catalogue.known("x.mp3"))

    assert await remote.trips(lambda: put("new.mp3", "One", **tags)) - lookup == 1
    assert await remote.trips(lambda: put("moved 2.mp3", "One", title="Again", **tags)) - lookup <= 6
    assert await remote.trips(lambda: service.move(remote.catalogue.found("to.mp3"), moving, None)) <= 4
    assert await remote.trips(lambda: service.lose(leaving)) <= 4


@pytest.mark.parametrize("text", HOSTILE)
async def test_any_text_is_stored_unchanged(remote: Remote, text: str) -> None:
    await remote.catalogue.put("a.mp3", "One", album="Album")
    await remote.catalogue.put("a.mp3", "One", title=text, album="Album")
    await remote.catalogue.move("a.mp3", f"{text}.mp3")

    assert await remote.catalogue.rows("SELECT title FROM tracks") == [(text,)]
    assert await remote.catalogue.rows("SELECT path FROM files") == [(f"{text}.mp3",)]
    changes = await remote.catalogue.rows("SELECT changes->'title'->>1 FROM audit_log WHERE action = 'track_updated'")
    assert changes == [(text,)]


async def test_a_file_replaces_another_in_one_transaction(remote: Remote) -> None:
    await remote.catalogue.put("a.mp3", "One")
    await remote.catalogue.put("b.mp3", "Two")
    origin, occupant = await remote.catalogue.known("a.mp3"), await remote.catalogue.known("b.mp3")
    assert origin is not None

    await remote.catalogue.service.move(remote.catalogue.found("b.mp3"), origin, occupant)

    query = "SELECT t.title, f.path, f.status FROM files f JOIN tracks t ON t.id = f.track_id ORDER BY 1"
    assert await remote.catalogue.rows(query) == [("a.mp3", "b.mp3", "catalogued"), ("b.mp3", "b.mp3", "missing")]


async def test_an_error_sent_with_the_commit_rolls_everything_back(remote: Remote) -> None:
    await remote.catalogue.put("a.mp3", "One")
    known = await remote.catalogue.known("a.mp3")
    assert known is not None
    database = remote.catalogue.database

    async def change() -> None:
        async with database.transaction():
            await FileRepository(database.session).get(known.id)
            await AuditRepository(database.session).log_action("track_moved", known.id)
            await FileRepository(database.session).set(known.id, folder_id="nowhere")

    with pytest.raises(IntegrityError):
        await change()

    assert await remote.catalogue.actions() == ["folder_added", "artist_added", "track_added"]
    assert (await remote.catalogue.put("b.mp3", "Two")).kind == "added"


async def test_a_new_connection_sends_no_query_of_its_own(remote: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare, queries = asyncpg.Connection.prepare, list[str]()

    async def note(connection: asyncpg.Connection, query: str, **options: object) -> object:
        queries.append(query)
        return await prepare(connection, query, **options)

    monkeypatch.setattr(asyncpg.Connection, "prepare", note)
    async with Database(remote.url) as database:
        await FolderRepository(database.session).all()

    assert len(queries) == 1
    assert "FROM folders" in queries[0].replace("\n", " ")


async def test_all_folders_are_locked_in_one_round_trip(remote: Remote) -> None:
    async with Database(remote.url) as database:
        queries: list[str] = []

        assert isinstance(database.backend, PostgresBackend)

        @event.listens_for(database.backend.lock_engine.sync_engine, "before_cursor_execute")
        def note(_connection: object, _cursor: object, statement: str, *_more: object) -> None:
            if "advisory" in statement:
                queries.append(statement)

        places = [FolderKey("node", path) for path in ("/one/a/b/c", "/two/d/e", "/three/f")]
        async with database.backend.lock_folders(places, "watch", node="node", run="run"):
            assert len(queries) == 1
