"""Disks and servers that answer with an error, for a while: nothing is concluded from that, and nothing is lost."""

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import Soulspot, until, write_song
from tests.support.faulty_filesystem import READING, WRITING, IllDisk, why_no_ill_disk
from tests.test_environment import assert_equal_to_the_disk, drop, says

pytestmark = [pytest.mark.timeout(60), pytest.mark.root]

ILLNESSES = ["EIO", "ESTALE", "EBUSY", "ETIMEDOUT"]


@pytest.fixture
def ill(soulspot: Soulspot) -> Iterator[IllDisk]:
    """The music lies on a disk that can be ill."""
    yield from _ill_disk(soulspot, soulspot.music)


@pytest.fixture
def ill_catalogue(soulspot: Soulspot) -> Iterator[IllDisk]:
    """The catalogue lies on a disk that can be ill."""
    yield from _ill_disk(soulspot, soulspot.database.parent)


def _ill_disk(soulspot: Soulspot, place: Path) -> Iterator[IllDisk]:
    if (reason := why_no_ill_disk()) is not None:
        pytest.skip(reason)
    disk = IllDisk(place.with_name(f"{place.name}-below"), place)
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


@pytest.mark.parametrize("illness", ILLNESSES)
def test_files_that_cannot_be_read_are_failures_until_they_can(soulspot: Soulspot, ill: IllDisk, illness: str) -> None:
    ill.fall_ill(illness, "read", below="/1*")
    daemon = watch(soulspot)
    drop(soulspot, 20)

    until(lambda: len(soulspot.tracks()) == 9)
    until(
        lambda: (
            soulspot.rows("SELECT DISTINCT error_code, count(*) FROM files WHERE status = 'failed'")
            == [("unreadable", 11)]
        )
    )
    ill.recover()

    assert_equal_to_the_disk(soulspot)
    assert daemon.poll() is None


@pytest.mark.parametrize("illness", ILLNESSES)
@pytest.mark.parametrize("operation", ["getattr", "open"])
def test_what_cannot_be_looked_at_is_not_gone(soulspot: Soulspot, ill: IllDisk, illness: str, operation: str) -> None:
    daemon = watch(soulspot)
    drop(soulspot, 10)
    until(lambda: len(soulspot.tracks()) == 10)

    ill.fall_ill(illness, operation, below="/*.mp3")
    drop_below(ill, 10, start=10)
    time.sleep(4)
    assert daemon.poll() is None, soulspot.log.read_text()
    ill.recover()

    assert_equal_to_the_disk(soulspot)
    assert soulspot.actions("track_missing") == 0


def drop_below(ill: IllDisk, count: int, start: int) -> None:
    """Put songs on the disk by another way, as another machine does that has it too."""
    for number in range(start, start + count):
        write_song(ill.source / f"{number}.mp3")


@pytest.mark.parametrize("illness", ILLNESSES)
def test_a_folder_that_cannot_be_listed_loses_nothing_and_is_told(
    soulspot: Soulspot, ill: IllDisk, illness: str
) -> None:
    write_song(ill.source / "album" / "a.mp3")
    write_song(ill.source / "b.mp3")
    watch(soulspot)
    until(lambda: len(soulspot.tracks()) == 2)

    ill.fall_ill(illness, "readdir", below="/album")
    drop_below(ill, 1, start=0)
    until(lambda: len(soulspot.tracks()) == 3)
    time.sleep(3)
    assert soulspot.actions("track_missing") == 0
    told = status(soulspot)
    ill.recover()

    assert told["health"] == "degraded"
    assert f"{soulspot.music}/album cannot be read" in told["reasons"][0]
    write_song(ill.source / "album" / "c.mp3")
    until(lambda: len(soulspot.tracks()) == 4)
    until(lambda: status(soulspot)["health"] == "ok")


@pytest.mark.parametrize("illness", ILLNESSES)
def test_a_server_that_answers_nothing_well_is_offline_until_it_does(
    soulspot: Soulspot, ill: IllDisk, illness: str
) -> None:
    daemon = watch(soulspot)
    drop(soulspot, 10)
    until(lambda: len(soulspot.tracks()) == 10)

    ill.fall_ill(illness, *READING)
    until(lambda: f"folder {soulspot.music} is offline: it cannot be read" in str(status(soulspot)["reasons"]))
    told = status(soulspot)
    drop_below(ill, 10, start=10)
    ill.recover()

    assert told["health"] == "degraded"
    assert_equal_to_the_disk(soulspot)
    assert says(soulspot, "is offline", "is online again")
    assert soulspot.actions("track_missing") == 0
    assert daemon.poll() is None


def test_a_server_that_is_gone_and_comes_back_loses_nothing(soulspot: Soulspot, ill: IllDisk) -> None:
    daemon = watch(soulspot)
    drop(soulspot, 10)
    until(lambda: len(soulspot.tracks()) == 10)

    ill.die()
    until(lambda: says(soulspot, "is offline: it cannot be read: Transport endpoint is not connected"))
    subprocess.run(["umount", "--lazy", ill.place], check=True)
    drop_below(ill, 10, start=10)
    ill.mount()

    assert_equal_to_the_disk(soulspot)
    assert soulspot.actions("track_missing") == 0
    assert daemon.poll() is None


def test_an_import_from_a_disk_that_fails_now_and_then_ends_complete(soulspot: Soulspot, ill: IllDisk) -> None:
    drop_below(ill, 200, start=0)
    daemon = watch(soulspot)
    for illness in ILLNESSES * 2:
        ill.fall_ill(illness, *READING, below="*1*")
        time.sleep(0.4)
        ill.recover()
        time.sleep(0.3)

    assert_equal_to_the_disk(soulspot)
    assert soulspot.actions("track_missing") == 0
    assert daemon.poll() is None


@pytest.mark.parametrize("illness", ["EIO", "EROFS", "ENOSPC", "EDQUOT", "ESTALE"])
def test_a_catalogue_that_cannot_be_written_pauses_and_goes_on(
    soulspot: Soulspot, ill_catalogue: IllDisk, illness: str
) -> None:
    daemon = soulspot.watch()
    drop(soulspot, 5)
    until(lambda: len(soulspot.tracks()) == 5)

    ill_catalogue.fall_ill(illness, *WRITING)
    drop(soulspot, 10, start=5)
    until(lambda: says(soulspot, "paused: the database refuses"))
    told = status(soulspot)
    assert daemon.poll() is None
    ill_catalogue.recover()

    assert told["health"] == "paused", told
    assert_equal_to_the_disk(soulspot)
    assert says(soulspot, "the database answers again")


@pytest.mark.parametrize("illness", ["EIO", "ESTALE", "ETIMEDOUT"])
def test_a_catalogue_whose_disk_answers_nothing_pauses_and_goes_on(
    soulspot: Soulspot, ill_catalogue: IllDisk, illness: str
) -> None:
    daemon = soulspot.watch()
    drop(soulspot, 5)
    until(lambda: len(soulspot.tracks()) == 5)

    ill_catalogue.fall_ill(illness, *READING, *WRITING)
    drop(soulspot, 10, start=5)
    until(lambda: says(soulspot, "paused: the database refuses"))
    asked = soulspot.run("status")
    assert daemon.poll() is None, soulspot.log.read_text()
    ill_catalogue.recover()

    assert_equal_to_the_disk(soulspot)
    assert len(asked.stderr.splitlines()) == 1, asked.stderr  # even its socket cannot be reached


@pytest.mark.parametrize("illness", ["EIO", "ESTALE", "ETIMEDOUT"])
def test_the_daemon_says_how_it_is_although_nobody_can_read_its_catalogue(
    soulspot: Soulspot, ill_catalogue: IllDisk, illness: str
) -> None:
    soulspot.watch()
    drop(soulspot, 1)
    until(lambda: len(soulspot.tracks()) == 1)

    ill_catalogue.fall_ill(illness, "open", "read", *WRITING)
    drop(soulspot, 1, start=1)
    until(lambda: says(soulspot, "paused: the database refuses"))
    told, said = status(soulspot), soulspot.run("status").stdout
    ill_catalogue.recover()

    assert (told["health"], told["database"], len(told["folders"])) == ("paused", None, 1)
    assert "database  cannot be read: " in said
    assert_equal_to_the_disk(soulspot)
