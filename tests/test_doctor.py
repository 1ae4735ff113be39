"""`soulspot doctor` finds each fault of an installation, with the line that fixes it."""

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


class Installation:
    """A healthy installation, until a test plants a fault in it."""

    def __init__(self, soulspot: Soulspot, monkeypatch: pytest.MonkeyPatch) -> None:
        self.music, self.database = soulspot.music, soulspot.database
        self.folder = soulspot.music.parent
        self.run = soulspot.run
        self.monkeypatch = monkeypatch
        for name in [name for name in os.environ if name.startswith(("SOULSPOT_", "XDG_"))]:
            monkeypatch.delenv(name)
        monkeypatch.setenv("HOME", str(self.folder))
        monkeypatch.setattr(sources, "SYSTEM_CONFIG", self.folder / "config.toml")
        monkeypatch.setattr(doctor_checks, "SYSTEM_CONFIG", self.folder / "config.toml")
        monkeypatch.setattr(catalogue, "SYSTEM_DATABASE", self.folder / "none.db")
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
def installation(scanned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Installation:
    soulspot = Soulspot(tmp_path)
    write_song(soulspot.music / "song.mp3")
    soulspot.database.parent.mkdir()
    shutil.copyfile(scanned, soulspot.database)
    return Installation(soulspot, monkeypatch)


async def findings() -> list[Finding]:
    return [finding async for finding in diagnose(None)]


def damaged(installation: Installation) -> None:
    with installation.database.open("r+b") as file:
        file.seek(4096 * 3)
        file.write(b"\xa5" * (installation.database.stat().st_size - 4096 * 3))


def few_watches(installation: Installation) -> None:
    limit = installation.folder / "fs" / "inotify" / "max_user_watches"
    limit.parent.mkdir(parents=True)
    limit.write_text("1\n")
    (installation.music / "folder").mkdir()
    installation.monkeypatch.setattr(doctor_checks, "PROC", installation.folder)


def password_readable_by_all(installation: Installation) -> None:
    installation.monkeypatch.delenv("SOULSPOT_DATABASE__URL")
    (installation.folder / "config.toml").write_text(
        '[database]\nurl = "postgresql+asyncpg://me:secret@127.0.0.1:1/x"\n'
    )


def hidden_home(installation: Installation) -> None:
    installation.unit(ProtectHome="yes")
    installation.set("LIBRARY__FOLDERS", "/home")


def private_folder(installation: Installation) -> None:
    installation.unit(User="nobody")
    installation.music.chmod(0o700)


def metrics_in_the_sandbox(installation: Installation) -> None:
    installation.unit(PrivateNetwork="yes")
    installation.set("METRICS__LISTEN", "127.0.0.1:9842")


def textfile_in_the_sandbox(installation: Installation) -> None:
    installation.unit(ProtectSystem="strict", ReadWritePaths="/var/lib/other")
    installation.set("METRICS__TEXTFILE", installation.folder / "soulspot.prom")


def hook_in_the_sandbox(installation: Installation, host: str) -> None:
    installation.unit(PrivateNetwork="yes")
    installation.set("ON_BATCH__URL", f"http://{host}/refresh")


def old_journal(installation: Installation) -> None:
    installation.sql("PRAGMA journal_mode=DELETE")


PlantFault = Callable[[Installation], object]
FAULTS: dict[str, tuple[PlantFault, str, str, str]] = {
    "a misspelt setting": (lambda at: at.set("LIBRARY__FOLDER", "/x"), "FAIL", "settings", "soulspot config check"),
    "no folder": (lambda at: at.set("LIBRARY__FOLDERS", ""), "FAIL", "folders", "SOULSPOT_LIBRARY__FOLDERS"),
    "an absent folder": (lambda at: at.set("LIBRARY__FOLDERS", "/nowhere"), "FAIL", "folders", "create it"),
    "the database in the music": (
        lambda at: at.set("LIBRARY__FOLDERS", at.folder), "FAIL", "folders", "SOULSPOT_DATABASE__URL"),
    "a hidden home": (hidden_home, "FAIL", "sandbox", "home.conf"),
    "a folder in a private place": (
        lambda at: at.unit(PrivateTmp="yes"), "FAIL", "sandbox", "PrivateTmp=no"),
    "an inaccessible folder": (
        lambda at: at.unit(InaccessiblePaths=f"-{at.folder}"), "FAIL", "sandbox", "InaccessiblePaths="),
    "a folder under a temporary file system": (
        lambda at: at.unit(TemporaryFileSystem=f"{at.folder}:ro"), "FAIL", "sandbox", "TemporaryFileSystem="),
    "a folder that the service cannot read": (
        private_folder, "FAIL", "folders", "setfacl -R -m u:nobody:rX"),
    "a network folder": (lambda at: at.file_system("nfs4"), "WARN", "folders", "POLL_INTERVAL"),
    "the database on a network": (lambda at: at.file_system("cifs"), "FAIL", "place", "a local disk"),
    "too few watches": (few_watches, "FAIL", "watches", "fs.inotify.max_user_watches=524288"),
    "leases turned off by a setting": (lambda at: at.set("LIBRARY__LEASES", "false"), "WARN", "leases", "LEASES=true"),
    "leases turned off by the unit": (lambda at: at.unit(PrivateUsers="yes"), "WARN", "leases", "PrivateUsers=no"),
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
    "a clock that was set back": (
        lambda at: at.sql("UPDATE audit_log SET at = '2099-01-01 00:00:00.000000'"), "WARN", "clock", "timedatectl"),
    "few open files allowed": (
        lambda at: at.monkeypatch.setattr(resource, "getrlimit", lambda _which: (64, 64)), "WARN", "limits", "ulimit"),
    "little free space": (
        lambda at: at.monkeypatch.setattr(doctor_checks, "NO_ROOM", 1 << 60), "FAIL", "room", "move the catalogue"),
    "metrics on an unreachable port": (metrics_in_the_sandbox, "WARN", "metrics", "loopback.conf"),
    "a textfile in a read-only folder": (textfile_in_the_sandbox, "WARN", "metrics", "textfile.conf"),
    "a textfile in an absent folder": (
        lambda at: at.set("METRICS__TEXTFILE", "/nowhere/soulspot.prom"), "FAIL", "metrics", "create it"),
    "a hook to this machine": (lambda at: hook_in_the_sandbox(at, "[::1]:80"), "WARN", "hooks", "loopback.conf"),
    "a hook to another machine": (
        lambda at: hook_in_the_sandbox(at, "192.0.2.7"), "WARN", "hooks", "network-hooks.conf"),
    "a hook whose program is absent": (
        lambda at: at.set("ON_BATCH__COMMAND", "mpc update"), "WARN", "hooks", "arguments as a list"),
    "a password that every user can read": (password_readable_by_all, "WARN", "secrets", "chmod o-r"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
async def test_each_fault_is_reported_with_its_fix(installation: Installation, fault: str) -> None:
    plant, level, check, cure = FAULTS[fault]
    if "cannot read" in fault and os.geteuid() != 0:
        pytest.skip("only root can check what another user can read")
    plant(installation)

    found = [finding for finding in await findings() if (finding.level, finding.check) == (level, check)]

    assert any(cure in finding.cure for finding in found), await findings()


def test_the_folders_of_a_running_daemon_are_checked(soulspot: Soulspot) -> None:
    """They come from its command line; the settings name none."""
    soulspot.watch()

    plain = soulspot.run("doctor", "--json")
    with_other_folders = soulspot.run("doctor", "--json", SOULSPOT_LIBRARY__FOLDERS="/srv")

    found = json.loads(plain.stdout)["findings"]
    levels = {(each["check"], each["level"]) for each in found}
    assert {("daemon", "OK"), ("folders", "OK"), ("watches", "OK"), ("leases", "OK")} <= levels
    assert f"{soulspot.music} is readable, on " in " ".join(each["text"] for each in found)
    others = json.loads(with_other_folders.stdout)["findings"]
    [differs] = [each for each in others if each["check"] == "daemon" and each["level"] == "WARN"]
    assert "watches other folders than the settings name" in differs["text"]


async def test_a_healthy_installation_has_no_findings(installation: Installation) -> None:
    assert {finding.level for finding in await findings()} == {"OK"}


async def test_doctor_changes_nothing(installation: Installation) -> None:
    before = {file: file.stat() for file in installation.folder.rglob("*") if file.is_file()}

    await findings()

    assert {file: file.stat().st_mtime_ns for file in before} == {file: at.st_mtime_ns for file, at in before.items()}


def test_the_exit_code_follows_the_worst_finding(installation: Installation) -> None:
    bad = installation.run("doctor", "--json", SOULSPOT_LIBRARY__FOLDERS="/nowhere")

    report = json.loads(bad.stdout)
    assert (bad.returncode, report["state"]) == (2, "FAIL")
    assert {"check", "level", "text", "cure"} == set(report["findings"][0])


def test_the_drop_in_for_a_hidden_home_is_shipped() -> None:
    assert (Path(__file__).parents[1] / "systemd" / "drop-ins" / "home.conf").is_file()
