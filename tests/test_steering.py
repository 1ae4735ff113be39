"""Commands to the running daemon (scan all or a part, pause, resume), and the same commands without a daemon."""

import contextlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import Soulspot, both, until, write_song

from soulspot.daemon import health
from soulspot.daemon.control import commands
from soulspot.infrastructure.net import control_socket
from soulspot.ingest.outcome import Outcome, PipelineStats
from soulspot.ingest.pause_gate import Paused
from soulspot.ingest.scan_requests import Request


def summary(result: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert result.returncode in {0, 1}, result.stderr
    return {name: value for name, value in json.loads(result.stdout).items() if value and name != "seconds"}


def read_status(soulspot: Soulspot) -> dict[str, Any]:
    status: dict[str, Any] = json.loads(soulspot.run("status", "--json").stdout)
    return status


def write_songs(folder: Path, names: Sequence[object]) -> None:
    for name in names:
        write_song(folder / f"{name}.mp3", title=str(name))


@both
def test_scan_is_run_by_the_running_daemon(soulspot: Soulspot, tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    environment = {"RUNTIME_DIRECTORY": str(tmp_path)}
    write_songs(soulspot.music, ["one", "two"])
    daemon = soulspot.watch(**environment)
    until(lambda: len(soulspot.tracks()) == 2)

    asked = soulspot.run("scan", **environment)
    waited = soulspot.run("scan", "--wait", "--json", **environment)

    assert (asked.returncode, asked.stdout.splitlines()[0]) == (0, f"pid {daemon.pid} scans {soulspot.music}")
    assert summary(waited) == {"unchanged": 2}


@both
def test_scan_wait_returns_when_every_file_is_written(soulspot: Soulspot, tmp_path: Path) -> None:
    soulspot.watch()
    soulspot.run("pause")
    write_songs(soulspot.music / "album", range(20))
    (soulspot.music / "album" / "broken.mp3").write_bytes(b"no audio at all" * 100)
    log = tmp_path / "log"
    with log.open("w") as errors:
        command = [*soulspot.command, "scan", "--wait", "--json"]
        waiting = subprocess.Popen(command, env=soulspot.environment, stdout=subprocess.PIPE, stderr=errors, text=True)
    until(lambda: "it scans when it is resumed" in log.read_text())
    soulspot.run("resume")

    output, _errors = waiting.communicate(timeout=60)

    counts = json.loads(output)
    # A file ingested from a hint just before the scan reaches it counts as added and as unchanged.
    assert counts["added"] + counts["unchanged"] >= 20
    assert counts["failed"] == 1
    assert "broken.mp3" in log.read_text()
    assert len(soulspot.tracks()) == 20


async def test_a_late_failure_of_a_scan_is_in_its_last_reply() -> None:
    request = Request({})
    answers = commands._progress(request)
    await anext(answers)

    request.failed.append(Outcome("failed", "/music/broken.mp3", detail="no audio"))
    request.ended.set()

    assert [answer["failed"] async for answer in answers] == [[{"path": "/music/broken.mp3", "detail": "no audio"}]]


def test_only_the_named_path_is_scanned(soulspot: Soulspot) -> None:
    write_songs(soulspot.music / "a", range(3))
    write_songs(soulspot.music / "b", range(2))
    soulspot.watch()
    until(lambda: len(soulspot.tracks()) == 5)

    folder = soulspot.run("scan", "--wait", "--json", str(soulspot.music / "a"))
    both_ways = soulspot.run("scan", "--wait", "--json", str(soulspot.music / "a"), str(soulspot.music / "a" / "0.mp3"))
    file = soulspot.run("scan", "--wait", "--json", str(soulspot.music / "b" / "1.mp3"))

    assert [summary(each) for each in (folder, both_ways, file)] == [
        {"unchanged": 3},
        {"unchanged": 3},
        {"unchanged": 1},
    ]


@both
def test_scanning_a_deleted_folder_marks_its_files_missing(soulspot: Soulspot) -> None:
    write_songs(soulspot.music / "a", range(3))
    write_song(soulspot.music / "kept.flac")
    soulspot.watch(SOULSPOT_LIBRARY__MISSING_AFTER="0")
    until(lambda: len(soulspot.tracks()) == 4)
    soulspot.run("pause")
    shutil.rmtree(soulspot.music / "a")
    soulspot.run("resume")

    soulspot.run("scan", "--wait", str(soulspot.music / "a"))

    assert soulspot.actions("track_missing") == 3


def test_a_path_outside_the_watched_folders_is_refused(soulspot: Soulspot) -> None:
    soulspot.watch()

    for path in ("/nowhere", str(soulspot.music) + "-not", str(soulspot.music.parent)):
        result = soulspot.run("scan", path)

        assert result.returncode == 1
        assert result.stderr == (f"soulspot: {path}: not in a watched folder ({soulspot.music})\n")
    hidden = soulspot.run("scan", str(soulspot.music / ".hidden" / "song.mp3"))
    assert (hidden.returncode, "is ignored" in hidden.stderr) == (1, True)


@both
def test_a_running_daemon_confirms_a_loss_only_below_the_given_path(soulspot: Soulspot) -> None:
    for folder in ("a", "b"):
        write_songs(soulspot.music / folder, range(60))
    write_song(soulspot.music / "kept.mp3")
    soulspot.watch(SOULSPOT_LIBRARY__MISSING_AFTER="0")
    until(lambda: len(soulspot.tracks()) == 121)
    for folder in ("a", "b"):
        shutil.rmtree(soulspot.music / folder)
    held = soulspot.run("scan", "--wait", "--json")
    assert (held.returncode, summary(held)["held"]) == (1, {str(soulspot.music): 120})

    one = soulspot.run("scan", "--wait", "--confirm-missing", "--json", str(soulspot.music / "a"))
    missing_after_one = soulspot.actions("track_missing")
    rest = soulspot.run("scan", "--wait", "--confirm-missing", "--json")

    assert (summary(one)["missing"], missing_after_one) == (60, 60)
    assert (summary(rest)["missing"], rest.returncode) == (60, 0)
    write_song(soulspot.music / "last.mp3")
    until(lambda: soulspot.actions("track_added") == 122)
    (soulspot.music / "last.mp3").unlink()  # a confirmed loss does not count towards the next one
    until(lambda: soulspot.actions("track_missing") == 121)


def test_a_dry_run_beside_a_daemon_scans_the_folders_of_the_daemon(soulspot: Soulspot) -> None:
    soulspot.watch()
    soulspot.run("pause")
    write_song(soulspot.music / "song.mp3")

    result = soulspot.run("scan", "--dry-run")

    assert result.stdout.splitlines()[0] == f"added\t{soulspot.music}/song.mp3"


@both
def test_without_a_daemon_part_of_a_known_folder_can_be_scanned(soulspot: Soulspot) -> None:
    write_songs(soulspot.music / "a", range(2))
    soulspot.scan()
    write_songs(soulspot.music / "a", ["new"])
    write_songs(soulspot.music / "b", ["other"])

    plan = soulspot.run("scan", "--dry-run", "--json", str(soulspot.music / "a"))
    done = soulspot.run("scan", "--json", str(soulspot.music / "a"))
    file = soulspot.run("scan", "--json", str(soulspot.music / "b" / "other.mp3"))

    assert [summary(each) for each in (plan, done, file)] == [
        {"dry_run": True, "added": 1, "unchanged": 2},
        {"added": 1, "unchanged": 2},
        {"added": 1},
    ]
    assert soulspot.rows("SELECT path FROM folders") == [(str(soulspot.music),)]


@both
def test_nothing_is_written_while_paused_and_nothing_is_lost(soulspot: Soulspot) -> None:
    write_song(soulspot.music / "kept.mp3")
    write_song(soulspot.music / "going.flac")
    soulspot.watch(SOULSPOT_LIBRARY__MISSING_AFTER="0")
    until(lambda: len(soulspot.tracks()) == 2)

    paused = soulspot.run("pause", "--json")
    before = soulspot.dump()
    write_songs(soulspot.music / "new" / "album", range(10))
    write_song(soulspot.music / "kept.mp3", title="changed")
    (soulspot.music / "going.flac").unlink()
    changed = datetime.now(UTC).isoformat()
    asked = soulspot.run("scan")
    until(lambda: read_status(soulspot)["folders"][0]["last_event"] > changed)
    status = read_status(soulspot)

    assert status["queue"] == {"in_hand": 0, "settling": 0, "oldest_seconds": 0}
    assert soulspot.dump() == before
    assert json.loads(paused.stdout)["paused"]["until"] is None
    assert status["health"] == "paused"
    assert "until `soulspot resume`" in status["reasons"][0]
    assert "after `soulspot resume`" in asked.stdout
    soulspot.run("resume")
    until(lambda: len(soulspot.tracks()) == 11 and soulspot.actions("track_missing") == 1)
    assert ("kept.mp3", "changed") in soulspot.tracks()


@both
def test_a_pause_survives_a_crash_and_can_be_ended_without_a_daemon(soulspot: Soulspot) -> None:
    daemon = soulspot.watch()
    soulspot.run("pause")
    daemon.send_signal(signal.SIGKILL)
    daemon.wait()
    write_song(soulspot.music / "song.mp3")
    daemon = soulspot.watch()
    assert json.loads(soulspot.run("status", "--json").stdout)["health"] == "paused"
    assert "still paused" in soulspot.log.read_text()
    daemon.terminate()
    daemon.wait()

    resumed = soulspot.run("resume")

    assert resumed.stdout == "no soulspot is watching; the next one does not start paused\n"
    assert soulspot.run("resume").stdout == "it was not paused\n"
    soulspot.watch()
    until(lambda: len(soulspot.tracks()) == 1)


def test_a_pause_with_an_end_time_ends_by_itself(soulspot: Soulspot) -> None:
    soulspot.watch()
    paused = soulspot.run("pause", "--for", "1s")
    write_song(soulspot.music / "song.mp3")

    until(lambda: len(soulspot.tracks()) == 1, 10)

    assert paused.stdout.startswith("paused until 20")
    assert "the pause has reached its end time" in soulspot.log.read_text()


def test_a_paused_daemon_stops_quickly(soulspot: Soulspot) -> None:
    daemon = soulspot.watch()
    with contextlib.closing(sqlite3.connect(soulspot.database, isolation_level=None)) as held:
        held.execute("BEGIN IMMEDIATE")  # so that files are in progress when the pause begins
        write_songs(soulspot.music, range(100))
        until(lambda: json.loads(soulspot.run("status", "--json").stdout)["queue"]["in_hand"] == 100)
        soulspot.run("pause")
    until(soulspot.tracks)

    daemon.terminate()

    assert daemon.wait(5) == 0


def test_pause_without_a_daemon_fails_with_nothing_to_pause(soulspot: Soulspot) -> None:
    soulspot.scan()

    result = soulspot.run("pause")

    assert (result.returncode, "nothing to pause" in result.stderr) == (1, True)


def test_a_paused_daemon_is_never_stuck() -> None:
    now = 0.0
    watchdog = health.Watchdog(1, clock=lambda: now)
    held_up = Paused(datetime.now(UTC), "me", datetime.now(UTC) + timedelta(days=1))
    vitals = PipelineStats(0, 5, 0, 10_000.0, None, held_up)

    watchdog.is_stuck(vitals)
    now = 100_000.0

    assert not watchdog.is_stuck(vitals)
    assert health.judge(vitals, {}, {}, is_stuck=False).state == "paused"


@pytest.mark.root
def test_a_member_of_the_group_may_use_read_only_commands(soulspot: Soulspot) -> None:
    if os.geteuid() != 0:
        pytest.skip("to be another user takes root")
    soulspot.watch(SOULSPOT_CONTROL__GROUP="4242")
    socket_file = control_socket.socket_of(soulspot.database)
    for folder in [*socket_file.parents][:-1]:
        if folder.is_relative_to("/tmp/pytest-of-root"):
            folder.chmod(folder.stat().st_mode | 0o055)
    script = (
        "import json, socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]);"
        "s.sendall(json.dumps({'ask': sys.argv[2]}).encode() + b'\\n'); print(s.makefile().readline())"
    )

    def as_nobody(group: int, question: str) -> subprocess.CompletedProcess[str]:
        become = ["setpriv", "--reuid=65534", "--regid=65534", f"--groups={group}"]
        command = [*become, "/usr/bin/python3", "-c", script, str(socket_file), question]
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)

    assert json.loads(as_nobody(4242, "status").stdout)["health"] == "ok"
    for question in ("scan", "pause", "resume", "reload"):
        assert (
            json.loads(as_nobody(4242, question).stdout)["error"]
            == f"only root and the user root may ask for {question}"
        )
    assert "PermissionError" in as_nobody(4243, "status").stderr
