"""The service under a real systemd: what it tells systemd, and what systemd does with it."""

import re
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.box import HERE, Box, install_wheel, skip_without_a_box
from tests.conftest import Soulspot, until, write_song

pytestmark = pytest.mark.timeout(240)


def in_a_box(test: Callable[[Box], None]) -> Callable[[Box], None]:
    return pytest.mark.systemd(pytest.mark.root(test))


@pytest.fixture(scope="module")
def booted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    skip_without_a_box()
    installed = install_wheel(tmp_path_factory.getbasetemp().parent)
    box = Box(tmp_path_factory.mktemp("machine"))
    with box.booted(installed):
        for file in ("soulspot.service", "sysusers.d/soulspot.conf"):
            place = "/etc" if "/" in file else "/etc/systemd/system"
            box.write(f"{place}/{file}", (HERE / "systemd" / file).read_text())
        box.shell("systemd-sysusers && systemctl daemon-reload")
        yield box


@pytest.fixture
def box(booted: Box) -> Iterator[Box]:
    booted.write("/etc/soulspot/config.toml", '[library]\nfolders = ["/srv/music"]\n')
    yield booted
    booted.shell("systemctl stop soulspot.service; systemctl reset-failed; journalctl --rotate --vacuum-time=1s")
    for folder in (booted.music, booted.state):
        for entry in folder.iterdir():
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


def copies(box: Box, count: int) -> None:
    song = write_song(box.music / "0.mp3")
    for number in range(1, count):
        shutil.copyfile(song, box.music / f"{number}.mp3")


def test_ready_is_said_when_the_kernel_watches_the_folder_and_not_before(soulspot: Soulspot) -> None:
    address = soulspot.music.parent / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(address))
        manager.settimeout(30)
        daemon = soulspot.watch_unseen(NOTIFY_SOCKET=str(address))
        while b"READY=1" not in (said := manager.recv(4096)).split(b"\n"):
            pass
        daemon.send_signal(signal.SIGSTOP)
        marks = "".join(file.read_text() for file in Path(f"/proc/{daemon.pid}/fdinfo").iterdir())
        daemon.send_signal(signal.SIGCONT)

    assert soulspot.music.stat().st_ino in {int(each, 16) for each in re.findall(r"inotify .*?ino:([0-9a-f]+)", marks)}
    assert f"STATUS=watching {soulspot.music}".encode() in said


@in_a_box
def test_the_service_is_ready_when_a_drop_will_be_seen(box: Box) -> None:
    box.shell("systemctl start soulspot.service")
    write_song(box.music / "song.mp3", title="Dropped")

    until(lambda: box.tracks() == {("song.mp3", "Dropped")}, 5)
    unit = box.unit()
    assert (unit["ActiveState"], unit["Type"], unit["NRestarts"]) == ("active", "notify", "0")
    assert unit["StatusText"].startswith("watching /srv/music")


@in_a_box
def test_the_service_stops_at_once_and_well_in_the_middle_of_an_import(box: Box) -> None:
    copies(box, 2000)
    box.shell("systemctl start soulspot.service")
    until(box.tracks)

    began = time.monotonic()
    box.shell("systemctl stop soulspot.service")

    assert time.monotonic() - began < 10
    unit = box.unit()
    assert (unit["ActiveState"], unit["Result"], unit["ExecMainStatus"]) == ("inactive", "success", "0")
    tracks = len(box.tracks())
    assert 0 < tracks < 2000
    assert box.actions("track_added") == tracks
    box.shell("systemctl start soulspot.service")
    until(lambda: len(box.tracks()) == 2000, 60)
    assert box.actions("track_added") == 2000


@in_a_box
def test_a_wrong_setting_fails_the_start_and_is_not_tried_again(box: Box) -> None:
    box.write("/etc/soulspot/config.toml", '[library]\nfolders = ["/srv/music"]\nquiet = 3\n')

    box.shell("systemctl start soulspot.service", fails=True)

    unit = box.unit()
    assert (unit["ActiveState"], unit["ExecMainStatus"], unit["NRestarts"]) == ("failed", "78", "0")
    assert "/etc/soulspot/config.toml, line 3: there is no setting library.quiet" in box.journal()


@in_a_box
def test_a_killed_service_is_started_again_and_loses_and_doubles_nothing(box: Box) -> None:
    copies(box, 300)
    box.shell("systemctl start soulspot.service")
    until(box.tracks)

    box.shell("systemctl kill --signal=KILL soulspot.service")
    shutil.copyfile(box.music / "0.mp3", box.music / "while-down.mp3")

    until(lambda: box.unit()["NRestarts"] == "1", 10)
    until(lambda: len(box.tracks()) == 301, 60)
    assert box.rows("SELECT count(*), count(DISTINCT entity_id) FROM audit_log WHERE action = 'track_added'") == [
        (301, 301)
    ]
    assert box.rows("PRAGMA integrity_check") == [("ok",)]


@in_a_box
def test_the_service_takes_leases_on_the_files_of_other_users(box: Box) -> None:
    box.write("/etc/soulspot/config.toml", '[library]\nfolders = ["/srv/music"]\nquiet_period = 60\n')
    box.shell("systemctl start soulspot.service")

    song = write_song(box.music / "song.mp3")

    assert song.owner() == "root"
    until(lambda: len(box.tracks()) == 1, 5)


@in_a_box
def test_the_journal_knows_how_grave_a_line_is(box: Box) -> None:
    box.shell("systemctl start soulspot.service")
    (box.music / "broken.mp3").write_bytes(b"no audio at all" * 100)

    until(lambda: "failed /srv/music/broken.mp3" in box.journal())
    warnings = box.shell("journalctl --output=cat --unit=soulspot.service --priority=warning")
    assert "failed /srv/music/broken.mp3" in warnings
    assert "watching /srv/music" not in warnings
