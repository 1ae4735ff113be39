"""An unmounted disk loses no files; deleted files go missing and are never removed. On each database."""

import asyncio
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.conftest import AUDIO, write_song
from tests.support.in_process import InProcessDaemon, shared

from soulspot.ingest.pause_gate import Paused

SONG = (AUDIO / "tone.mp3").read_bytes()


def fill(folder: Path, files: int) -> None:
    for number in range(files):
        subfolder = folder / f"f{number // 20}"
        subfolder.mkdir(exist_ok=True)
        (subfolder / f"{number}.mp3").write_bytes(SONG)


def scan_twice(daemon: InProcessDaemon) -> None:
    """Scan everything twice, with a pause longer than the grace period."""
    for _turn in range(2):
        daemon.scan()
        time.sleep(0.1)


class Disk:
    """A file system in an image file, which can be mounted and unmounted."""

    def __init__(self, image: Path, mount_point: Path) -> None:
        self.image, self.mount_point = image, mount_point
        self.other: Disk
        image.write_bytes(b"")
        os.truncate(image, 48 << 20)
        subprocess.run(["mkfs.ext4", "-q", "-N", "20000", str(image)], check=True)

    def mount(self) -> None:
        subprocess.run(["mount", "-o", "loop", str(self.image), str(self.mount_point)], check=True)

    def unmount(self) -> None:
        subprocess.run(["umount", str(self.mount_point)], check=True)


@pytest.fixture
def make_disk(tmp_path: Path) -> Iterator[Callable[[str, Path], Disk]]:
    disks: list[Disk] = []

    def make(name: str, mount_point: Path) -> Disk:
        disk = Disk(tmp_path / f"{name}.img", mount_point)
        disks.append(disk)
        disk.mount()
        return disk

    yield make
    for disk in reversed(disks):
        while os.path.ismount(disk.mount_point):
            disk.unmount()


def rows(daemon: InProcessDaemon) -> list[tuple[object, ...]]:
    """Return every row about files and tracks."""
    return daemon.rows("SELECT * FROM files ORDER BY id") + daemon.rows("SELECT * FROM tracks ORDER BY id")


@pytest.mark.root
def test_a_library_of_5000_files_survives_the_loss_of_its_disk(
    catalogue_url: str, tmp_path: Path, make_disk: Callable[[str, Path], Disk]
) -> None:
    """Unmount the disk, empty it, and mount another over it; each for ten minutes, with a restart in between.

    PostgreSQL gets a tenth of the files: its queries are the same.
    """
    songs = 5000 if catalogue_url.startswith("sqlite") else 500
    mount_point = tmp_path / "disk"
    mount_point.mkdir()
    disk = make_disk("library", mount_point)
    music = mount_point / "music"
    music.mkdir()
    fill(music, songs)
    now = [0.0]
    daemon = InProcessDaemon(catalogue_url, music, watching=False, missing_after=10, clock=lambda: now[0])
    with daemon:
        daemon.scan(120)
        before = rows(daemon)
    assert len(before) == 2 * songs

    def put_another_device() -> None:
        disk.unmount()
        disk.other = make_disk("other", mount_point)
        write_song(music / "foreign.mp3")

    def take_it_away() -> None:
        disk.other.unmount()
        disk.mount()

    ways: list[tuple[Callable[[], None], Callable[[], None], str]] = [
        (disk.unmount, disk.mount, "it does not exist"),
        (
            lambda: move_content(music, mount_point / "away"),
            lambda: move_content(music, mount_point / "away"),
            "it is empty",
        ),
        (put_another_device, take_it_away, "another file system"),
    ]
    for go_away, come_back, reason in ways:
        daemon.start()
        go_away()
        for restart in (False, True):
            if restart:
                daemon.stop()
                daemon.start()
            for _minute in range(10):
                now[0] += 60
                daemon.scan()
            assert rows(daemon) == before, reason
            assert reason in daemon.rows("SELECT status_reason FROM folders WHERE status = 'offline'")[0][0]
        come_back()
        now[0] += 600
        daemon.scan(60)
        assert rows(daemon) == before, reason
        assert daemon.rows("SELECT status FROM folders WHERE status = 'offline'") == []
        daemon.stop()


def move_content(folder: Path, other: Path) -> None:
    """Move the content of a folder away, or back."""
    source, target = (folder, other) if any(folder.iterdir()) else (other, folder)
    target.mkdir(exist_ok=True)
    for each in list(source.iterdir()):
        each.rename(target / each.name)


@pytest.mark.root
def test_a_new_device_number_for_the_same_disk_changes_nothing(
    catalogue_url: str, tmp_path: Path, music: Path, make_disk: Callable[[str, Path], Disk]
) -> None:
    disk = make_disk("library", music)
    fill(music, 60)
    daemon = InProcessDaemon(catalogue_url, music, watching=False)
    with daemon:
        daemon.scan()
        before, device = rows(daemon), music.stat().st_dev
    disk.unmount()
    disk.mount()
    while music.stat().st_dev == device:  # a test that runs in parallel may take its number
        disk.unmount()
        spare = tmp_path / f"spare {len(list(tmp_path.iterdir()))}"
        spare.mkdir()
        make_disk(spare.name, spare)
        disk.mount()

    with daemon:
        scan_twice(daemon)

        assert rows(daemon) == before
        assert not daemon.pipeline.faults


@pytest.mark.root
@pytest.mark.parametrize("restart", [False, True])
def test_unmounting_a_nested_file_system_loses_no_files(
    catalogue_url: str, music: Path, make_disk: Callable[[str, Path], Disk], *, restart: bool
) -> None:
    (music / "usb").mkdir()
    disk = make_disk("usb", music / "usb")
    fill(music / "usb", 30)
    write_song(music / "local.flac")
    daemon = InProcessDaemon(catalogue_url, music, watching=False)
    daemon.start()
    daemon.scan()
    before = rows(daemon)

    disk.unmount()
    if restart:
        daemon.stop()
        daemon.start()
    scan_twice(daemon)

    assert rows(daemon) == before
    assert daemon.rows("SELECT status FROM folders WHERE path LIKE '%/usb'") == [("unmounted",)]
    disk.mount()
    scan_twice(daemon)
    assert rows(daemon) == before
    assert daemon.rows("SELECT status FROM folders WHERE path LIKE '%/usb'") == [("mounted",)]
    (music / "usb" / "f0" / "0.mp3").unlink()
    scan_twice(daemon)
    assert daemon.paths("missing") == {"usb/f0/0.mp3"}
    daemon.stop()


@pytest.mark.root
def test_a_file_system_mounted_over_known_files_only_hides_them(
    catalogue_url: str, music: Path, make_disk: Callable[[str, Path], Disk]
) -> None:
    write_song(music / "album" / "song.mp3")
    write_song(music / "local.flac")
    daemon = InProcessDaemon(catalogue_url, music, watching=False)
    with daemon:
        daemon.scan()
        before = rows(daemon)
        over = make_disk("over", music / "album")
        scan_twice(daemon)
        assert rows(daemon) == before

    with daemon:  # after a restart too
        scan_twice(daemon)
        assert rows(daemon) == before
        over.unmount()
        scan_twice(daemon)
        assert rows(daemon) == before
        assert daemon.rows("SELECT status FROM folders WHERE path LIKE '%/album'") == [("mounted",)]


@pytest.mark.root
def test_a_person_can_confirm_that_a_nested_file_system_is_gone(
    catalogue_url: str, music: Path, make_disk: Callable[[str, Path], Disk]
) -> None:
    (music / "usb").mkdir()
    disk = make_disk("usb", music / "usb")
    fill(music / "usb", 3)
    write_song(music / "local.flac")
    with InProcessDaemon(catalogue_url, music, watching=False) as daemon:
        daemon.scan()
    disk.unmount()

    with InProcessDaemon(catalogue_url, music, watching=False, confirmed=True) as daemon:
        scan_twice(daemon)

        assert daemon.paths() == {"local.flac"}
        assert len(daemon.paths("missing")) == 3


@pytest.mark.root
def test_a_running_daemon_notices_an_unmount_and_a_remount(
    catalogue_url: str, music: Path, make_disk: Callable[[str, Path], Disk], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("soulspot.ingest.polling.ROOT_CHECK", 0.1)
    disk = make_disk("library", music)
    write_song(music / "song.mp3")
    with InProcessDaemon(catalogue_url, music, polling=True) as daemon:
        daemon.until(lambda: daemon.paths() == {"song.mp3"})
        subprocess.run(["umount", "--lazy", str(music)], check=True)
        daemon.until(lambda: daemon.pipeline.faults)
        disk.mount()
        daemon.until(lambda: not daemon.pipeline.faults)

        write_song(music / "new.mp3")

        daemon.until(lambda: daemon.paths() == {"song.mp3", "new.mp3"})
        assert "track_missing" not in daemon.actions()


def test_a_loss_of_over_a_fifth_and_50_files_is_held_and_reported(catalogue_url: str, music: Path) -> None:
    fill(music, 300)
    with InProcessDaemon(catalogue_url, music, watching=False) as daemon:
        daemon.scan()
        for folder in ("f0", "f1", "f2", "f3"):  # 80 of 300
            shutil.rmtree(music / folder)

        scan_twice(daemon)

        assert len(daemon.paths()) == 300
        status = daemon.rows("SELECT status, status_reason FROM folders")
        assert status == [("held", "80 of its 300 files are gone")]
    with InProcessDaemon(catalogue_url, music, watching=False, confirmed=True) as daemon:
        scan_twice(daemon)
        assert len(daemon.paths("missing")) == 80
        assert daemon.rows("SELECT status FROM folders") == [("online",)]


def test_a_held_loss_ends_when_its_files_return(catalogue_url: str, music: Path) -> None:
    fill(music, 300)
    with InProcessDaemon(catalogue_url, music, watching=False) as daemon:
        daemon.scan()
        (music / "f0").rename(music.parent / "f0")
        for folder in ("f1", "f2", "f3"):
            (music / folder).rename(music.parent / folder)
        scan_twice(daemon)
        for folder in ("f0", "f1", "f2", "f3"):
            (music.parent / folder).rename(music / folder)
        scan_twice(daemon)

        assert daemon.rows("SELECT status, status_reason FROM folders") == [("online", None)]
        assert daemon.actions() == ["track_added"] * 300


def test_a_held_loss_ends_when_its_files_reappear_elsewhere(catalogue_url: str, music: Path) -> None:
    fill(music, 300)
    with InProcessDaemon(catalogue_url, music, watching=False, missing_after=0.3) as daemon:
        daemon.scan()
        ids = set(daemon.ids().values())
        (music / "f0").rename(music.parent / "elsewhere")
        for folder in ("f1", "f2", "f3"):
            (music / folder).rename(music.parent / "elsewhere" / folder)
        scan_twice(daemon)
        held = daemon.rows("SELECT status FROM folders")
        (music.parent / "elsewhere").rename(music / "new")

        daemon.scan()

        assert (held, daemon.rows("SELECT status, status_reason FROM folders")) == ([("held",)], [("online", None)])
        assert set(daemon.ids().values()) == ids
        assert set(daemon.actions()) == {"track_added", "track_moved"}


def test_the_pipeline_is_not_quiet_while_a_scan_runs(tmp_path: Path, music: Path) -> None:
    """The scan may not have reached the new path of a vanished file yet, even if no file is in progress."""
    write_song(music / "one.mp3")
    with InProcessDaemon(tmp_path / "state", music, watching=False) as daemon:
        daemon.scan()
        daemon.gate.close(Paused(datetime.now(UTC), "a test"))
        walk = asyncio.run_coroutine_threadsafe(daemon.pipeline.reconciler.reconcile(daemon.roots[0]), shared().loop)
        daemon.until(lambda: daemon.pipeline.walks)

        quiet = [daemon.pipeline.is_quiet]
        shared().loop.call_soon_threadsafe(daemon.gate.open)
        walk.result(10)
        quiet.append(daemon.pipeline.is_quiet)

    assert quiet == [False, True]


def test_no_hint_is_checked_during_a_pause(tmp_path: Path, music: Path) -> None:
    with InProcessDaemon(tmp_path / "state", music, watching=False) as daemon:
        daemon.settled()
        daemon.gate.close(Paused(datetime.now(UTC), "a test"))
        write_song(music / "one.mp3")
        write_song(music / "album" / "two.mp3")

        daemon.hint([str(music / "one.mp3"), str(music / "album")])
        daemon.until(lambda: daemon.pipeline.queue.paths)
        time.sleep(0.2)
        waiting = (bool(daemon.pipeline.queue.paths), bool(daemon.pipeline.queue.small_folders), len(daemon.outcomes))
        in_progress = daemon.pipeline.in_progress(10)
        shared().loop.call_soon_threadsafe(daemon.gate.open)
        daemon.until(lambda: len(daemon.outcomes) == 2)

    assert (waiting, in_progress) == ((True, False, 0), [])


@pytest.mark.parametrize(("files", "lost"), [(300, 50), (300, 60), (60, 50)])
def test_a_smaller_loss_is_not_held(catalogue_url: str, music: Path, files: int, lost: int) -> None:
    fill(music, files)
    with InProcessDaemon(catalogue_url, music, watching=False) as daemon:
        daemon.scan()
        for number in range(lost):
            (music / f"f{number // 20}" / f"{number}.mp3").unlink()

        scan_twice(daemon)

        assert len(daemon.paths("missing")) == lost


def test_a_renamed_library_is_not_a_loss(catalogue_url: str, music: Path) -> None:
    fill(music, 300)
    with InProcessDaemon(catalogue_url, music, missing_after=0.0) as daemon:
        daemon.settled()
        before = set(daemon.ids().values())
        (music / "all").mkdir()
        for folder in list(music.glob("f*")):
            folder.rename(music / "all" / folder.name)

        daemon.until(lambda: len([path for path in daemon.paths() if path.startswith("all/")]) == 300, 30)

        assert set(daemon.ids().values()) == before
        assert set(daemon.actions()) == {"track_added", "track_moved"}
        assert not daemon.pipeline.held


def test_a_slow_deletion_of_a_library_is_held_too(catalogue_url: str, music: Path) -> None:
    fill(music, 200)
    with InProcessDaemon(catalogue_url, music, watching=False) as daemon:
        daemon.scan()
        for turn in range(4):
            for number in range(turn * 20, turn * 20 + 20):
                (music / f"f{number // 20}" / f"{number}.mp3").unlink()
            scan_twice(daemon)

        assert len(daemon.paths("missing")) == 40
        assert daemon.pipeline.held
