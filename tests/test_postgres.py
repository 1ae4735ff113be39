"""What is particular to PostgreSQL: its schema, its passwords, its sort order."""

import asyncio
import io

import pytest
from alembic import command
from sqlalchemy import text
from tests.conftest import write_song
from tests.support.postgres_server import PostgresSoulspot, Server
from tests.test_persistence import alembic_config

from soulspot.infrastructure.persistence import schema
from soulspot.infrastructure.persistence.database import Database
from soulspot.infrastructure.persistence.queries.audit_log import AuditLogQueries
from soulspot.infrastructure.persistence.repositories import AuditRepository

pytestmark = pytest.mark.postgresql


def tables(server: Server, name: str) -> set[str]:
    with server.connect(name) as connection:
        rows = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
    return {row[0] for row in rows}


def test_migrations_run_up_and_down_and_match_the_models(postgres_server: Server, empty_database: str) -> None:
    config = alembic_config(postgres_server.socket_url(empty_database))

    command.upgrade(config, "head")
    command.check(config)
    command.downgrade(config, "base")
    left = tables(postgres_server, empty_database)
    command.upgrade(config, "head")

    assert left == {"alembic_version"}
    assert "track_artists" in tables(postgres_server, empty_database)


def test_the_migrations_printed_as_sql_create_the_same_schema(postgres_server: Server, empty_database: str) -> None:
    config = alembic_config(postgres_server.socket_url(empty_database))
    config.output_buffer = io.StringIO()
    command.upgrade(config, "head", sql=True)

    postgres_server.run(f"SET ROLE soulspot; {config.output_buffer.getvalue()}", empty_database)

    command.check(config)


async def test_a_password_with_every_special_character_works(postgres_server: Server, empty_database: str) -> None:
    async with Database(postgres_server.tcp_url(empty_database)) as database:
        await schema.bring_up_to_date(database)

        assert await schema.current_revision(database) == schema.REVISION


async def test_paths_sort_by_bytes_in_any_locale(postgres_server: Server, empty_database: str) -> None:
    url = postgres_server.socket_url(empty_database)
    async with Database(url) as database:
        await schema.bring_up_to_date(database)
        async with database.session() as session:
            query = text(
                "SELECT table_name, column_name FROM information_schema.columns"
                " JOIN information_schema.tables USING (table_schema, table_name)"
                " WHERE table_type = 'BASE TABLE' AND column_name = 'path' AND collation_name = 'C' ORDER BY 1"
            )
            found = [tuple(row) for row in await session.execute(query)]

    assert found == [("audit_log", "path"), ("files", "path"), ("folders", "path")]


async def test_each_statement_sees_commits_whatever_the_server_default(
    postgres_server: Server, postgres_catalogue: str
) -> None:
    postgres_server.run(f"ALTER DATABASE {postgres_catalogue} SET default_transaction_isolation = serializable")
    isolation = text("SHOW transaction_isolation")

    async with Database(postgres_server.socket_url(postgres_catalogue)) as database:
        async with database.session() as session:
            reading = await session.scalar(isolation)
        async with database.transaction() as session:
            writing = await session.scalar(isolation)

    assert [reading, writing] == ["read committed", "read committed"]


async def test_the_pool_works_with_fewer_connections_if_the_server_refuses_more(
    postgres_server: Server, postgres_catalogue: str, caplog: pytest.LogCaptureFixture
) -> None:
    postgres_server.run(f"ALTER DATABASE {postgres_catalogue} CONNECTION LIMIT 2")

    async def write(number: int) -> None:
        async with database.transaction():
            await AuditRepository(database.session).log_action("scan_finished", str(number))
            await asyncio.sleep(0.05)  # lets the others start

    async with Database(postgres_server.socket_url(postgres_catalogue)) as database:
        await asyncio.gather(*map(write, range(8)))
        postgres_server.run(f"ALTER DATABASE {postgres_catalogue} CONNECTION LIMIT 50")
        entries = await AuditLogQueries(database.session).entries()

    assert {entry.entity_id for entry in entries} == set("01234567")
    assert "PostgreSQL refuses more connections, continuing with fewer: too many connections" in caplog.text


def test_every_read_command_works_with_postgresql(postgres_soulspot: PostgresSoulspot) -> None:
    song = str(write_song(postgres_soulspot.music / "song.mp3"))
    postgres_soulspot.scan()
    commands = [("explain", song), ("track", song), *((each,) for each in ("tracks", "artists", "albums", "audit"))]
    commands += [("failures", "list"), ("db", "check"), ("db", "current"), ("verify",)]

    answers = [
        postgres_soulspot.run(*each, SOULSPOT_LIBRARY__FOLDERS=str(postgres_soulspot.music)) for each in commands
    ]

    assert [answer.args for answer in answers if answer.returncode or answer.stderr] == []
