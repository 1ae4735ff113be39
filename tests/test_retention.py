"""Trimming the history: what is removed, what is kept, and that it blocks nothing."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, text
from tests.conftest import Soulspot, both, until, write_song
from tests.support.large_catalogue import statements
from tests.support.postgres_server import PostgresSoulspot, Server

from soulspot.infrastructure.persistence import schema
from soulspot.infrastructure.persistence.database import Database
from soulspot.infrastructure.persistence.queries import integrity
from soulspot.ingest.catalogue import audit_retention
from soulspot.ingest.catalogue.audit_retention import Retention


def grow_old(soulspot: Soulspot, days: int = 400) -> None:
    """Shift all entries so far into the past by a number of days."""
    if isinstance(soulspot, PostgresSoulspot):
        soulspot.server.run(f"UPDATE audit_log SET at = at - interval '{days} days'", soulspot.name)
    else:
        soulspot.change(f"UPDATE audit_log SET at = strftime('%Y-%m-%d %H:%M:%f000', at, '-{days} days')")


def make_history(soulspot: Soulspot) -> None:
    """Make a history of two files: one that stays and changes twice, and one that is added, deleted and purged."""
    for number in range(3):
        write_song(soulspot.music / "stays.mp3", title=f"Stays {number}", artist="A")
        if number == 0:
            write_song(soulspot.music / "goes.mp3", title="Goes", artist="B")
        soulspot.scan()
    (soulspot.music / "goes.mp3").unlink()
    assert soulspot.run("scan", str(soulspot.music), SOULSPOT_LIBRARY__MISSING_AFTER="0").returncode == 0
    assert soulspot.run("purge", "--older-than", "0s", "--yes", "1").returncode == 0


def history(soulspot: Soulspot) -> list[str]:
    return [action for (action,) in soulspot.rows("SELECT action FROM audit_log ORDER BY sequence")]


KEPT = ["folder_added", "artist_added", "track_added", "track_updated", "scan_finished", "audit_trimmed"]


@both
def test_trim_keeps_the_first_and_latest_entry_of_each_existing_track(soulspot: Soulspot) -> None:
    make_history(soulspot)
    before = history(soulspot)
    young = soulspot.run("db", "trim", "--older-than", "30d")
    grow_old(soulspot)

    dry = soulspot.run("db", "trim", "--older-than", "365d", "--dry-run")
    unchanged = history(soulspot)
    done = soulspot.run("db", "trim", "--older-than", "365d")
    again = soulspot.run("db", "trim", "--older-than", "365d")

    removed = len(before) - len(KEPT) + 1
    assert young.stdout == again.stdout == "0 entries of the history were removed\n"
    assert (dry.stdout, done.stdout) == (
        f"{removed} entries of the history would be removed\n",
        f"{removed} entries of the history were removed\n",
    )
    assert unchanged == before
    assert history(soulspot) == KEPT
    [[changes]] = soulspot.rows("SELECT changes FROM audit_log WHERE action = 'audit_trimmed'")
    assert json.loads(changes)["entries"] == removed
    assert "no faults found" in soulspot.run("db", "check").stdout
    shown = soulspot.run("track", str(soulspot.music / "stays.mp3")).stdout
    assert "track_added" in shown
    assert "Stays 1 → Stays 2" in shown


@both
def test_a_start_removes_old_entries_only_with_a_limit_and_only_once(soulspot: Soulspot) -> None:
    make_history(soulspot)
    soulspot.watch().terminate()
    grow_old(soulspot)
    forever = history(soulspot)
    soulspot.watch().terminate()
    soulspot.running[-1].wait()
    assert history(soulspot) == forever

    soulspot.watch(SOULSPOT_AUDIT__KEEP_DAYS="365")

    until(lambda: history(soulspot) == KEPT)
    soulspot.running[-1].terminate()
    soulspot.running[-1].wait()
    before = soulspot.dump()
    soulspot.watch(SOULSPOT_AUDIT__KEEP_DAYS="365")
    write_song(soulspot.music / "more.mp3", title="More", artist="A")
    until(lambda: "track_added" in history(soulspot)[-1:])
    assert len(soulspot.dump()) > len(before)
    assert history(soulspot) == [*KEPT, "track_added"]


def test_without_a_limit_nothing_is_removed(soulspot: Soulspot) -> None:
    make_history(soulspot)
    grow_old(soulspot, 40_000)

    result = soulspot.run("db", "trim")

    assert result.returncode == 78
    assert "audit.keep_days" in result.stderr


def test_the_history_is_not_trimmed_while_a_daemon_runs(soulspot: Soulspot) -> None:
    make_history(soulspot)
    soulspot.watch()

    assert soulspot.run("db", "trim", "--older-than", "1d").returncode == 75


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)])
async def large(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    """Return a catalogue of 1,000 tracks with six entries each, from three years ago until now."""
    url = f"sqlite+aiosqlite:///{tmp_path}/catalogue.db"
    if request.param == "postgresql":
        server: Server = request.getfixturevalue("postgres_server")
        url = server.socket_url(request.getfixturevalue("postgres_catalogue"))
    async with Database(url) as database:
        await schema.bring_up_to_date(database)
        async with database.transaction() as session:
            for statement in statements(request.param, 1000, entries=6):
                await session.execute(text(statement.replace(":", r"\:")))
        yield database


async def entries(database: Database, what: str = "count(*)") -> int:
    async with database.session() as session:
        return int(await session.scalar(text(f"SELECT {what} FROM audit_log")) or 0)


async def test_an_interrupted_trim_has_audited_every_removed_entry(
    large: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_retention, "PAUSE", 0.05)
    before = await entries(large)
    trimming = asyncio.create_task(Retention(large, keep=timedelta(days=1), run="first").trim())

    while await entries(large) > before - 300:  # noqa: ASYNC110 - the database sends no notification
        await asyncio.sleep(0.01)
    trimming.cancel()
    await asyncio.wait([trimming])
    cut = before - await entries(large)
    rest = await Retention(large, keep=timedelta(days=1), run="second").trim()

    async with large.session() as session:
        query = text("SELECT changes FROM audit_log WHERE action = 'audit_trimmed' ORDER BY sequence")
        changes = [each if isinstance(each, dict) else json.loads(each) for each in await session.scalars(query)]
    assert [each["entries"] for each in changes] == [cut + 1, rest]
    assert cut + 1 + rest == 4000  # of six entries, the first and the latest are kept
    assert await integrity.faults(large) == []


async def test_a_writer_does_not_wait_for_the_trim(large: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_retention, "PAUSE", 0)
    loop, waits = asyncio.get_running_loop(), []
    trimming = asyncio.create_task(Retention(large, keep=timedelta(days=1), run="run").trim())

    while not trimming.done():
        began = loop.time()
        async with large.transaction() as session:
            await session.execute(text("UPDATE folders SET status_reason = 'x'"))
        waits.append(loop.time() - began)
        await asyncio.sleep(0)

    assert await trimming > 3000
    assert len(waits) > 20
    assert sorted(waits)[len(waits) // 2] < sum(waits) / 10


async def test_the_trim_uses_indexes(large: Database) -> None:
    seen: list[tuple[str, Any]] = []
    event.listen(
        large.backend.read_engine.sync_engine, "before_cursor_execute", lambda *arguments: seen.append(arguments[2:4])
    )
    await Retention(large, keep=timedelta(days=1), run="run").count()

    [page, parameters] = next(each for each in seen if "EXISTS" in each[0])
    explain = "EXPLAIN" if large.backend.file is None else "EXPLAIN QUERY PLAN"
    async with large.session() as session:
        asked = await (await session.connection()).exec_driver_sql(f"{explain} {page}", tuple(parameters))
        plan = [str(row[-1]) for row in asked]
    index = [step for step in plan if "ix_audit_log_entity_id_sequence" in step]
    assert len(index) == 2
    assert all("COVERING" in step or "Index Only" in step for step in index)
    assert not [step for step in plan if step.startswith("SCAN") or "Seq Scan on audit_log" in step]
