"""Disks and file servers that fail for a while: no file goes missing meanwhile, and nothing is lost."""

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import Soulspot, until, write_song
from tests.support.faulty_filesystem import READING, WRITING, FaultyFilesystem, why_no_faulty_filesystem
from tests.test_environment import assert_catalogue_matches_disk, drop, has_logged

pytestmark = [pytest.mark.timeout(60), pytest.mark.root]

ERRORS = ["EIO", "ESTALE", "EBUSY", "ETIMEDOUT"]


@pytest.fixture
def faulty_music(soulspot: Soulspot) -> Iterator[FaultyFilesystem]:
    """Music on a disk that can fail."""
    yield from _faulty(soulspot, soulspot.music)


@pytest.fixture
def faulty_catalogue(soulspot: Soulspot) -> Iterator[FaultyFilesystem]:
    """A catalogue on a disk that can fail."""
    yield from _faulty(soulspot, soulspot.database.parent)


def _faulty(soulspot: Soulspot, place: Path) -> Iterator[FaultyFilesystem]:
    if (reason := why_no_faulty_filesystem()) is not None:
        pytest.skip(reason)
    disk = FaultyFilesystem(place.with_name(f"{place.name}-below"), place)
    disk.mount()
    yield disk
    disk.recover()
    soulspot.kill()
    disk.unmount()


def watch(soulspot: Soulspot, **settings: str) -> subprocess.Popen[bytes]:
    return soulspot.watch(
        SOULSPOT_LIBRARY__POLL_INTERVAL="1",
        SOULSPOT_LIBRARY__QUIET_PERIOD="0.2",
        SOULSPOT_LIBRARY__MISSING_AFTER="1",
        **settings,
    )


def status(soulspot: Soulspot) -> dict[str, Any]:
    return dict(json.loads(soulspot.run("status", "--json").stdout))


@pytest.mark.parametrize("error", ERRORS)
def test_unreadable_files_are_failures_until_the_disk_recovers(
    soulspot: Soulspot, faulty_music: FaultyFilesystem, error: str
) -> None:
    faulty_music.fail(error, "read", below="/1*")
    daemon = watch(soulspot)
    drop(soulspot, 20)

    until(lambda: len(soulspot.tracks()) == 9)
    until(
        lambda: (
            soulspot.rows("SELECT DISTINCT error_code, count(*) FROM files WHERE status = 'failed'")
            == [("unreadable", 11)]
        )
    )
    faulty_music.recover()

    assert_catalogue_matches_disk(soulspot)
    assert daemon.poll() is None


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("operation", ["getattr", "open"])
def test_a_file_that_cannot_be_checked_does_not_go_missing(
    soulspot: Soulspot, faulty_music: FaultyFilesystem, error: str, operation: str
) -> None:
    daemon = watch(soulspot)
    drop(soulspot, 10)
    until(lambda: len(soulspot.tracks()) == 10)

    faulty_music.fail(error, operation, below="/*.mp3")
    drop_below(faulty_music, 10, start=10)
    time.sleep(4)
    assert daemon.poll() is None, soulspot.log.read_text()
    faulty_music.recover()

    assert_catalogue_matches_disk(soulspot)
    assert soulspot.actions("track_missing") == 0


def drop_below(faulty_music: FaultyFilesystem, count: int, start: int) -> None:
    """Write songs beneath the mount, as another machine would that shares the disk."""
    for number in range(start, start + count):
        write_song(faulty_music.source / f"{number}.mp3")


@pytest.mark.parametrize("error", ERRORS)
def test_an_unlistable_folder_degrades_the_health_and_loses_no_file(
    soulspot: Soulspot, faulty_music: FaultyFilesystem, error: str
) -> None:
    write_song(faulty_music.source / "album" / "a.mp3")
    write_song(faulty_music.source / "b.mp3")
    watch(soulspot)
    until(lambda: len(soulspot.tracks()) == 2)

    faulty_music.fail(error, "readdir", below="/album")
    drop_below(faulty_music, 1, start=0)
    until(lambda: len(soulspot.tracks()) == 3)
    time.sleep(3)
    assert soulspot.actions("track_missing") == 0
    report = status(soulspot)
    faulty_music.recover()

    assert report["health"] == "degraded"
    assert f"{soulspot.music}/album cannot be read" in report["reasons"][0]
    write_song(faulty_music.source / "album" / "c.mp3")
    until(lambda: len(soulspot.tracks()) == 4)
    until(lambda: status(soulspot)["health"] == "ok")


@pytest.mark.parametrize("error", ERRORS)
def test_a_folder_on_a_failing_server_is_offline_until_it_recovers(
    soulspot: Soulspot, faulty_music: FaultyFilesystem, error: str
) -> None:
    daemon = watch(soulspot)
    drop(soulspot, 10)
    until(lambda: len(soulspot.tracks()) == 10)

    faulty_music.fail(error, *READING)
    until(lambda: f"folder {soulspot.music} is offline: it cannot be read" in str(status(soulspot)["reasons"]))
    report = status(soulspot)
    drop_below(faulty_music, 10, start=10)
    faulty_music.recover()

    assert report["health"] == "degraded"
    assert_catalogue_matches_disk(soulspot)
    assert has_logged(soulspot, "is offline", "is online again")
    assert soulspot.actions("track_missing") == 0
    assert daemon.poll() is None


def test_a_server_that_disappears_and_returns_loses_nothing(soulspot: Soulspot, faulty_music: FaultyFilesystem) -> None:
    daemon = watch(soulspot)
    drop(soulspot, 10)
    until(lambda: len(soulspot.tracks()) == 10)

    faulty_music.kill_server()
    until(lambda: has_logged(soulspot, "is offline: it cannot be read: Transport endpoint is not connected"))
    subprocess.run(["umount", "--lazy", faulty_music.mount_point], check=True)
    drop_below(faulty_music, 10, start=10)
    faulty_music.mount()

    assert_catalogue_matches_disk(soulspot)
    assert soulspot.actions("track_missing") == 0
    assert daemon.poll() is None


def test_an_import_from_an_unreliable_disk_catalogues_every_file(
    soulspot: Soulspot, faulty_music: FaultyFilesystem
) -> None:
    drop_below(faulty_music, 200, start=0)
    daemon = watch(soulspot)
    for error in ERRORS * 2:
        faulty_music.fail(error, *READING, below="*1*")
        time.sleep(0.4)
        faulty_music.recover()
        time.sleep(0.3)

    assert_catalogue_matches_disk(soulspot)
    assert soulspot.actions("track_missing") == 0
    assert daemon.poll() is None


@pytest.mark.parametrize("error", ["EIO", "EROFS", "ENOSPC", "EDQUOT", "ESTALE"])
def test_ingest_pauses_on_write_errors_until_the_catalogue_disk_recovers(
    soulspot: Soulspot, faulty_catalogue: FaultyFilesystem, error: str
) -> None:
    daemon = soulspot.watch()
    drop(soulspot, 5)
    until(lambda: len(soulspot.tracks()) == 5)

    faulty_catalogue.fail(error, *WRITING)
    drop(soulspot, 10, start=5)
    until(lambda: has_logged(soulspot, "paused: the database refuses"))
    report = status(soulspot)
    assert daemon.poll() is None
    faulty_catalogue.recover()

    assert report["health"] == "paused", report
    assert_catalogue_matches_disk(soulspot)
    assert has_logged(soulspot, "the database answers again")


@pytest.mark.parametrize("error", ["EIO", "ESTALE", "ETIMEDOUT"])
def test_ingest_pauses_until_a_dead_catalogue_disk_recovers(
    soulspot: Soulspot, faulty_catalogue: FaultyFilesystem, error: str
) -> None:
    daemon = soulspot.watch()
    drop(soulspot, 5)
    until(lambda: len(soulspot.tracks()) == 5)

    faulty_catalogue.fail(error, *READING, *WRITING)
    drop(soulspot, 10, start=5)
    until(lambda: has_logged(soulspot, "paused: the database refuses"))
    result = soulspot.run("status")
    assert daemon.poll() is None, soulspot.log.read_text()
    faulty_catalogue.recover()

    assert_catalogue_matches_disk(soulspot)
    assert len(result.stderr.splitlines()) == 1, result.stderr  # the socket of the daemon is unreachable too


@pytest.mark.parametrize("error", ["EIO", "ESTALE", "ETIMEDOUT"])
def test_status_works_while_the_catalogue_cannot_be_read(
    soulspot: Soulspot, faulty_catalogue: FaultyFilesystem, error: str
) -> None:
    soulspot.watch()
    drop(soulspot, 1)
    until(lambda: len(soulspot.tracks()) == 1)

    faulty_catalogue.fail(error, "open", "read", *WRITING)
    drop(soulspot, 1, start=1)
    until(lambda: has_logged(soulspot, "paused: the database refuses"))
    report, printed = status(soulspot), soulspot.run("status").stdout
    faulty_catalogue.recover()

    assert (report["health"], report["database"], len(report["folders"])) == ("paused", None, 1)
    assert "database  cannot be read: " in printed
    assert_catalogue_matches_disk(soulspot)
