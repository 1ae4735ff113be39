"""soulspot doctor: each thing that was set up wrong is found, with the line that mends it."""

import json
import os
import resource
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.conftest import Soulspot, write_song

from soulspot.cli.actions import doctor_checks
from soulspot.cli.actions.doctor_checks import Finding, diagnose
from soulspot.config import catalogue, sources
from soulspot.infrastructure.filesystem import FileSystem


class Place:
    """A healthy installation, until a test plants a fault."""

    def __init__(self, soulspot: Soulspot, monkeypatch: pytest.MonkeyPatch) -> None:
        self.music, self.database = soulspot.music, soulspot.database
        self.place = soulspot.music.parent
        self.run = soulspot.run
        self.monkeypatch = monkeypatch
        for name in [name for name in os.environ if name.startswith(("SOULSPOT_", "XDG_"))]:
            monkeypatch.delenv(name)
        monkeypatch.setenv("HOME", str(self.place))
        monkeypatch.setattr(sources, "SYSTEM_CONFIG", self.place / "config.toml")
        monkeypatch.setattr(doctor_checks, "SYSTEM_CONFIG", self.place / "config.toml")
        monkeypatch.setattr(catalogue, "SYSTEM_DATABASE", self.place / "none.db")
        monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 60, 0))
        monkeypatch.setattr(doctor_checks, "_unit", dict)
        monkeypatch.setenv("SOULSPOT_LIBRARY__FOLDERS", str(self.music))
        monkeypatch.setenv("SOULSPOT_DATABASE__URL", f"sqlite+aiosqlite:///{self.database}")

    def set(self, name: str, value: object) -> None:
        self.monkeypatch.setenv(f"SOULSPOT_{name}", str(value))

    def sql(self, statement: str) -> None:
        connection = sqlite3.connect(self.database, isolation_level=None)
        connection.execute(statement)
        connection.close()

    def unit(self, **properties: str) -> None:
        self.monkeypatch.setattr(doctor_checks, "_unit", lambda: {"AmbientCapabilities": "cap_lease", **properties})

    def file_system(self, kind: str) -> None:
        self.monkeypatch.setattr(doctor_checks, "file_system_of", lambda path: FileSystem(kind, "server:/x", path))


@pytest.fixture(scope="module")
def scanned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    soulspot = Soulspot(tmp_path_factory.mktemp("scanned"))
    write_song(soulspot.music / "song.mp3")
    soulspot.scan()
    return soulspot.database


@pytest.fixture
def place(scanned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    soulspot = Soulspot(tmp_path)
    write_song(soulspot.music / "song.mp3")
    soulspot.database.parent.mkdir()
    shutil.copyfile(scanned, soulspot.database)
    return Place(soulspot, monkeypatch)


async def findings() -> list[Finding]:
    return [finding async for finding in diagnose(None)]


def damaged(place: Place) -> None:
    with place.database.open("r+b") as file:
        file.seek(4096 * 3)
        file.write(b"\xa5" * (place.database.stat().st_size - 4096 * 3))


def few_watches(place: Place) -> None:
    limit = place.place / "fs" / "inotify" / "max_user_watches"
    limit.parent.mkdir(parents=True)
    limit.write_text("1\n")
    (place.music / "folder").mkdir()
    place.monkeypatch.setattr(doctor_checks, "PROC", place.place)


def password_readable_by_all(place: Place) -> None:
    place.monkeypatch.delenv("SOULSPOT_DATABASE__URL")
    (place.place / "config.toml").write_text('[database]\nurl = "postgresql+asyncpg://me:secret@127.0.0.1:1/x"\n')


def hidden_home(place: Place) -> None:
    place.unit(ProtectHome="yes")
    place.set("LIBRARY__FOLDERS", "/home")


def private_folder(place: Place) -> None:
    place.unit(User="nobody")
    place.music.chmod(0o700)


def metrics_in_the_sandbox(place: Place) -> None:
    place.unit(PrivateNetwork="yes")
    place.set("METRICS__LISTEN", "127.0.0.1:9842")


def textfile_in_the_sandbox(place: Place) -> None:
    place.unit(ProtectSystem="strict", ReadWritePaths="/var/lib/other")
    place.set("METRICS__TEXTFILE", place.place / "soulspot.prom")


def hook_in_the_sandbox(place: Place, host: str) -> None:
    place.unit(PrivateNetwork="yes")
    place.set("ON_BATCH__URL", f"http://{host}/refresh")


def old_journal(place: Place) -> None:
    place.sql("PRAGMA journal_mode=DELETE")


Plant = Callable[[Place], object]
WRONG: dict[str, tuple[Plant, str, str, str]] = {
    "a misspelt setting": (lambda at: at.set("LIBRARY__FOLDER", "/x"), "FAIL", "settings", "soulspot config check"),
    "no folder": (lambda at: at.set("LIBRARY__FOLDERS", ""), "FAIL", "folders", "SOULSPOT_LIBRARY__FOLDERS"),
    "a folder that is not there": (lambda at: at.set("LIBRARY__FOLDERS", "/nowhere"), "FAIL", "folders", "create it"),
    "the database in the music": (
        lambda at: at.set("LIBRARY__FOLDERS", at.place), "FAIL", "folders", "SOULSPOT_DATABASE__URL"),
    "a hidden home": (hidden_home, "FAIL", "sandbox", "home.conf"),
    "a folder in what is private": (
        lambda at: at.unit(PrivateTmp="yes"), "FAIL", "sandbox", "PrivateTmp=no"),
    "a folder that is closed": (
        lambda at: at.unit(InaccessiblePaths=f"-{at.place}"), "FAIL", "sandbox", "InaccessiblePaths="),
    "a folder that is covered": (
        lambda at: at.unit(TemporaryFileSystem=f"{at.place}:ro"), "FAIL", "sandbox", "TemporaryFileSystem="),
    "a folder that the service may not read": (
        private_folder, "FAIL", "folders", "setfacl -R -m u:nobody:rX"),
    "a network folder": (lambda at: at.file_system("nfs4"), "WARN", "folders", "POLL_INTERVAL"),
    "the database on a network": (lambda at: at.file_system("cifs"), "FAIL", "place", "a local disk"),
    "too few watches": (few_watches, "FAIL", "watches", "fs.inotify.max_user_watches=524288"),
    "no leases by a setting": (lambda at: at.set("LIBRARY__LEASES", "false"), "WARN", "leases", "LEASES=true"),
    "no leases by the unit": (lambda at: at.unit(PrivateUsers="yes"), "WARN", "leases", "PrivateUsers=no"),
    "no quiet period": (lambda at: at.set("LIBRARY__QUIET_PERIOD", 0), "WARN", "leases", "QUIET_PERIOD=2"),
    "an old SQLite": (
        lambda at: at.monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 50, 6)), "WARN", "sqlite", "3.51.3"),
    "a damaged database": (damaged, "FAIL", "database", "soulspot db restore"),
    "no database": (lambda at: at.database.write_bytes(b"garbage" * 999), "FAIL", "database", "soulspot db restore"),
    "a foreign database": (
        lambda at: at.sql("ALTER TABLE alembic_version RENAME TO x"), "FAIL", "database", "another database.url"),
    "a newer schema": (
        lambda at: at.sql("UPDATE alembic_version SET version_num = 'f'"), "FAIL", "database", "install that version"),
    "an older schema": (lambda at: at.sql("DELETE FROM alembic_version"), "WARN", "schema", "soulspot db upgrade"),
    "another journal mode": (old_journal, "WARN", "journal", "PRAGMA journal_mode=WAL"),
    "a clock behind": (
        lambda at: at.sql("UPDATE audit_log SET at = '2099-01-01 00:00:00.000000'"), "WARN", "clock", "timedatectl"),
    "few open files": (
        lambda at: at.monkeypatch.setattr(resource, "getrlimit", lambda _which: (64, 64)), "WARN", "limits", "ulimit"),
    "little room": (
        lambda at: at.monkeypatch.setattr(doctor_checks, "NO_ROOM", 1 << 60), "FAIL", "room", "move the catalogue"),
    "metrics on a port that nobody reaches": (metrics_in_the_sandbox, "WARN", "metrics", "loopback.conf"),
    "a textfile that may not be written": (textfile_in_the_sandbox, "WARN", "metrics", "textfile.conf"),
    "a textfile in no folder": (
        lambda at: at.set("METRICS__TEXTFILE", "/nowhere/soulspot.prom"), "FAIL", "metrics", "create it"),
    "a hook to this machine": (lambda at: hook_in_the_sandbox(at, "[::1]:80"), "WARN", "hooks", "loopback.conf"),
    "a hook to another machine": (
        lambda at: hook_in_the_sandbox(at, "192.0.2.7"), "WARN", "hooks", "network-hooks.conf"),
    "a hook without its program": (
        lambda at: at.set("ON_BATCH__COMMAND", "mpc update"), "WARN", "hooks", "arguments as a list"),
    "a password for everybody": (password_readable_by_all, "WARN", "secrets", "chmod o-r"),
}  # fmt: skip


@pytest.mark.parametrize("planted", WRONG)
async def test_each_fault_is_found_with_the_line_that_fixes_it(place: Place, planted: str) -> None:
    plant, level, check, words = WRONG[planted]
    if "may not read" in planted and os.geteuid() != 0:
        pytest.skip("only root can find out what another user may read")
    plant(place)

    found = [finding for finding in await findings() if (finding.level, finding.check) == (level, check)]

    assert any(words in finding.cure for finding in found), await findings()


def test_the_folders_of_a_running_daemon_are_checked(soulspot: Soulspot) -> None:
    """It was given them on its command line, and the settings name none."""
    soulspot.watch()

    told = json.loads(soulspot.run("doctor", "--json").stdout)["findings"]
    other = json.loads(soulspot.run("doctor", "--json", SOULSPOT_LIBRARY__FOLDERS="/srv").stdout)["findings"]

    levels = {(each["check"], each["level"]) for each in told}
    assert {("daemon", "OK"), ("folders", "OK"), ("watches", "OK"), ("leases", "OK")} <= levels
    assert f"{soulspot.music} is readable, on " in " ".join(each["text"] for each in told)
    [differs] = [each for each in other if each["check"] == "daemon" and each["level"] == "WARN"]
    assert "watches other folders than the settings name" in differs["text"]


async def test_a_healthy_installation_has_no_findings(place: Place) -> None:
    assert {finding.level for finding in await findings()} == {"OK"}


async def test_doctor_changes_nothing(place: Place) -> None:
    before = {file: file.stat() for file in place.place.rglob("*") if file.is_file()}

    await findings()

    assert {file: file.stat().st_mtime_ns for file in before} == {file: at.st_mtime_ns for file, at in before.items()}


def test_the_exit_code_follows_the_worst_finding(place: Place) -> None:
    bad = place.run("doctor", "--json", SOULSPOT_LIBRARY__FOLDERS="/nowhere")

    report = json.loads(bad.stdout)
    assert (bad.returncode, report["state"]) == (2, "FAIL")
    assert {"check", "level", "text", "cure"} == set(report["findings"][0])


def test_the_drop_in_for_a_hidden_home_is_shipped() -> None:
    assert (Path(__file__).parents[1] / "systemd" / "drop-ins" / "home.conf").is_file()
