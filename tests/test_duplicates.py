"""`soulspot duplicates`: files with the same recording or the same audio, and the facts to choose by."""

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from sqlalchemy.dialects import postgresql as postgresql_dialect
from sqlalchemy.dialects import sqlite as sqlite_dialect
from tests.conftest import Soulspot, both, write_song
from tests.support.large_catalogue import statements
from tests.support.postgres_server import Server
from tests.test_persistence import alembic_config

from soulspot.infrastructure.persistence.queries.duplicates import By, copies_query

RECORDING = "b1a9c0e9-d987-4042-ae91-78d6a3267d69"
KINDS: tuple[By, ...] = ("recording", "sound")


def fill(soulspot: Soulspot) -> None:
    music = soulspot.music
    for name in ("a/song.flac", "b/song.ogg"):
        write_song(music / name, title="Wish", artist="Nine", musicbrainz_trackid=RECORDING)
    song = write_song(music / "c" / "tone.mp3", title="Tone", artist="Other")
    write_song(music / "d" / "copy.mp3", title="Tone (retagged)", artist="Other")
    os.link(song, music / "d" / "link.mp3")
    write_song(music / "alone.m4a", title="Alone", artist="Other")
    soulspot.scan()


def groups(soulspot: Soulspot, *arguments: str) -> list[tuple[str, list[str]]]:
    result = soulspot.run("duplicates", "--json", *arguments)
    assert result.returncode == 0, result.stderr
    found: list[dict[str, Any]] = [json.loads(line) for line in result.stdout.splitlines()]
    return [(each["by"], [each["path"].removeprefix(f"{soulspot.music}/") for each in each["files"]]) for each in found]


SOUND = ["c/tone.mp3", "d/copy.mp3", "d/link.mp3"]
RECORDED = ("recording", ["a/song.flac", "b/song.ogg"])


@both
def test_duplicates_are_found_by_recording_and_by_sound(soulspot: Soulspot) -> None:
    fill(soulspot)
    before = soulspot.dump()

    [by_sound] = groups(soulspot, "--by", "sound")
    everything = groups(soulspot)
    shown = soulspot.run("duplicates", "--by", "sound")

    assert by_sound == ("sound", SOUND)
    assert groups(soulspot, "--by", "recording") == [RECORDED]
    assert everything == [RECORDED, by_sound]
    assert soulspot.dump() == before
    assert "Other – Tone: the same sound" in shown.stdout
    assert f"{soulspot.music}/d/link.mp3 (hard link)" in shown.stdout
    assert "1 groups, 3 files" in shown.stdout


def test_a_group_is_shown_whole_if_one_of_its_files_matches(soulspot: Soulspot) -> None:
    fill(soulspot)

    assert groups(soulspot, "--in", str(soulspot.music / "d")) == [("sound", SOUND)]
    assert groups(soulspot, "--in", str(soulspot.music / "b" / "song.ogg")) == [RECORDED]
    assert groups(soulspot, "wish", "NINE") == [RECORDED]
    assert groups(soulspot, "wish", "other") == []
    assert len(groups(soulspot, "--limit", "1")) == 1


def test_a_missing_file_is_not_a_duplicate(soulspot: Soulspot) -> None:
    fill(soulspot)
    for name in ("a/song.flac", "c/tone.mp3", "d/link.mp3"):
        (soulspot.music / name).unlink()
    assert soulspot.run("scan", str(soulspot.music), SOULSPOT_LIBRARY__MISSING_AFTER="0").returncode == 0

    assert groups(soulspot) == []
    assert soulspot.run("duplicates").stdout.startswith("0 groups, 0 files")


def test_each_duplicate_has_the_facts_to_choose_by(soulspot: Soulspot) -> None:
    fill(soulspot)

    found = json.loads(soulspot.run("duplicates", "--json", "--by", "recording").stdout)

    flac, ogg = found["files"]
    assert (found["id"], found["spare"]) == (RECORDING, min(flac["size"], ogg["size"]))
    assert (flac["codec"], flac["lossless"], ogg["codec"], ogg["lossless"]) == ("flac", True, "vorbis", False)
    assert all(each[name] for each in (flac, ogg) for name in ("bitrate", "sample_rate", "duration_ms", "fingerprint"))


def plans_in_sqlite(connection: sqlite3.Connection, by: By) -> list[str]:
    compiled = copies_query(by).compile(dialect=sqlite_dialect.dialect(), compile_kwargs={"literal_binds": True})
    return [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {compiled}")]


@pytest.mark.parametrize("by", KINDS)
def test_sqlite_finds_duplicates_by_an_index(tmp_path: Path, by: By) -> None:
    command.upgrade(alembic_config(f"sqlite+aiosqlite:///{tmp_path}/catalogue.db"), "head")
    connection = sqlite3.connect(tmp_path / "catalogue.db", isolation_level=None)
    for statement in statements("sqlite", 5000):
        connection.execute(statement)

    plan = plans_in_sqlite(connection, by)

    connection.close()
    index = {"recording": "ix_tracks_musicbrainz_recording_id", "sound": "ix_files_fingerprint"}[by]
    assert any(f"USING COVERING INDEX {index}" in step for step in plan), plan
    assert sum(step.startswith("SEARCH") and index in step for step in plan) == 2, plan


@pytest.mark.postgresql
def test_postgresql_finds_duplicates_by_an_index(postgres_server: Server, postgres_catalogue: str) -> None:
    for statement in statements("postgresql", 20_000):
        postgres_server.run(statement, postgres_catalogue)
    postgres_server.run("VACUUM ANALYZE", postgres_catalogue)
    plans = {}

    with postgres_server.connect(postgres_catalogue) as connection:
        for by in KINDS:
            dialect = postgresql_dialect.dialect()
            compiled = copies_query(by).compile(dialect=dialect, compile_kwargs={"literal_binds": True})
            plans[by] = [row[0] for row in connection.execute(f"EXPLAIN {compiled}".encode()).fetchall()]

    for by, index in (("recording", "ix_tracks_musicbrainz_recording_id"), ("sound", "ix_files_fingerprint")):
        assert any(f"Index Only Scan using {index}" in step for step in plans[by]), plans[by]


MEASURE_MEMORY = """
import asyncio, resource, sys
from soulspot.infrastructure.persistence.database import Database
from soulspot.infrastructure.persistence.queries.duplicates import duplicates


async def measure():
    async with Database(sys.argv[1], read_only=True) as database:
        start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        count = 0
        async for group in duplicates(database, "sound"):
            count += 1
        print(count, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start) // 1024)


asyncio.run(measure())
"""


def test_many_groups_take_little_memory(tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path}/catalogue.db"
    command.upgrade(alembic_config(url), "head")
    connection = sqlite3.connect(tmp_path / "catalogue.db", isolation_level=None)
    for statement in statements("sqlite", 50_000):
        connection.execute(statement)
    connection.execute("UPDATE files SET fingerprint = 'b2:' || (inode / 2)")
    connection.close()

    result = subprocess.run([sys.executable, "-c", MEASURE_MEMORY, url], capture_output=True, text=True, check=True)

    count, megabytes = map(int, result.stdout.split())
    assert count > 24_000
    assert megabytes < 40
