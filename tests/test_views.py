"""The views for users with their own tools: they match docs/schema.md and agree with the commands."""

import json
import shutil
import sqlite3
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from operator import itemgetter
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from tests.conftest import Soulspot, write_song
from tests.support.large_catalogue import statements
from tests.support.postgres_server import PostgresSoulspot, Server
from tests.test_documents import described
from tests.test_persistence import alembic_config

from soulspot.infrastructure.persistence.models import Base
from soulspot.infrastructure.persistence.schema import REVISION

HERE = Path(__file__).parents[1]
VIEWS = described("views")
RECORDING = "b1a9c0e9-d987-4042-ae91-78d6a3267d69"


def fill(soulspot: Soulspot) -> None:
    """Make a catalogue with everything: albums, credits, failures, moves, missing and purged files."""
    music = soulspot.music
    for number in range(1, 4):
        write_song(music / "a" / f"{number}.mp3", title=f"T{number}", artist="Björk", album="Homogenic", date="1997",
                   tracknumber=f"{number}/3", genre=["Pop", "Art"])  # fmt: skip
    write_song(music / "b" / "1.flac", title="One", artist="Two Of Us", albumartist="Us", album="Both",
               composer="She", musicbrainz_recordingid=RECORDING)  # fmt: skip
    for number, artist in enumerate(["Near", "Far", "Wide"]):
        write_song(music / "c" / f"{number}.ogg", title="Song", artist=artist, album="By many")
    for name in ("broken", "hopeless", "worse"):
        (music / f"{name}.mp3").write_bytes(name.encode() * 100)
    write_song(music / "goes.mp3", title="Goes", artist="Goer")
    soulspot.scan()
    write_song(music / "a" / "3.mp3", title="T3 again", artist="Björk", album="Homogenic", mood="mild")
    (music / "b" / "1.flac").rename(music / "b" / "moved.flac")
    for name in ("a/2.mp3", "goes.mp3", "worse.mp3"):
        (music / name).unlink()
    for action in ("retry", "ignore"):
        assert soulspot.run("failures", action, str(music / "hopeless.mp3")).returncode == 0
    assert soulspot.run("scan", str(music), SOULSPOT_LIBRARY__MISSING_AFTER="0").returncode == 0
    write_song(music / "goes.mp3", title="Comes", artist="Goer")
    soulspot.scan()
    (music / "goes.mp3").unlink()
    assert soulspot.run("scan", str(music), SOULSPOT_LIBRARY__MISSING_AFTER="0").returncode == 0
    assert soulspot.run("purge", "--older-than", "0s", "--yes", "3").returncode == 0
    (music / "a" / "1.mp3").unlink()
    assert soulspot.run("scan", str(music), SOULSPOT_LIBRARY__MISSING_AFTER="0").returncode == 0


@pytest.fixture(scope="module")
def sqlite(tmp_path_factory: pytest.TempPathFactory) -> Soulspot:
    command = Soulspot(tmp_path_factory.mktemp("sqlite"))
    fill(command)
    return command


@pytest.fixture(scope="module")
def postgresql(tmp_path_factory: pytest.TempPathFactory, postgres_server: Server) -> PostgresSoulspot:
    postgres_server.run("CREATE DATABASE views OWNER soulspot TEMPLATE catalogue")
    command = PostgresSoulspot(tmp_path_factory.mktemp("postgresql"), postgres_server, "views")
    fill(command)
    return command


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)])
def filled(request: pytest.FixtureRequest) -> Soulspot:
    """Return a catalogue with something of everything, for tests that only read."""
    found: Soulspot = request.getfixturevalue(request.param)
    return found


def answers(soulspot: Soulspot, *arguments: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in soulspot.run(*arguments, "--json").stdout.splitlines()]


def rows_of(soulspot: Soulspot, view: str) -> list[dict[str, Any]]:
    columns = [column for column, _kind in VIEWS[view]]
    return [dict(zip(columns, row, strict=True)) for row in soulspot.rows(f"SELECT * FROM {view}")]


def test_the_views_agree_with_the_commands(filled: Soulspot) -> None:
    tracks, failures = rows_of(filled, "catalogue_tracks"), rows_of(filled, "catalogue_failures")
    listed = {each["id"]: each for each in answers(filled, "tracks")}

    assert {each["track_id"] for each in tracks} == listed.keys()
    for each in tracks:
        same = ("title", "artist", "album", "path", "status", "codec", "bitrate", "track_number", "album_artist")
        assert {name: each[name] for name in same} == {name: listed[each["track_id"]][name] for name in same}
        assert (each["genres"] or "").split("; ") == (listed[each["track_id"]]["genres"] or [""])
        assert each["duration_seconds"] == listed[each["track_id"]]["duration_ms"] / 1000
    shown = answers(filled, "failures", "list") + answers(filled, "failures", "list", "--ignored")
    assert {(each["path"], each["code"], each["attempts"], bool(each["ignored"])) for each in failures} == {
        (each["path"], each["code"], each["attempts"], each["status"] == "ignored") for each in shown
    }
    assert len(failures) == 2
    assert {(each["name"], each["tracks"]) for each in rows_of(filled, "catalogue_artists")} == {
        (each["name"], each["tracks"]) for each in answers(filled, "artists")
    }
    albums = {
        (each["title"], each["artist"], each["tracks"])
        for each in rows_of(filled, "catalogue_albums")
        if each["tracks"]
    }
    assert albums == {(each["title"], each["artist"], each["tracks"]) for each in answers(filled, "albums")}
    assert ("By many", "Various Artists", 3) in albums
    [folder] = rows_of(filled, "catalogue_folders")
    [status] = [each for report in answers(filled, "status") for each in report["folders"]]
    for name in ("path", "status", "catalogued", "failed", "missing", "ignored"):
        assert folder[name] == status[name]


def test_the_history_view_has_every_entry_with_names_paths_and_reasons(filled: Soulspot) -> None:
    history = sorted(rows_of(filled, "catalogue_history"), key=itemgetter("sequence"))
    changes = {(each["action"], each["name"]) for each in history}
    [moved] = [each for each in history if each["action"] == "track_moved"]
    failed = [each for each in history if each["action"] == "file_failed"]

    assert [each["sequence"] for each in history] == [each["sequence"] for each in answers(filled, "audit")]
    assert {
        ("track_added", "Björk – T1"),
        ("track_updated", "Björk – T3 again"),
        ("track_added", "Two Of Us – One"),
    } < changes
    assert {("track_purged", "Goer – Comes"), ("artist_removed", "Goer"), ("artist_added", "Goer")} < changes
    assert (moved["path_before"], moved["path"]) == (f"{filled.music}/b/1.flac", f"{filled.music}/b/moved.flac")
    assert {(each["code"], bool(each["reason"])) for each in failed} == {("corrupt", True)}
    assert {each["changed"] for each in failed} == {"attempts, code, reason"}


def test_each_column_is_documented_with_its_type(filled: Soulspot) -> None:
    read: dict[str, Any] = {
        "text": str,
        "integer": int,
        "number": float,
        "boolean": (bool, int),
        "time": (str, datetime),
    }
    read["JSON"] = (str, dict)

    for view, columns in VIEWS.items():
        found = rows_of(filled, view)
        assert found, view
        for name, described_as in columns:
            kind, _, nullable = described_as.partition(" or ")
            values = [row[name] for row in found]
            assert nullable or None not in values, (view, name)
            assert all(isinstance(value, read[kind]) for value in values if value is not None), (view, name)
            if kind == "boolean":
                assert set(values) <= {0, 1, None}
            if kind == "time":
                moments = [str(value) for value in values if value is not None]
                assert all(abs(moment_of(each) - time.time()) < 3600 for each in moments), (view, name)


def moment_of(text: str) -> float:
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def test_exactly_the_documented_views_and_columns_exist(sqlite: Soulspot) -> None:
    views = [name for (name,) in sqlite.rows("SELECT name FROM sqlite_master WHERE type = 'view'")]

    columns = {view: [row[0] for row in sqlite.rows(f"SELECT name FROM pragma_table_info('{view}')")] for view in views}
    assert columns == {view: [name for name, _kind in columns] for view, columns in VIEWS.items()}


@pytest.mark.postgresql
def test_the_views_are_the_same_in_postgresql(postgresql: PostgresSoulspot) -> None:
    kinds = {"character varying": "text", "text": "text", "integer": "integer", "bigint": "integer"}
    kinds |= {"double precision": "number", "boolean": "boolean", "timestamp with time zone": "time", "jsonb": "JSON"}

    found = postgresql.rows(
        "SELECT table_name, column_name, data_type FROM information_schema.columns"
        " WHERE table_name LIKE 'catalogue%' ORDER BY table_name, ordinal_position"
    )

    promised = [
        (view, name, kind.partition(" ")[0]) for view, columns in sorted(VIEWS.items()) for name, kind in columns
    ]
    assert [(view, name, kinds[kind]) for view, name, kind in found] == promised


def test_the_changes_in_the_history_are_documented(soulspot: Soulspot) -> None:
    fill(soulspot)
    soulspot.music.rename(soulspot.music.parent / "away")
    soulspot.run("scan", str(soulspot.music))
    (soulspot.music.parent / "away").rename(soulspot.music)
    soulspot.scan()
    text = (HERE / "docs/schema.md").read_text()
    described = {row.split("`")[1]: row for row in text.splitlines() if row.startswith("| `") and row.count("_")}
    columns = {column.name for table in Base.metadata.tables.values() for column in table.columns}

    entries = soulspot.rows("SELECT action, changes FROM audit_log WHERE changes IS NOT NULL")
    seen = {(action, name) for action, changes in entries for name in json.loads(changes)}

    assert len({action for action, _name in seen}) > 12
    for action, name in seen:
        generic = "column" in described[action] and (name in columns or name.startswith("tags."))
        assert generic or f"`{name}`" in described[action] or action == "scan_finished", (action, name)


LATER = """
from alembic import op

revision, down_revision = "ffffffffffff", "{revision}"


def upgrade() -> None:
    for table in {tables}:
        with op.batch_alter_table(table, recreate="always"):
            pass
"""


def test_a_later_migration_may_replace_each_table_below_the_views(soulspot: Soulspot, tmp_path: Path) -> None:
    write_song(soulspot.music / "song.mp3", title="Song")
    soulspot.scan()
    before = {view: rows_of(soulspot, view) for view in VIEWS}
    config = alembic_config(soulspot.environment["SOULSPOT_DATABASE__URL"])
    shutil.copytree(HERE / "alembic", tmp_path / "alembic")
    later = LATER.format(revision=REVISION, tables=list(Base.metadata.tables))
    (tmp_path / "alembic" / "versions" / "later.py").write_text(later)
    config.set_main_option("script_location", str(tmp_path / "alembic"))

    command.upgrade(config, "head")

    assert soulspot.rows("SELECT version_num FROM alembic_version") == [("ffffffffffff",)]
    assert {view: rows_of(soulspot, view) for view in VIEWS} == before


QUICK = {
    "one album": "SELECT * FROM catalogue_tracks WHERE album_id = 'x'",
    "one track": "SELECT * FROM catalogue_tracks WHERE track_id = 'x'",
    "one recording": "SELECT * FROM catalogue_tracks WHERE musicbrainz_recording_id = 'x'",
    "one sound": "SELECT * FROM catalogue_tracks WHERE fingerprint = 'x'",
    "one path": "SELECT * FROM catalogue_tracks WHERE path_in_folder = 'x' AND missing_since IS NULL AND folder = 'y'",
    "the tracks of one artist": "SELECT * FROM catalogue_credits WHERE artist_id = 'x'",
    "one artist": "SELECT * FROM catalogue_artists WHERE artist_id = 'x'",
    "the album": "SELECT * FROM catalogue_albums WHERE album_id = 'x'",
    "failures": "SELECT * FROM catalogue_failures",
    "newest": "SELECT * FROM catalogue_history ORDER BY sequence DESC LIMIT 20",
    "since": "SELECT * FROM catalogue_history WHERE at > '2199-01-01'",
    "of one thing": "SELECT * FROM catalogue_history WHERE entity_id = 'x'",
}
FEW = {"folders", "d", "json_each", "(subquery-4)"}
"""Tables that may be scanned: they have few rows."""


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sqlite3.Connection]:
    file = tmp_path_factory.mktemp("large") / "catalogue.db"
    command.upgrade(alembic_config(f"sqlite+aiosqlite:///{file}"), "head")
    connection = sqlite3.connect(file, isolation_level=None)
    for statement in statements("sqlite", 5000):
        connection.execute(statement)
    yield connection
    connection.close()


@pytest.mark.parametrize("asked", QUICK)
def test_queries_of_the_views_use_indexes_in_sqlite(large: sqlite3.Connection, asked: str) -> None:
    plan = [row[3] for row in large.execute(f"EXPLAIN QUERY PLAN {QUICK[asked]}")]

    scans = [step for step in plan if step.startswith("SCAN") and step.split()[1] not in FEW]
    assert scans == (["SCAN a"] if asked == "newest" else [])  # in key order, and it stops after enough rows


@pytest.mark.postgresql
def test_queries_of_the_views_use_indexes_in_postgresql(postgres_server: Server, postgres_catalogue: str) -> None:
    for statement in statements("postgresql", 20_000):
        postgres_server.run(statement, postgres_catalogue)

    with postgres_server.connect(postgres_catalogue) as connection:
        plans = {asked: connection.execute(f"EXPLAIN {query}".encode()).fetchall() for asked, query in QUICK.items()}

    scans = {asked: [row[0] for row in plan if "Seq Scan" in row[0]] for asked, plan in plans.items()}
    assert [scan for found in scans.values() for scan in found if " on folders" not in scan] == []
