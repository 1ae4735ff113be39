"""`soulspot db copy`: the same catalogue in another database."""

import json
import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import Soulspot, write_song
from tests.support.postgres_server import PostgresSoulspot, Server


def rows(database: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Return every row of a catalogue in SQLite, with the keys of JSON columns sorted."""
    with sqlite3.connect(database) as connection:
        tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        found = {}
        for table in tables:
            columns = connection.execute(f"SELECT name, type FROM pragma_table_info('{table}')").fetchall()
            values = [f"json_sorted({name})" if kind == "JSON" else name for name, kind in columns]
            connection.create_function("json_sorted", 1, _sorted)
            found[table] = sorted(connection.execute(f"SELECT {', '.join(values)} FROM {table}"), key=repr)
    connection.close()
    return found


def _sorted(text: str | None) -> str | None:
    return None if text is None else json.dumps(json.loads(text), sort_keys=True)


def fill(soulspot: Soulspot) -> None:
    song = write_song(soulspot.music / "a" / "1.flac", title="One", artist="Björk", album="B", date="1999")
    for number in range(30):
        write_song(soulspot.music / "b" / f"{number}.mp3", title=f"T{number}", artist=f"A{number % 4}", album="B")
    (soulspot.music / "broken.mp3").write_bytes(b"x" * 1000)
    Path(os.fsdecode(os.fsencode(soulspot.music) + b"/latin\xe9.mp3")).write_bytes(song.read_bytes())
    soulspot.scan()
    write_song(song, title="Two", artist="Björk", album="B")
    (soulspot.music / "b" / "3.mp3").rename(soulspot.music / "moved.mp3")
    (soulspot.music / "b" / "4.mp3").unlink()
    assert soulspot.run("scan", str(soulspot.music), SOULSPOT_LIBRARY__MISSING_AFTER="0").returncode == 0


@pytest.mark.postgresql
def test_a_copy_to_postgresql_and_back_changes_nothing(
    soulspot: Soulspot, postgres_server: Server, empty_database: str, tmp_path: Path
) -> None:
    fill(soulspot)
    url, back = postgres_server.socket_url(empty_database), tmp_path / "back.db"

    to_server = soulspot.run("db", "copy", str(soulspot.database), url)
    from_server = soulspot.run("db", "copy", url, str(back))

    assert (to_server.returncode, from_server.returncode) == (0, 0), to_server.stderr + from_server.stderr
    assert "copied and compared: " in to_server.stdout
    assert rows(back) == rows(soulspot.database)
    assert len(rows(back)["audit_log"]) > 40


@pytest.mark.postgresql
def test_a_scan_continues_in_the_copy_where_the_original_ended(
    soulspot: Soulspot, postgres_soulspot: PostgresSoulspot
) -> None:
    write_song(soulspot.music / "song.mp3", title="One")
    soulspot.scan()
    url = postgres_soulspot.environment["SOULSPOT_DATABASE__URL"]
    assert soulspot.run("db", "copy", str(soulspot.database), url).returncode == 0
    last = postgres_soulspot.rows("SELECT max(sequence) FROM audit_log")

    unchanged = soulspot.scan("--json")
    write_song(soulspot.music / "more.mp3", title="Two")
    result = soulspot.run("scan", str(soulspot.music), SOULSPOT_DATABASE__URL=url)

    assert '"unchanged": 1' in unchanged.stdout
    assert result.returncode == 0, result.stderr
    assert postgres_soulspot.rows("SELECT min(sequence) FROM audit_log WHERE path LIKE '%more%'") > last


def test_copy_refuses_to_overwrite_a_database_with_content(soulspot: Soulspot, tmp_path: Path) -> None:
    write_song(soulspot.music / "song.mp3", title="One")
    soulspot.scan()
    copied = soulspot.run("db", "copy", str(soulspot.database), str(tmp_path / "copy.db"))
    before = soulspot.dump()

    again = soulspot.run("db", "copy", str(tmp_path / "copy.db"), str(soulspot.database))

    assert copied.returncode == 0, copied.stderr
    assert again.returncode == 78
    assert "already" in again.stderr
    assert soulspot.dump() == before


def test_copy_refuses_a_catalogue_in_use(soulspot: Soulspot, tmp_path: Path) -> None:
    soulspot.watch()

    result = soulspot.run("db", "copy", str(soulspot.database), str(tmp_path / "copy.db"))

    assert result.returncode == 75
    assert not (tmp_path / "copy.db").exists()
