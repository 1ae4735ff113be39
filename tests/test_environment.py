"""A full disk, a lock, a sleeping machine: the daemon pauses, logs it, resumes by itself, and loses nothing."""

import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from tests.conftest import Soulspot, until, write_song

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def small_disk(soulspot: Soulspot) -> Iterator[Soulspot]:
    """A catalogue on a disk of its own, of 4 MB."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk takes root")
    disk = soulspot.database.parent
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", disk], check=True)
    yield soulspot
    for process in soulspot.running:
        process.kill()
        process.wait()
    until(lambda: subprocess.run(["umount", disk], check=False).returncode == 0)  # busy while its tag readers still end


def drop(soulspot: Soulspot, count: int, start: int = 0) -> None:
    song = write_song(soulspot.music.parent / "song.mp3")
    for number in range(start, start + count):
        shutil.copyfile(song, soulspot.music / f"{number}.mp3")


def assert_catalogue_matches_disk(soulspot: Soulspot) -> None:
    """Wait until the catalogue has every file on the disk; check that it added each one once."""
    on_disk = {file.name for file in soulspot.music.iterdir()}
    until(lambda: {path for path, _title in soulspot.tracks()} == on_disk, 60)
    added = soulspot.rows("SELECT count(*), count(DISTINCT entity_id) FROM audit_log WHERE action = 'track_added'")
    assert added == soulspot.rows("SELECT count(*), count(*) FROM tracks")
    assert soulspot.rows("PRAGMA integrity_check") == [("ok",)]


def process_state(pid: int) -> str:
    """Return the state of a process as one letter: "T" is stopped, "Z" is dead or gone (proc(5))."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "Z"


def fill(disk: Path) -> Path:
    """Fill a disk; return the file to delete."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(b"x" * 4096):
            pass
    return filler


def has_logged(soulspot: Soulspot, *texts: str) -> bool:
    log = soulspot.log.read_text()
    return all(each in log for each in texts)


@contextmanager
def locked(database: Path) -> Iterator[None]:
    other = sqlite3.connect(database, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    yield
    other.execute("ROLLBACK")
    other.close()


@pytest.mark.root
def test_ingest_pauses_on_a_full_disk_and_resumes_when_space_is_freed(small_disk: Soulspot) -> None:
    daemon = small_disk.watch()
    filler = fill(small_disk.database.parent)

    drop(small_disk, 20)
    until(lambda: has_logged(small_disk, "paused: the database refuses", "full"))
    assert daemon.poll() is None
    filler.unlink()

    assert_catalogue_matches_disk(small_disk)
    assert has_logged(small_disk, "the database answers again")


@pytest.mark.root
def test_a_stop_during_a_pause_is_quick_and_the_next_start_finishes(small_disk: Soulspot) -> None:
    daemon = small_disk.watch()
    filler = fill(small_disk.database.parent)
    drop(small_disk, 20)
    until(lambda: has_logged(small_disk, "paused: the database refuses"))

    began = time.monotonic()
    daemon.send_signal(signal.SIGTERM)

    assert daemon.wait(timeout=15) == 0
    assert time.monotonic() - began < 10
    filler.unlink()
    small_disk.watch()
    assert_catalogue_matches_disk(small_disk)


@pytest.mark.root
@pytest.mark.parametrize("is_new", [True, False])
def test_a_start_on_a_full_disk_waits_for_space(small_disk: Soulspot, *, is_new: bool) -> None:
    if not is_new:
        drop(small_disk, 3)
        small_disk.scan()
    filler = fill(small_disk.database.parent)
    drop(small_disk, 5, start=3)

    daemon = small_disk.start_watching()
    until(lambda: has_logged(small_disk, "paused: the database refuses"))
    assert daemon.poll() is None
    filler.unlink()
    until(lambda: has_logged(small_disk, "watching"))

    assert_catalogue_matches_disk(small_disk)
    assert daemon.poll() is None, small_disk.log.read_text()


@pytest.mark.root
def test_a_start_on_a_read_only_disk_is_refused(small_disk: Soulspot) -> None:
    small_disk.scan()
    disk = small_disk.database.parent
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)

    result = small_disk.run("watch", str(small_disk.music))

    assert result.returncode == 78
    assert f"cannot write {disk}" in result.stderr


def test_ingest_pauses_while_another_program_locks_the_database(soulspot: Soulspot) -> None:
    soulspot.watch()

    with locked(soulspot.database):
        drop(soulspot, 20)
        until(lambda: has_logged(soulspot, "paused: the database refuses (database is locked)"))
        assert soulspot.tracks() == set()

    assert_catalogue_matches_disk(soulspot)


def test_a_start_waits_until_another_program_unlocks_the_database(soulspot: Soulspot) -> None:
    soulspot.scan()
    soulspot.rows("SELECT 1")
    drop(soulspot, 3)
    with locked(soulspot.database):
        soulspot.start_watching()
        until(lambda: has_logged(soulspot, "database is locked"))

    assert_catalogue_matches_disk(soulspot)


def test_running_out_of_descriptors_delays_but_loses_no_file(soulspot: Soulspot) -> None:
    daemon = soulspot.watch()
    allowed = resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (3, allowed[1]))

    drop(soulspot, 20)
    (soulspot.music / "folder").mkdir()
    time.sleep(2)
    (soulspot.music / "folder").rmdir()
    resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, allowed)

    assert_catalogue_matches_disk(soulspot)
    assert daemon.poll() is None


def test_killing_all_tag_readers_loses_no_file(soulspot: Soulspot) -> None:
    soulspot.readers = {}
    daemon = soulspot.watch()
    drop(soulspot, 300)

    until(soulspot.tracks)
    # All readers must die before the daemon sees the first death. Else it hands the same file to another reader that
    # is about to die, and a file that kills two readers is a failure.
    daemon.send_signal(signal.SIGSTOP)
    until(lambda: process_state(daemon.pid) == "T")
    readers = list(map(int, Path(f"/proc/{daemon.pid}/task/{daemon.pid}/children").read_text().split()))
    for reader in readers:
        os.kill(reader, signal.SIGKILL)
    until(lambda: all(process_state(reader) == "Z" for reader in readers))
    daemon.send_signal(signal.SIGCONT)

    assert_catalogue_matches_disk(soulspot)


def test_a_machine_that_wakes_from_sleep_finds_all_changes(soulspot: Soulspot) -> None:
    drop(soulspot, 5)
    daemon = soulspot.watch()
    until(lambda: len(soulspot.tracks()) == 5)

    daemon.send_signal(signal.SIGSTOP)
    drop(soulspot, 5, start=5)
    (soulspot.music / "0.mp3").rename(soulspot.music / "renamed.mp3")
    time.sleep(0.5)
    daemon.send_signal(signal.SIGCONT)

    assert_catalogue_matches_disk(soulspot)
    assert soulspot.actions("track_moved") == 1


@pytest.mark.parametrize("stamp", [0, 1, 4_000_000_000])
def test_a_wrong_clock_neither_delays_nor_duplicates_files(soulspot: Soulspot, stamp: int) -> None:
    drop(soulspot, 2)
    os.utime(soulspot.music / "0.mp3", (stamp, stamp))
    soulspot.scan()
    before = soulspot.dump()

    soulspot.scan()

    assert len(soulspot.tracks()) == 2
    assert soulspot.dump() == before


@pytest.mark.parametrize("reader", ["gone", "stuck", "absent from the start"])
def test_ingest_continues_when_the_log_pipe_is_closed_or_full(soulspot: Soulspot, reader: str) -> None:
    soulspot.scan()
    ours, theirs = os.pipe()
    command = [*soulspot.command, "watch", str(soulspot.music)]
    environment = soulspot.environment | {"SOULSPOT_LOG__LEVEL": "debug"}
    if reader == "absent from the start":
        daemon = subprocess.Popen(["sh", "-c", 'exec "$@" 2>&-', "sh", *command], env=environment)
    else:
        daemon = subprocess.Popen(command, env=environment, stderr=theirs)
    soulspot.running.append(daemon)
    if reader == "gone":
        os.close(ours)
    if reader == "stuck":
        os.set_blocking(theirs, False)
        with suppress(BlockingIOError):
            while os.write(theirs, b"x" * 4096):
                pass
        os.set_blocking(theirs, True)
    os.close(theirs)

    drop(soulspot, 50)

    until(lambda: len(soulspot.tracks()) == 50)
    daemon.send_signal(signal.SIGTERM)
    assert daemon.wait(timeout=15) == 0


def test_a_repeated_message_is_logged_once(soulspot: Soulspot) -> None:
    soulspot.watch()

    with locked(soulspot.database):
        drop(soulspot, 20)
        until(lambda: has_logged(soulspot, "paused"))
        time.sleep(1)

    assert_catalogue_matches_disk(soulspot)
    assert soulspot.log.read_text().count("paused") == 1
