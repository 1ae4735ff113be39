"""The session of SQLite's writer: every method of AsyncSession either works or is refused by name."""

import inspect
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import bindparam, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError, InvalidRequestError
from sqlalchemy.ext.asyncio import AsyncSession

from soulspot.infrastructure.persistence import schema
from soulspot.infrastructure.persistence.database import Database
from soulspot.infrastructure.persistence.models import Artist, AuditEntry
from soulspot.infrastructure.persistence.row_changes import RowUpdate, insert_rows, update_row
from soulspot.infrastructure.persistence.sqlite.writer import SameThreadSession
from soulspot.infrastructure.persistence.tables import ARTISTS, ENTRIES

MOMENT = datetime(2026, 11, 29, 12, 0, 0, 5, tzinfo=UTC)
# Methods of AsyncSession that need no database, and those that end a transaction of the writer.
PASSIVE = {
    *("add", "add_all", "expire", "expire_all", "expunge", "expunge_all", "is_modified", "in_transaction"),
    *("in_nested_transaction", "get_transaction", "get_nested_transaction", "get_bind", "get_async_bind"),
    *("bind_mapper", "bind_table", "object_session", "identity_key", "close_all", "begin_immediate", "checkpoint"),
    *("commit", "rollback", "is_checkpoint_due"),
}


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with Database(f"sqlite+aiosqlite:///{tmp_path}/catalogue.db") as opened:
        await schema.bring_up_to_date(opened)
        yield opened


def artist(name: str, **more: object) -> dict[str, object]:
    values = {"id": name, "name": name, "name_key": name, "sort_name": None, "musicbrainz_id": None}
    return values | {"created_at": MOMENT} | more


@asynccontextmanager
async def three_artists(database: Database) -> AsyncIterator[AsyncSession]:
    async with database.transaction() as session:
        await insert_rows(session, ARTISTS, *map(artist, "abc"))
        yield session


async def names(database: Database) -> list[str]:
    async with database.session() as session:
        return list(await session.scalars(select(Artist.name).order_by(Artist.name)))


async def test_core_queries_return_the_same_with_and_without_values(database: Database) -> None:
    prepared = select(ARTISTS).where(ARTISTS.c.id == bindparam("id"))

    async with three_artists(database) as session:
        first = (await session.execute(prepared, {"id": "b"})).one()
        again = (await session.execute(prepared, {"id": "c"})).one()
        plain = (await session.execute(select(ARTISTS).where(ARTISTS.c.id == "b"))).one()

    assert first._asdict() == plain._asdict()
    assert (first.created_at, again.name) == (MOMENT, "c")


async def test_entities_are_loaded_with_and_without_values(database: Database) -> None:
    async with three_artists(database) as session:
        by_values = (
            await session.execute(select(Artist).where(Artist.id == bindparam("id")), {"id": "b"})
        ).scalar_one()
        by_id = await session.get(Artist, "b")
        every = (await session.scalars(select(Artist).order_by(Artist.id))).all()

        assert by_values is by_id is every[1]
        assert await session.scalar(select(func.count()).select_from(Artist)) == 3


async def test_updates_and_deletes_join_the_transaction(database: Database) -> None:
    async with three_artists(database) as session:
        await update_row(session, RowUpdate(ARTISTS, "a", {"name": "A", "sort_name": "A, the"}))
        await session.execute(update(ARTISTS).where(ARTISTS.c.id == "b").values(name="B"))
        await session.execute(delete(ARTISTS).where(ARTISTS.c.id == bindparam("id")), {"id": "c"})
        await session.execute(insert(ARTISTS), [artist("d")])
        session.add(Artist(**artist("e")))
        await session.flush()
        session.add(Artist(**artist("f")))

    assert await names(database) == ["A", "B", "d", "e", "f"]


async def test_an_error_rolls_back_entity_and_core_writes(database: Database) -> None:
    async def write() -> None:
        async with three_artists(database) as session:
            session.add(Artist(**artist("d")))
            await session.flush()
            await session.execute(update(ARTISTS).where(ARTISTS.c.id == "b").values(name="B"))
            await insert_rows(session, ARTISTS, artist("a"))

    with pytest.raises(IntegrityError):
        await write()

    assert await names(database) == []


async def test_values_are_converted_on_the_way_in_and_out(database: Database) -> None:
    entry = {"at": MOMENT, "action": "x", "entity_type": "x", "entity_id": "x", "path": None, "run": "r"}

    async with database.transaction() as session:
        await insert_rows(session, ENTRIES, entry | {"changes": {"é": [1, None]}})
        number = await session.scalar(select(func.max(ENTRIES.c.sequence)))
        query = select(ENTRIES.c.at, ENTRIES.c.changes).where(ENTRIES.c.sequence == bindparam("number")).limit(1)
        row = (await session.execute(query, {"number": number})).one()

    assert tuple(row) == (MOMENT, {"é": [1, None]})
    async with database.session() as session:
        assert (await session.scalars(select(AuditEntry.changes))).one() == {"é": [1, None]}


async def test_rows_with_different_columns_are_refused(database: Database) -> None:
    with pytest.raises(ValueError, match="different columns"):
        async with database.transaction() as session:
            await insert_rows(session, ARTISTS, artist("a"), {"id": "b"})


@pytest.mark.parametrize("name", SameThreadSession.REFUSED)
async def test_an_unsupported_session_method_is_refused_with_alternatives(database: Database, name: str) -> None:
    async with database.transaction() as session:
        with pytest.raises(InvalidRequestError, match=rf"no {name}\(\).* offers execute, scalar"):
            getattr(session, name)(select(Artist))


def test_every_session_method_is_listed_as_supported_or_refused() -> None:
    methods = {name for name, _ in inspect.getmembers(SameThreadSession, callable) if not name.startswith("_")}

    assert (
        methods - PASSIVE - {"sync_session_class"} == {*SameThreadSession.WORKING, *SameThreadSession.REFUSED} - PASSIVE
    )


def test_opening_sqlite_does_not_load_postgresql(tmp_path: Path) -> None:
    code = f"""
import sys
from soulspot.infrastructure.persistence.database import Database
Database("sqlite+aiosqlite:///{tmp_path}/x.db")
print([name for name in sys.modules if name.startswith(("asyncpg", "psycopg", "sqlalchemy.dialects.postgresql"))])
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert result.stdout.strip() == "[]"
