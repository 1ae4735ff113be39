"""Admin commands on the catalogue: backup, restore, upgrade; and damage to its file."""

import asyncio
import json
import shutil
import signal
import socket
import sqlite3
import subprocess
import threading
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError
from tests.conftest import Soulspot, until, write_song
from tests.test_persistence import revisions

from soulspot.infrastructure.persistence import schema
from soulspot.infrastructure.persistence.database import Database


@pytest.fixture
def filled(soulspot: Soulspot) -> Soulspot:
    for number in range(3):
        write_song(soulspot.music / f"{number}.mp3", title=f"Song {number}", artist="A")
    soulspot.scan()
    return soulspot


def titles(database: Path) -> set[str]:
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
    found = {title for (title,) in connection.execute("SELECT title FROM tracks")}
    connection.close()
    return found


def change(database: Path, *statements: str) -> None:
    """Change a database by hand, and leave its write-ahead log empty."""
    connection = sqlite3.connect(database, isolation_level=None)
    for statement in (*statements, "PRAGMA wal_checkpoint(TRUNCATE)"):
        connection.execute(statement)
    connection.close()


def stop(daemon: subprocess.Popen[bytes]) -> None:
    daemon.send_signal(signal.SIGTERM)
    assert daemon.wait(timeout=15) == 0


THREE = {"Song 0", "Song 1", "Song 2"}


def test_a_backup_of_a_catalogue_in_use_is_one_complete_private_file(filled: Soulspot) -> None:
    filled.watch()
    folder = filled.database.parent / "backups"

    result = filled.run("db", "backup")

    assert result.returncode == 0, result.stderr
    [copy] = folder.iterdir()
    assert (copy.stat().st_mode & 0o777, folder.stat().st_mode & 0o777) == (0o600, 0o700)
    assert titles(copy) == THREE
    assert [each.name for each in folder.iterdir()] == [copy.name]


def test_only_old_backups_are_deleted(filled: Soulspot, tmp_path: Path) -> None:
    folder = tmp_path / "copies"
    folder.mkdir()
    old = [folder / f"soulspot-2020010{day}T000000Z.db" for day in range(1, 5)]
    for each in [*old, folder / "mine.db", folder / "soulspot-notes.db"]:
        each.touch()

    assert filled.run("db", "backup", "--to", str(folder), "--keep", "2").returncode == 0

    left = {each.name for each in folder.iterdir()}
    assert {"mine.db", "soulspot-notes.db", old[-1].name} < left
    assert len(left) == 4


def test_restore_needs_the_daemon_stopped_and_keeps_the_old_catalogue(filled: Soulspot) -> None:
    filled.run("db", "backup")
    [copy] = (filled.database.parent / "backups").iterdir()
    daemon = filled.watch()
    write_song(filled.music / "new.mp3", title="New")
    until(lambda: ("new.mp3", "New") in filled.tracks())

    refused = filled.run("db", "restore", str(copy))
    stop(daemon)
    restored = filled.run("db", "restore", str(copy))

    assert refused.returncode == 75
    assert f"pid {daemon.pid}" in refused.stderr
    assert restored.returncode == 0, restored.stderr
    assert titles(filled.database) == THREE
    [kept] = filled.database.parent.glob("*.before-restore-*Z")
    assert titles(kept) == {*THREE, "New"}
    filled.scan()
    assert ("new.mp3", "New") in filled.tracks()


def test_restore_without_a_file_lists_the_backups(filled: Soulspot) -> None:
    assert "there is no backup" in filled.run("db", "restore").stderr

    filled.run("db", "backup")

    [copy] = (filled.database.parent / "backups").iterdir()
    assert filled.run("db", "restore").stdout.splitlines() == [str(copy)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"garbage" * 1000, "file is not a database"),
        (None, "there is no backup at"),
        ("UPDATE alembic_version SET version_num = 'ffffffffffff'", "made by a newer soulspot"),
        ("DELETE FROM tracks", "is damaged (table"),
    ],
)
def test_restore_refuses_a_file_that_is_not_an_intact_backup(
    filled: Soulspot, content: bytes | str | None, message: str
) -> None:
    source = filled.music.parent / "copy.db"
    if isinstance(content, bytes):
        source.write_bytes(content)
    elif content is not None:
        shutil.copyfile(filled.database, source)
        change(source, content)
    before = filled.dump()

    result = filled.run("db", "restore", str(source))

    assert result.returncode == 78
    assert message in result.stderr
    assert filled.dump() == before
    assert list(filled.database.parent.glob("*restor*")) == []


def test_an_upgrade_after_a_downgrade_keeps_a_private_backup(filled: Soulspot) -> None:
    assert filled.run("db", "downgrade", "base").returncode == 0
    behind = json.loads(filled.run("db", "current", "--json").stdout)
    upgraded = filled.run("db", "upgrade")

    assert behind == {"revision": None, "needed": schema.REVISION, "is_current": False}
    assert upgraded.returncode == 0, upgraded.stderr
    assert json.loads(filled.run("db", "current", "--json").stdout)["is_current"] is True
    [copy] = filled.database.parent.glob("*.before-upgrade-*Z")
    assert titles(copy) == THREE
    assert copy.stat().st_mode & 0o777 == 0o600


def test_a_failed_upgrade_gives_its_reason_and_loses_nothing(filled: Soulspot) -> None:
    assert filled.run("db", "downgrade", "--", "-1").returncode == 0
    change(filled.database, "CREATE TABLE catalogue_tracks (mine)")
    before = filled.dump()

    result = filled.run("scan", str(filled.music))

    [copy] = filled.database.parent.glob(f"*.before-upgrade-{revisions()[-2]}-*")
    assert result.returncode == 78
    assert "could not be upgraded" in result.stderr
    assert "catalogue_tracks already exists" in result.stderr
    assert f"a copy from before is {copy}" in result.stderr
    assert "Traceback" not in result.stderr
    assert filled.dump() == before


def test_an_upgrade_asks_systemd_for_more_time(filled: Soulspot) -> None:
    assert filled.run("db", "downgrade", "--", "-1").returncode == 0
    address = filled.music.parent / "notify"
    other = sqlite3.connect(filled.database, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(address))
        manager.settimeout(30)
        filled.start_watching(NOTIFY_SOCKET=str(address))
        first = manager.recv(4096).decode()
        other.execute("ROLLBACK")
        while "READY=1" not in manager.recv(4096).decode():
            pass
    other.close()

    assert first.splitlines()[0] == "EXTEND_TIMEOUT_USEC=60000000"
    assert "upgrading the schema of the catalogue" in first


def test_an_unknown_revision_is_refused(filled: Soulspot) -> None:
    result = filled.run("db", "downgrade", "abcdefabcdef")

    assert result.returncode == 78
    assert "cannot be downgraded to abcdefabcdef" in result.stderr
    assert titles(filled.database) == THREE


def test_check_finds_damage_and_inconsistencies(filled: Soulspot) -> None:
    assert filled.run("db", "check").stdout == "no faults found\n"

    last = "SELECT max(sequence) FROM audit_log WHERE action = 'track_added'"
    change(filled.database, f"DELETE FROM audit_log WHERE sequence = ({last})")
    inconsistent = filled.run("db", "check", "--json")
    damage(filled.database)
    damaged = filled.run("db", "check")

    assert json.loads(inconsistent.stdout) == {
        "is_sound": False,
        "faults": ["1 tracks without an entry in the history"],
    }
    assert (inconsistent.returncode, damaged.returncode) == (1, 1)


def damage(database: Path) -> None:
    """Overwrite a database except for its first pages, which hold its header and schema."""
    with database.open("r+b") as file:
        file.seek(4096 * 3)
        file.write(b"\xa5" * (database.stat().st_size - 4096 * 3))


def test_vacuum_reclaims_the_space_of_deleted_rows(filled: Soulspot) -> None:
    numbers = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200)"
    bulk = f"CREATE TABLE bulk AS {numbers} SELECT printf('%4000d', i) FROM n"
    change(filled.database, bulk, "DROP TABLE bulk")
    before = filled.database.stat().st_size

    result = filled.run("db", "vacuum")

    assert result.returncode == 0, result.stderr
    assert filled.database.stat().st_size < before - 500_000
    assert titles(filled.database) == THREE


def test_a_file_that_is_not_a_database_is_left_unchanged(filled: Soulspot) -> None:
    filled.database.write_bytes(b"garbage" * 1000)

    result = filled.run("scan", str(filled.music))

    assert result.returncode == 78
    assert "was left as it was" in result.stderr or "was left as it is" in result.stderr
    assert filled.database.read_bytes() == b"garbage" * 1000


def test_damage_stops_a_running_daemon_with_an_explanation(filled: Soulspot) -> None:
    daemon = filled.watch()
    change(filled.database)
    damage(filled.database)
    damaged = filled.database.read_bytes()

    write_song(filled.music / "new.mp3")

    assert daemon.wait(timeout=30) == 78
    assert "the catalogue is damaged" in filled.log.read_text()
    assert "Traceback" not in filled.log.read_text()
    assert filled.database.read_bytes()[4096 * 3 :] == damaged[4096 * 3 :]


@pytest.mark.parametrize("replaced", [False, True])
def test_a_catalogue_deleted_under_a_running_daemon_is_rescued(filled: Soulspot, replaced: bool) -> None:
    daemon = filled.watch()
    write_song(filled.music / "new.mp3", title="New")
    until(lambda: ("new.mp3", "New") in filled.tracks())

    if replaced:
        other = filled.database.with_name("other")
        other.write_bytes(b"another file")
        other.replace(filled.database)
    else:
        for file in filled.database.parent.glob("soulspot.db*"):
            file.unlink()
    write_song(filled.music / "late.mp3", title="Late")

    assert daemon.wait(timeout=10) == 78
    [rescued] = filled.database.parent.glob("*.rescued-*Z")
    assert {*THREE, "New"} <= titles(rescued)
    assert f"soulspot db restore {rescued}" in filled.log.read_text()
    assert (filled.database.read_bytes() if filled.database.exists() else None) == (
        b"another file" if replaced else None
    )
    assert filled.run("db", "restore", str(rescued)).returncode == 0
    filled.scan()
    assert {title for _path, title in filled.tracks()} == {*THREE, "New", "Late"}


async def test_a_connection_never_creates_a_file(tmp_path: Path) -> None:
    async with Database(f"sqlite+aiosqlite:///{tmp_path}/catalogue.db") as database:
        with pytest.raises(OperationalError, match="unable to open"):
            async with database.session() as session:
                await session.execute(text("SELECT 1"))
        with pytest.raises(OperationalError, match="unable to open"):
            async with database.transaction():
                pass
        for thread in threading.enumerate():  # those of the driver still have results for this loop
            if "connection_worker" in thread.name:
                await asyncio.to_thread(thread.join, 5)

    assert list(tmp_path.iterdir()) == []


def test_a_read_only_command_creates_no_database(new_soulspot: Soulspot) -> None:
    for command in ("current", "check", "backup"):
        assert new_soulspot.run("db", command).returncode == 78

    assert not new_soulspot.database.parent.exists()
