"""The catalogue's invariants: migrations, transactions, one artist for one name."""

import asyncio
import io
import sqlite3
import subprocess
import sys
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import func, select, text
from sqlalchemy.exc import OperationalError

from soulspot.errors import CatalogueError
from soulspot.infrastructure.filesystem import FileSystem, Signature, path_to_text, text_to_path
from soulspot.infrastructure.persistence import schema
from soulspot.infrastructure.persistence.database import Database
from soulspot.infrastructure.persistence.models import Artist, AuditEntry, File, Track
from soulspot.infrastructure.persistence.repositories import ArtistRepository, TrackRepository
from soulspot.infrastructure.tags import TrackTags
from soulspot.ingest.catalogue.folder_service import FolderService
from soulspot.ingest.catalogue.service import IngestService
from soulspot.ingest.disk.walker import FoundFile, Root

HERE = Path(__file__).parents[1]


def alembic_config(url: str) -> Config:
    config = Config(HERE / "alembic.ini")
    config.attributes["url"] = url
    config.attributes["embedded"] = True
    return config


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the URL of a new catalogue; the one in SQLite does not exist yet."""
    if request.param == "sqlite":
        return f"sqlite+aiosqlite:///{tmp_path}/catalogue.db"
    name: str = request.getfixturevalue("postgres_catalogue")
    return str(request.getfixturevalue("postgres_server").socket_url(name))


@pytest.fixture
async def database(url: str) -> AsyncIterator[Database]:
    async with Database(url) as opened:
        await schema.bring_up_to_date(opened)
        yield opened


@pytest.fixture
async def ingest(database: Database) -> tuple[IngestService, Root]:
    service = IngestService(database, run="run")
    folder = await FolderService(database, run="run", node="node").adopt_folder(
        "/music", FileSystem("ext4", "uuid", "/")
    )
    return service, Root(folder.id, "/music")


async def counts(database: Database) -> list[int]:
    async with database.session() as session:
        return [(await session.scalar(select(func.count()).select_from(table))) or 0 for table in (Track, Artist, File)]


def found(root: Root, name: str) -> FoundFile:
    return FoundFile(root, name, Signature(1, 2, 3, 4))


async def test_a_failing_audit_entry_rolls_back_track_and_artist(
    database: Database, ingest: tuple[IngestService, Root]
) -> None:
    service, root = ingest
    when = "CREATE TRIGGER refuse BEFORE INSERT ON audit_log"
    statements = [f"{when} WHEN NEW.action = 'track_added' BEGIN SELECT RAISE(FAIL, 'refused'); END"]
    if database.url.get_backend_name() == "postgresql":
        body = "BEGIN RAISE EXCEPTION 'refused'; END"
        statements = [f"CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $${body}$$"]
        statements.append(f"{when} FOR EACH ROW WHEN (NEW.action = 'track_added') EXECUTE FUNCTION refuse()")
    async with database.transaction() as session:
        for statement in statements:
            await session.execute(text(statement))

    with pytest.raises(Exception, match="refused"):
        await service.ingest(found(root, "a.mp3"), TrackTags(title="T", artist="A", artists=("A",)), None)

    assert await counts(database) == [0, 0, 0]


async def test_concurrent_ingests_of_one_new_artist_create_it_once(
    database: Database, ingest: tuple[IngestService, Root]
) -> None:
    service, root = ingest
    spellings = ("Beyonc\u00e9", "Beyonce\u0301", "BEYONC\u00c9  ")

    songs = [(found(root, f"{n}.mp3"), TrackTags(title="T", artist=a, artists=(a,))) for n, a in enumerate(spellings)]
    await asyncio.gather(*(service.ingest(file, tags, None) for file, tags in songs))

    assert await counts(database) == [3, 1, 3]


async def test_a_name_only_artist_is_adopted_when_its_id_arrives(
    database: Database, ingest: tuple[IngestService, Root]
) -> None:
    service, root = ingest
    first, second = "7cf0ea9d-86b9-4dad-ba9e-2355a64899ea", "664c3e0e-42d8-48c1-b209-1efca19c0325"

    for number, ids in enumerate([(), (first,), (second,)]):
        tags = TrackTags(title="T", artist="A", artists=("A",), musicbrainz_artist_ids=ids)
        await service.ingest(found(root, f"{number}.mp3"), tags, None)

    async with database.session() as session:
        artists = (await session.scalars(select(Artist).order_by(Artist.created_at))).all()
        adopted = await session.scalar(select(AuditEntry.entity_id).where(AuditEntry.action == "artist_updated"))
    assert [artist.musicbrainz_id for artist in artists] == [first, second]
    assert adopted == artists[0].id


async def test_a_name_with_and_without_its_id_in_one_file_is_one_artist(
    database: Database, ingest: tuple[IngestService, Root]
) -> None:
    service, root = ingest
    ids = ("7cf0ea9d-86b9-4dad-ba9e-2355a64899ea",)

    tags = TrackTags(title="T", artist="A", artists=("A",), album_artist="A", musicbrainz_album_artist_ids=ids)
    await service.ingest(found(root, "a.mp3"), tags, None)

    assert await counts(database) == [1, 1, 1]


async def test_a_repository_cannot_write_outside_a_transaction(database: Database) -> None:
    with pytest.raises(Exception, match=r"readonly|read-only"):
        await ArtistRepository(database.session).add("A")


async def test_a_child_task_cannot_share_a_transaction(database: Database) -> None:
    tracks = TrackRepository(database.session)

    async with database.transaction():
        with pytest.raises(RuntimeError, match="two tasks"):
            await asyncio.create_task(tracks.count())


async def test_concurrent_transactions_run_one_at_a_time_despite_errors(tmp_path: Path) -> None:
    async with Database(f"sqlite+aiosqlite:///{tmp_path}/catalogue.db") as database:
        await schema.bring_up_to_date(database)
        artists, inside = ArtistRepository(database.session), list[str]()

        async def add(name: str, *, fails: bool = False) -> None:
            async with database.transaction():
                inside.append(name)
                await artists.add(name)
                await asyncio.sleep(0.001)
                assert inside == [name]
                inside.remove(name)
                if fails:
                    raise LookupError

        tasks = [asyncio.create_task(add(str(number), fails=number == 3)) for number in range(30)]
        await asyncio.sleep(0)
        for number in (7, 20):  # while they wait for their turn
            tasks[number].cancel()
        results = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 10)

        assert [number for number, result in enumerate(results) if result is not None] == [3, 7, 20]
        assert await counts(database) == [0, 27, 0]


async def test_a_transaction_that_fails_on_a_lock_lets_the_next_one_run(tmp_path: Path) -> None:
    async with Database(f"sqlite+aiosqlite:///{tmp_path}/catalogue.db") as database:
        await schema.bring_up_to_date(database)
        artists = ArtistRepository(database.session)
        other = sqlite3.connect(tmp_path / "catalogue.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")

        with pytest.raises(OperationalError, match="locked"):
            async with database.transaction():
                await artists.add("A")
        other.close()
        async with asyncio.timeout(10), database.transaction():
            await artists.add("B")

        assert await counts(database) == [0, 1, 0]


def test_no_repository_commits() -> None:
    source = (HERE / "src/soulspot/infrastructure/persistence/repositories.py").read_text()

    assert ".commit(" not in source
    assert ".begin(" not in source


def test_migrations_run_up_and_down_and_match_the_models(tmp_path: Path) -> None:
    config = alembic_config(f"sqlite+aiosqlite:///{tmp_path}/x.db")

    command.upgrade(config, "head")
    command.check(config)
    command.downgrade(config, "base")
    command.upgrade(config, "head")

    assert ScriptDirectory.from_config(config).get_current_head() == schema.REVISION


def revisions() -> list[str]:
    """Return the revisions of the schema, oldest first."""
    scripts = ScriptDirectory.from_config(alembic_config("sqlite+aiosqlite:///x.db"))
    return [script.revision for script in scripts.walk_revisions()][::-1]


def columns_and_indexes(database: Path) -> set[tuple[object, ...]]:
    connection = sqlite3.connect(database)
    things = connection.execute("SELECT type, name, tbl_name FROM sqlite_master").fetchall()
    columns = connection.execute(
        "SELECT m.name, c.name, c.type, c.pk FROM sqlite_master m, pragma_table_info(m.name) c"
    )
    found = {*things, *columns.fetchall()}
    connection.close()
    return found


@pytest.mark.parametrize("revision", revisions())
def test_a_downgrade_restores_the_schema_exactly(tmp_path: Path, revision: str) -> None:
    there, back = (alembic_config(f"sqlite+aiosqlite:///{tmp_path}/{name}.db") for name in ("there", "back"))

    command.upgrade(there, revision)
    command.upgrade(back, "head")
    command.downgrade(back, revision)

    assert columns_and_indexes(tmp_path / "back.db") == columns_and_indexes(tmp_path / "there.db")


@pytest.mark.parametrize("url", ["sqlite+aiosqlite:///x.db", "postgresql+asyncpg://me:p%25w%40rd@nowhere/x"])
def test_migrations_can_be_printed_as_sql(url: str) -> None:
    config = alembic_config(url)
    config.output_buffer = io.StringIO()

    command.upgrade(config, "head", sql=True)

    assert "CREATE TABLE track_artists" in config.output_buffer.getvalue()


async def test_a_newer_schema_is_refused_and_unchanged(database: Database) -> None:
    async with database.transaction() as session:
        await session.execute(text("UPDATE alembic_version SET version_num = 'ffffffffffff'"))

    with pytest.raises(CatalogueError, match="newer soulspot"):
        await schema.bring_up_to_date(database)


@pytest.mark.parametrize("name", ["plain", "caf\udce9", "back\\slash", "\\xe9", "e\u0301", "new\nline"])
def test_a_path_survives_conversion_to_text_and_back(name: str) -> None:
    text = path_to_text(name)

    assert text_to_path(text) == name
    text.encode()


def test_the_wheel_contains_the_migrations(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(HERE)]
    subprocess.run(build, check=True)

    [wheel] = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "soulspot/infrastructure/persistence/migrations/env.py" in names
    assert not any(name.endswith("migrations/__init__.py") for name in names)
