"""Rights in the state folder: root does nothing there that its owner could not do."""

import os
import re
import shutil
import socket
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest
from tests.conftest import Soulspot, until, write_song
from tests.support import prefork

from soulspot.daemon.pause import Pauses, read_pause
from soulspot.errors import CatalogueError
from soulspot.infrastructure.net import control_socket
from soulspot.infrastructure.persistence.sqlite.lock_file import holder_of, writer_lock
from soulspot.infrastructure.private_files import (
    NotPrivateError,
    make_folder,
    open_private,
    read_private,
    set_socket_rights,
    write_private,
)
from soulspot.infrastructure.privileges import owner_of
from soulspot.infrastructure.tags.readers.crash_journal import Journal, Slot
from soulspot.web.sessions import WebToken

HERE = Path(__file__).parent
NOBODY = 65534
SECRET = "root:SECRET-HASH:0:0\n"


@pytest.fixture
def foreign(empty_catalogue: Path) -> Iterator[Soulspot]:
    """Return a command on a catalogue that another user owns and can reach."""
    if os.geteuid() != 0:
        pytest.skip("to be another user takes root")
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    command = Soulspot(folder)
    command.database.parent.mkdir()
    shutil.copyfile(empty_catalogue, command.database)
    for each, mode in ((command.database, 0o640), (command.database.parent, 0o750)):
        each.chmod(mode)
        os.chown(each, NOBODY, NOBODY)
    write_song(command.music / "song.mp3")
    yield command
    command.kill()
    shutil.rmtree(folder)


@pytest.fixture
def victim(foreign: Soulspot) -> Path:
    """Return a file that only root may read."""
    file = foreign.music.parent / "shadow"
    file.write_text(SECRET)
    file.chmod(0o600)
    return file


def is_untouched(file: Path) -> bool:
    status = file.stat()
    return file.read_text() == SECRET and (status.st_uid, status.st_gid, status.st_mode & 0o777) == (0, 0, 0o600)


def as_user(user: int, group: int, *command: str) -> subprocess.CompletedProcess[str]:
    become = ["setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups"]
    return subprocess.run([*become, *command], capture_output=True, encoding="latin-1", timeout=30, check=False)


def run_for_a_while(soulspot: Soulspot, *command: str) -> None:
    """Run a command that a planted file may block."""
    with soulspot.log.open("ab") as log:
        process = prefork.start([*soulspot.command, *command], soulspot.environment | soulspot.readers, log, log)
    with suppress(subprocess.TimeoutExpired):
        process.wait(10)
    process.kill()
    process.wait()


def owners_in(folder: Path) -> dict[str, int]:
    return {each.name: each.lstat().st_uid for each in [folder, *folder.rglob("*")]}


def link(target: Path, name: Path) -> None:
    name.symlink_to(target)


def hard_link(target: Path, name: Path) -> None:
    os.link(target, name)


@pytest.mark.root
@pytest.mark.parametrize(
    "ending", [".lock", ".reading", ".paused", ".web-token", ".socket", "-wal", "-shm", "", ".part"]
)
@pytest.mark.parametrize("plant", [link, hard_link])
def test_root_touches_no_file_through_a_planted_link(
    foreign: Soulspot, victim: Path, plant: Callable[[Path, Path], None], ending: str
) -> None:
    planted = Path(f"{foreign.database}{ending}")
    planted.unlink(missing_ok=True)
    plant(victim, planted)

    for command in (("scan", str(foreign.music)), ("db", "vacuum"), ("web", "--show-token"), ("resume",)):
        run_for_a_while(foreign, *command)

    assert is_untouched(victim)


@pytest.mark.root
def test_root_starts_no_daemon_through_a_planted_lock(foreign: Soulspot, victim: Path) -> None:
    Path(f"{foreign.database}.lock").symlink_to(victim)

    daemon = foreign.start_watching()

    assert daemon.wait(60) == 78
    assert "it is a link, or not a regular file: remove it" in foreign.log.read_text()
    assert is_untouched(victim)


@pytest.mark.root
def test_root_follows_no_planted_folder_of_backups(foreign: Soulspot, victim: Path) -> None:
    closed = victim.with_name("closed")
    closed.mkdir(mode=0o700)
    (foreign.database.parent / "backups").symlink_to(closed)

    assert foreign.run("db", "backup").returncode == 78
    assert list(closed.iterdir()) == []


@pytest.mark.root
def test_every_file_that_root_creates_belongs_to_the_catalogues_owner(foreign: Soulspot) -> None:
    foreign.database.unlink()

    for command in (
        ("scan", str(foreign.music)),
        ("db", "vacuum"),
        ("db", "backup"),
        ("db", "downgrade", "base"),
        ("db", "upgrade"),
        ("scan", str(foreign.music)),
        ("web", "--show-token"),
    ):
        result = foreign.run(*command, **foreign.readers)
        assert result.returncode == 0, result.stderr
    [backup] = (foreign.database.parent / "backups").iterdir()
    assert foreign.run("db", "restore", str(backup)).returncode == 0

    assert foreign.run("status").returncode == 0
    assert set(owners_in(foreign.database.parent).values()) == {NOBODY}
    assert stat.S_IMODE(Path(f"{foreign.database}.web-token").stat().st_mode) == 0o600
    assert len(foreign.tracks()) == 1


@pytest.mark.root
def test_a_daemon_that_root_starts_runs_as_the_owner_of_its_catalogue(foreign: Soulspot) -> None:
    daemon = foreign.watch()
    until(foreign.tracks)
    assert foreign.run("pause").returncode == 0

    users = re.search(r"^Uid:\s+\d+\s+(\d+)", Path(f"/proc/{daemon.pid}/status").read_text(), re.MULTILINE)

    assert users is not None
    assert users[1] == str(NOBODY)
    assert set(owners_in(foreign.database.parent).values()) == {NOBODY}
    assert foreign.run("resume").returncode == 0
    daemon.terminate()
    assert daemon.wait(20) == 0


@pytest.mark.root
def test_settings_that_only_root_may_read_apply_to_commands_of_root(foreign: Soulspot) -> None:
    settings = foreign.music.parent / "closed.toml"
    settings.write_text(f'[library]\nfolders = ["{foreign.music}"]\n')
    settings.chmod(0o600)

    result = foreign.run("scan", "--config", str(settings), **foreign.readers)

    assert (result.returncode, len(foreign.tracks())) == (0, 1), result.stderr


@pytest.mark.root
def test_music_that_only_root_may_read_is_refused_with_advice(foreign: Soulspot) -> None:
    foreign.music.chmod(0o700)

    result = foreign.run("scan", str(foreign.music), **foreign.readers)

    assert result.returncode == 78
    assert f"the music folder {foreign.music}: grant nobody (root acts as the owner of the catalogue)" in result.stderr


@pytest.mark.root
def test_a_backup_to_a_folder_of_root_is_refused_with_the_reason(foreign: Soulspot) -> None:
    closed = foreign.music.parent / "closed"
    closed.mkdir(mode=0o700)
    shutil.copyfile(foreign.database, closed / "copy.db")

    there, back = foreign.run("db", "backup", "--to", str(closed)), foreign.run("db", "restore", f"{closed}/copy.db")

    assert (there.returncode, back.returncode) == (78, 78)
    assert "as nobody (root acts as the owner of the catalogue)" in there.stderr
    assert "as nobody (root acts as the owner of the catalogue)" in back.stderr


@pytest.mark.root
def test_the_error_names_an_owner_who_cannot_reach_the_catalogue(foreign: Soulspot) -> None:
    foreign.music.parent.chmod(0o700)

    result = foreign.run("db", "vacuum")

    assert result.returncode == 78
    assert "belongs to nobody, who cannot reach it; root acts as the owner of the catalogue" in result.stderr


@pytest.mark.root
def test_the_owner_of_a_catalogue_is_the_user_who_can_write_there(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("to be another user takes root")
    own, foreign, shared = (tmp_path / name for name in ("own", "foreign", "shared"))
    for folder in (own, foreign, shared):
        folder.mkdir()
    os.chown(foreign, NOBODY, NOBODY)
    shared.chmod(0o775)
    (shared / "theirs.db").touch()
    os.chown(shared / "theirs.db", NOBODY, NOBODY)
    for name, owner in (("ours", 0), ("theirs", NOBODY)):
        (tmp_path / name).symlink_to(own)
        os.lchown(tmp_path / name, owner, owner)

    assert owner_of(own / "a.db") == 0
    assert owner_of(foreign / "a.db") == NOBODY
    assert owner_of(foreign / "not" / "yet" / "a.db") == NOBODY
    assert owner_of(tmp_path / "ours" / "a.db") == 0
    assert owner_of(tmp_path / "theirs" / "a.db") == NOBODY
    assert owner_of(shared / "a.db") == 0
    assert owner_of(shared / "theirs.db") == NOBODY


@pytest.mark.root
@pytest.mark.parametrize(("user", "group"), [(12345, NOBODY), (12345, 12345)], ids=["member", "stranger"])
def test_only_the_owner_writes_beside_the_catalogue_and_reads_the_token(
    foreign: Soulspot, user: int, group: int
) -> None:
    foreign.run("web", "--show-token")
    state = foreign.database.parent

    assert as_user(NOBODY, NOBODY, "cat", f"{foreign.database}.web-token").returncode == 0
    assert as_user(NOBODY, NOBODY, "ln", "-s", "/etc/shadow", f"{state}/mine").returncode == 0
    assert as_user(user, group, "cat", f"{foreign.database}.web-token").returncode != 0
    assert as_user(user, group, "ln", "-s", "/etc/shadow", f"{foreign.database}.paused").returncode != 0
    assert as_user(user, group, "touch", str(foreign.database)).returncode == 1
    assert (as_user(user, group, "cat", str(foreign.database)).returncode == 0) is (group == NOBODY)


@pytest.mark.root
@pytest.mark.parametrize(
    ("user", "group", "may_query", "may_control"),
    [(NOBODY, NOBODY, True, True), (12345, NOBODY, True, False), (12345, 12345, False, False)],
    ids=["owner", "member", "stranger"],
)
def test_only_the_owner_controls_the_daemon_and_its_group_may_query_it(
    foreign: Soulspot, user: int, group: int, may_query: bool, may_control: bool
) -> None:
    foreign.watch()
    script = (
        "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]);"
        "s.sendall(b'{\"ask\": \"' + sys.argv[2].encode() + b'\"}\\n'); print(s.makefile().readline())"
    )
    socket_file = str(control_socket.socket_of(foreign.database))

    queried = as_user(user, group, "/usr/bin/python3", "-c", script, socket_file, "status")
    controlled = as_user(user, group, "/usr/bin/python3", "-c", script, socket_file, "pause")

    assert ('"health"' in queried.stdout) is may_query
    assert ('"paused"' in controlled.stdout) is may_control


def make_fifo(path: Path) -> None:
    os.mkfifo(path)


def make_folder_there(path: Path) -> None:
    path.mkdir()


def make_socket(path: Path) -> None:
    here = os.getcwd()
    os.chdir(path.parent)
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(path.name)
    os.chdir(here)


def make_link(path: Path) -> None:
    path.with_name("victim").write_text(SECRET)
    path.symlink_to("victim")


def make_dangling_link(path: Path) -> None:
    path.symlink_to("victim")


def make_hard_link(path: Path) -> None:
    path.with_name("victim").write_text(SECRET)
    os.link(path.with_name("victim"), path)


KINDS = [make_fifo, make_folder_there, make_socket, make_link, make_dangling_link, make_hard_link]


@pytest.mark.parametrize("make", KINDS)
@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_WRONLY, os.O_RDWR | os.O_CREAT])
def test_a_link_folder_or_special_file_is_never_opened(
    tmp_path: Path, make: Callable[[Path], None], flags: int
) -> None:
    make(tmp_path / "file")

    with pytest.raises(NotPrivateError):
        open_private(tmp_path / "file", flags)

    assert not (tmp_path / "victim").exists() or (tmp_path / "victim").read_text() == SECRET


@pytest.mark.parametrize("make", KINDS)
def test_each_file_beside_the_catalogue_is_opened_safely(tmp_path: Path, make: Callable[[Path], None]) -> None:
    file = tmp_path / "s.db"
    for ending in (".lock", ".reading", ".paused", ".web-token"):
        make(Path(f"{file}{ending}"))
        (tmp_path / "victim").unlink(missing_ok=True) if make is make_hard_link else None
        os.link(f"{file}{ending}", tmp_path / f"other{ending}") if make is make_hard_link else None

    with (
        pytest.raises(CatalogueError, match=r"it is a link, or not a regular file: remove it"),
        writer_lock(file, "scan"),
    ):
        pass
    assert holder_of(file) is None
    with pytest.raises(NotPrivateError):
        Journal(f"{file}.reading")
    with pytest.raises(NotPrivateError):
        Slot(f"{file}.reading", 0)
    assert read_pause(Path(f"{file}.paused")) is None
    assert WebToken(Path(f"{file}.web-token")).read() is None


@pytest.mark.parametrize("make", [make_fifo, make_socket, make_link, make_dangling_link, make_hard_link])
def test_a_rewritten_file_replaces_a_link(tmp_path: Path, make: Callable[[Path], None]) -> None:
    for name in ("paused", "token"):
        make(tmp_path / name)
        (tmp_path / "victim").unlink(missing_ok=True) if make is make_hard_link else None

    Pauses(tmp_path / "paused").pause("al", timedelta(hours=1))
    token = WebToken(tmp_path / "token").make(replace=True)

    assert read_pause(tmp_path / "paused") is not None
    assert WebToken(tmp_path / "token").read() == token
    assert stat.S_IMODE((tmp_path / "token").lstat().st_mode) == 0o600
    assert not (tmp_path / "victim").exists() or (tmp_path / "victim").read_text() == SECRET
    assert {each.name for each in tmp_path.iterdir()} <= {"paused", "token", "victim"}


def test_a_failed_write_leaves_only_the_previous_file(tmp_path: Path) -> None:
    (tmp_path / "file").mkdir()

    with pytest.raises(OSError, match="directory"):
        write_private(tmp_path / "file", b"text")

    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_an_oversized_file_is_read_only_up_to_the_limit(tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb") as file:
        file.truncate(1 << 40)

    with pytest.raises(NotPrivateError):
        read_private(tmp_path / "file")


@pytest.mark.parametrize("make", [make_link, make_fifo])
def test_the_rights_of_a_file_that_is_not_a_socket_are_unchanged(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "socket")
    before = (tmp_path / "socket").stat().st_mode

    with pytest.raises(NotPrivateError):
        set_socket_rights(tmp_path / "socket", mode=0o666, group=None)

    assert (tmp_path / "socket").stat().st_mode == before


def test_a_folder_is_created_with_its_parents(tmp_path: Path) -> None:
    make_folder(tmp_path / "a" / "b")

    assert stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) == 0o700


def test_each_row_of_the_table_of_rights_names_a_test() -> None:
    text = (HERE.parent / "docs" / "operations.md").read_text()
    table = re.search(r"<!-- rights -->\n(.*?)<!-- /rights -->", text, re.DOTALL)
    assert table is not None
    tests = "\n".join(file.read_text() for file in HERE.glob("test_*.py"))
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table[1].splitlines()[2:]]

    assert rows
    for row in rows:
        assert len(row) == 6
        assert all(row)
        for name in re.findall(r"`(test_\w+)`", row[-1]):
            assert f"def {name}(" in tests, name
        assert "`test_" in row[-1]
