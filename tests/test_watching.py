"""No file is missed or lost, whatever the disk, the kernel and the copy tools do. Real parts throughout.

Tests of what the catalogue stores run on each database.
"""

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import AUDIO, Soulspot, on_sqlite, until, write_song
from tests.support.in_process import InProcessDaemon, shared

from soulspot.infrastructure import filesystem
from soulspot.infrastructure.watching import watcher
from soulspot.ingest import polling
from soulspot.ingest.activity import Pending
from soulspot.ingest.disk.hints import FolderHints, Hints
from soulspot.ingest.disk.planner import Work
from soulspot.ingest.disk.walker import FoundFile, Root
from soulspot.ingest.intake.queues import Ready

SONG = (AUDIO / "tone.mp3").read_bytes()


def make_songs(folder: Path, count: int, *, per_folder: int = 10) -> set[str]:
    made = set()
    for number in range(count):
        subfolder = folder / f"f{number // per_folder}"
        subfolder.mkdir(exist_ok=True, parents=True)
        (subfolder / f"{number}.mp3").write_bytes(SONG)
        made.add(f"f{number // per_folder}/{number}.mp3")
    return made


# Sleep


def test_the_kernel_wakes_a_sleeping_daemon(soulspot: Soulspot) -> None:
    soulspot.watch()
    waits = []

    for number in range(5):
        time.sleep(1)  # it sleeps after 0.3 s without an event, and polls only every 5 s
        write_song(soulspot.music / f"{number}.mp3")
        began = time.monotonic()
        until(lambda: (f"{number}.mp3", str(number)) in soulspot.tracks())  # noqa: B023 - done before the next round
        waits.append(time.monotonic() - began)

    assert sorted(waits)[3] < 2


# Overflow


def test_files_lost_in_an_overflow_are_found(
    daemon: InProcessDaemon, music: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_songs(music, 30)
    daemon.settled()
    hint = daemon.watcher._on_hint
    monkeypatch.setattr(daemon.watcher, "_on_hint", lambda _paths: None)  # as if the kernel had dropped every event
    monkeypatch.setattr(daemon.watcher, "_burst", 3)

    for number in range(400):
        (music / f"{number}.mp3").write_bytes(SONG)

    daemon.until(lambda: daemon.watcher.overflows >= 1)
    monkeypatch.setattr(daemon.watcher, "_on_hint", hint)
    daemon.until(lambda: len(daemon.paths()) == 430, 30)


@on_sqlite
def test_a_filling_inotify_queue_is_noticed(daemon: InProcessDaemon, music: Path) -> None:
    (descriptor,) = {number for watch in daemon.watcher._watches for number in watch.descriptors}

    assert descriptor in watcher._inotify_descriptors()
    assert daemon.watcher._queued() == 0


@on_sqlite
def test_an_idle_watcher_does_not_check_the_queue(
    daemon: InProcessDaemon, music: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_song(music / "a.mp3")
    daemon.until(lambda: daemon.paths() == {"a.mp3"})
    daemon.until(lambda: not daemon.watcher._has_hints.is_set())
    time.sleep(watcher.STORM_QUIET + 0.2)
    readings = iter(range(1000))
    monkeypatch.setattr(daemon.watcher, "_queued", lambda: next(readings))

    time.sleep(0.3)

    assert next(readings) == 0


# Folders that lost their watch


def test_a_folder_that_lost_its_watch_is_watched_again(
    catalogue_url: str, music: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Create folders while the watcher gets no events from them, as after an overflow."""
    monkeypatch.setattr("soulspot.ingest.scan.reconciler.UNWATCHED_AFTER", 0.1)
    make_songs(music, 20)
    blind = music / "f0"
    key = (blind.stat().st_dev, blind.stat().st_ino)
    real = watcher.Watcher.watched

    def without_blind(self: watcher.Watcher) -> frozenset[tuple[int, int]]:
        return real(self) - {key} if self.restarts == 0 else real(self)

    monkeypatch.setattr(watcher.Watcher, "watched", without_blind)
    with InProcessDaemon(catalogue_url, music, polling=True) as daemon:
        daemon.until(lambda: daemon.watcher.restarts == 1)
        assert str(blind) in daemon.watcher._added
        write_song(blind / "late.mp3")
        daemon.until(lambda: "f0/late.mp3" in daemon.paths())


def test_a_new_watch_starts_before_the_old_one_ends(daemon: InProcessDaemon, music: Path) -> None:
    stop = threading.Event()
    made: list[str] = []

    def write() -> None:
        while not stop.is_set():
            (music / f"{len(made)}.mp3").write_bytes(SONG)
            made.append(f"{len(made)}.mp3")
            time.sleep(0.002)

    writer = threading.Thread(target=write)
    writer.start()
    for restart in range(1, 4):
        shared().loop.call_soon_threadsafe(daemon.watcher.restart)
        while daemon.watcher.restarts < restart:
            time.sleep(0.005)
    stop.set()
    writer.join()

    daemon.until(lambda: daemon.paths() == set(made))
    assert len(watcher._inotify_descriptors()) >= 1


@pytest.mark.root
def test_the_watch_limit_is_logged_once_with_the_command_that_raises_it(tmp_path: Path) -> None:
    """Run in a separate user namespace: lowering its limit affects no other process."""
    music = tmp_path / "music"
    make_songs(music, 60, per_folder=2)
    script = """
        echo 12 > /proc/sys/user/max_inotify_watches
        exec "$0" -m soulspot watch "$1" 2> "$2"
    """
    log = tmp_path / "log"
    environment = os.environ | {"SOULSPOT_DATABASE__URL": f"sqlite+aiosqlite:///{tmp_path}/catalogue.db"}
    command = ["unshare", "--user", "--map-root-user", "sh", "-c", script, sys.executable, str(music), str(log)]
    daemon = subprocess.Popen(command, env=environment)
    try:
        _until(lambda: log.exists() and b"fs.inotify.max_user_watches=" in log.read_bytes())
        (music / "f29" / "late.mp3").write_bytes(SONG)
        _until(lambda: b"f29/late.mp3" in log.read_bytes())
    finally:
        daemon.kill()
        daemon.wait()
    assert log.read_bytes().count(b"sudo sysctl fs.inotify.max_user_watches=") == 1


def _until(condition: Callable[[], object], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


# A watcher that fails


def test_a_failed_watch_restarts_and_finds_missed_files(daemon: InProcessDaemon, music: Path) -> None:
    (Path(os.fsdecode(os.fsencode(music) + b"/caf\xe9.mp3"))).write_bytes(SONG)
    write_song(music / "plain.mp3")

    daemon.until(lambda: daemon.paths() == {"plain.mp3", "caf\\xe9.mp3"})


def test_a_folder_name_that_breaks_every_watch_never_stops_ingest(catalogue_url: str, music: Path) -> None:
    os.mkdir(os.fsencode(music) + b"/caf\xe9")
    with InProcessDaemon(catalogue_url, music, polling=True) as daemon:
        write_song(music / "plain.mp3")
        daemon.until(lambda: daemon.paths() == {"plain.mp3"})
        (Path(os.fsdecode(os.fsencode(music) + b"/caf\xe9/song.mp3"))).write_bytes(SONG)

        daemon.until(lambda: daemon.paths() == {"plain.mp3", "caf\\xe9/song.mp3"})


@on_sqlite
def test_a_watcher_without_events_retries_with_backoff(
    catalogue_url: str, music: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def die(_self: object, _folders: object) -> None:
        died.append(time.monotonic())
        message = "no watch today"
        raise RuntimeError(message)

    died: list[float] = []
    monkeypatch.setattr(watcher.Watcher, "_watch", die)
    with InProcessDaemon(catalogue_url, music, polling=True) as daemon:
        daemon.until(lambda: daemon.watcher.is_falling_back)
        time.sleep(0.3)
        assert len(died) == watcher.MAX_SHORT_WATCHES

        write_song(music / "song.mp3")
        daemon.until(lambda: daemon.paths() == {"song.mp3"})


# Folders polled without an event


def test_a_file_without_an_event_is_found_by_the_mtime_of_its_folder(
    catalogue_url: str, music: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(polling, "FOLDER_CHECK", 0.1)
    make_songs(music, 20)
    with InProcessDaemon(catalogue_url, music, polling=True, missing_after=0) as daemon:
        daemon.until(lambda: len(daemon.paths()) == 20)
        monkeypatch.setattr(daemon.watcher, "_on_hint", lambda _paths: None)

        write_song(music / "f1" / "new.flac")
        (music / "f0" / "0.mp3").unlink()
        write_song(music / "folder" / "deep" / "new.flac")

        daemon.until(lambda: {"f1/new.flac", "folder/deep/new.flac"} < daemon.paths())
        daemon.until(lambda: daemon.paths("missing") == {"f0/0.mp3"})
        assert daemon.polling.missed_by_watcher > 0


def test_a_poll_of_an_unchanged_library_reads_and_writes_nothing(catalogue_url: str, music: Path) -> None:
    make_songs(music, 50)
    with InProcessDaemon(catalogue_url, music, watching=False) as daemon:
        daemon.scan()
        before = daemon.changes()

        changes = daemon.pipeline.folders.find_changes(daemon.roots[0])

        assert changes == ([], [])
        assert len(daemon.pipeline.folders) == 6
        assert daemon.changes() == before


@on_sqlite
def test_a_daemon_that_was_suspended_scans_everything(
    catalogue_url: str, music: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(polling, "ROOT_CHECK", 0.05)
    awake = [0.0]
    with InProcessDaemon(catalogue_url, music, polling=False) as daemon:
        daemon.settled()
        monkeypatch.setattr(daemon.watcher, "_on_hint", lambda _paths: None)
        monkeypatch.setattr(polling, "_awake", lambda: awake[0])
        task = shared().call(_in_loop(daemon.polling._check_roots))
        write_song(music / "song.mp3")
        time.sleep(0.2)
        assert daemon.paths() == set()

        awake[0] += 60

        daemon.until(lambda: daemon.paths() == {"song.mp3"})
        shared().loop.call_soon_threadsafe(task.cancel)


async def _in_loop(work: Callable[[], Coroutine[Any, Any, None]]) -> asyncio.Task[None]:
    return asyncio.create_task(work())


# Bounds


async def test_too_many_hints_become_a_scan_and_the_newest_are_kept() -> None:
    root, hints = Root("1", "/music"), Hints(limit=10)

    hints.add(root, [f"{number}.mp3" for number in range(11)])

    assert hints.take() == {root: [f"{number}.mp3" for number in (10, 9, 8, 7, 6)] + [""]}
    assert not hints


async def test_the_newest_hints_come_before_older_ones() -> None:
    root, hints = Root("1", "/music"), Hints()

    hints.add(root, [f"{number}.mp3" for number in range(2000)])
    hints.add(root, ["", "dropped.mp3"])

    taken = hints.take()
    assert taken[root][:2] == ["dropped.mp3", ""]
    assert taken[root][-1] == "49.mp3"  # some are the oldest: an endless storm starves none
    assert len(taken[root]) == 100
    assert hints


async def test_hinted_files_come_before_scanned_ones_and_both_are_bounded() -> None:
    ready, file = (
        Ready(fresh_room=2, bulk_room=1),
        FoundFile(Root("1", "/music"), "a.mp3", filesystem.Signature(1, 2, 3, 4)),
    )
    found, *named = [Pending(Work(file), is_fresh=number > 0, since=number) for number in range(4)]
    for each in (found, *named[:2]):
        await ready.put(each)
    waiting = asyncio.create_task(ready.put(named[2]))
    await asyncio.sleep(0)
    assert not waiting.done()

    first = await ready.take()
    await waiting

    assert [first, *[await ready.take() for _number in range(3)]] == [*named, found]


async def test_too_many_folders_become_their_root_without_nested_ones() -> None:
    root, folders = Root("1", "/music"), FolderHints(limit=10)

    for prefix in ("a/", "a/b/", "c/"):
        folders.add(root, prefix, 1.0)
    few = folders.take()
    for number in range(11):
        folders.add(root, f"{number}/", float(number))
    many = folders.take()

    assert few == [(root, "a/", 1.0), (root, "c/", 1.0)]
    assert many == [(root, "", 0.0)]


# Network file systems and nested mounts


def no_events(_paths: list[str]) -> list[str]:
    """Drop all inotify events: changes by another machine cause none."""
    return []


MOUNTED = "36 35 0:50 / {path} rw,noatime shared:1 - {kind} {source} rw\n"


@pytest.fixture
def mount_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    table = tmp_path / "mountinfo"
    table.write_text("1 1 254:0 / / rw - ext4 /dev/root rw\n")
    monkeypatch.setattr(filesystem, "MOUNT_TABLE", table)
    return table


@on_sqlite
@pytest.mark.parametrize("kind", ["nfs4", "cifs", "fuse.sshfs", "9p"])
def test_a_network_mount_is_polled(catalogue_url: str, music: Path, mount_table: Path, kind: str) -> None:
    mount_table.write_text(mount_table.read_text() + MOUNTED.format(path=music, kind=kind, source="server:/music"))

    daemon = InProcessDaemon(catalogue_url, music, polling=True, poll_interval=1.0)
    daemon.tamper = no_events
    with daemon:
        daemon.settled()
        assert not daemon.roots[0].trusts_inodes
        write_song(music / "song.mp3")
        daemon.until(lambda: daemon.paths() == {"song.mp3"})


@on_sqlite
def test_only_the_network_mount_below_a_local_folder_is_polled(
    catalogue_url: str, music: Path, mount_table: Path
) -> None:
    (music / "nas").mkdir()
    mount_table.write_text(
        mount_table.read_text() + MOUNTED.format(path=music / "nas", kind="nfs4", source="server:/music")
    )

    daemon = InProcessDaemon(catalogue_url, music, polling=True, poll_interval=1.0)
    daemon.tamper = no_events
    with daemon:
        daemon.settled()
        assert daemon.roots[0].trusts_inodes
        assert not daemon.roots[0].trusts_inode_of("nas/song.mp3")
        write_song(music / "nas" / "song.mp3")
        write_song(music / "local.mp3")
        daemon.until(lambda: "nas/song.mp3" in daemon.paths())
        assert daemon.paths() == {"nas/song.mp3"}
