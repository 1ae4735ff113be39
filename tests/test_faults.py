"""The faults F1 to F46 of a watcher and its catalogue, each injected for real.

`TESTS` names one test of each, here or in the file of its subject.
"""

import json
import os
import random
import re
import shutil
import signal
import socket
import sqlite3
import struct
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import IO

import mutagen.id3
import pytest
from tests.conftest import AUDIO, Soulspot, on_sqlite, until, write_song
from tests.support.in_process import InProcessDaemon, shared

from soulspot.ingest.intake import intake
from soulspot.ingest.intake.stability import Verdict

HERE = Path(__file__).parent
SONG = (AUDIO / "tone.mp3").read_bytes()

TESTS = {
    "F1": "test_faults.test_200_kills_at_random_moments_lose_and_duplicate_nothing",
    "F2": "test_faults.test_600_random_cuts_of_the_log_leave_a_consistent_catalogue",
    "F3": "test_journal.test_a_file_that_kills_the_process_is_set_aside_after_three_times",
    "F4": "test_environment.test_ingest_pauses_on_a_full_disk_and_resumes_when_space_is_freed",
    "F5": "test_failing_disks.test_ingest_pauses_on_write_errors_until_the_catalogue_disk_recovers",
    "F6": "test_environment.test_ingest_pauses_while_another_program_locks_the_database",
    "F7": "test_main_job.test_a_second_writer_is_refused_with_the_name_of_the_first",
    "F8": "test_database_commands.test_damage_stops_a_running_daemon_with_an_explanation",
    "F9": "test_database_commands.test_a_catalogue_deleted_under_a_running_daemon_is_rescued",
    "F10": "test_persistence.test_a_newer_schema_is_refused_and_unchanged",
    "F11": "test_faults.test_songs_dropped_while_the_queue_overflows_are_found",
    "F12": "test_watching.test_the_watch_limit_is_logged_once_with_the_command_that_raises_it",
    "F13": "test_watching.test_a_watcher_without_events_retries_with_backoff",
    "F14": "test_watching.test_a_file_without_an_event_is_found_by_the_mtime_of_its_folder",
    "F15": "test_losses.test_a_library_of_5000_files_survives_the_loss_of_its_disk",
    "F16": "test_faults.test_a_deleted_and_recreated_folder_is_watched_again",
    "F17": "test_faults.test_every_file_in_created_moved_and_copied_folders_is_found",
    "F18": "test_faults.test_a_copy_that_stalls_and_continues_is_catalogued",
    "F19": "test_faults.test_a_file_that_keeps_changing_is_reported_once_and_checked_rarely",
    "F20": "test_faults.test_a_file_that_changes_while_it_is_read_is_read_again",
    "F21": "test_faults.test_a_file_that_vanishes_before_it_is_read_is_not_a_failure",
    "F22": "test_identity.test_a_file_replaced_by_rename_is_the_same_track",
    "F23": "test_identity.test_a_moved_folder_keeps_its_tracks",
    "F24": "test_identity.test_a_moved_file_is_the_same_track",
    "F25": "test_identity.test_a_hard_link_is_another_track",
    "F26": "test_identity.test_a_reused_inode_is_not_a_move",
    "F27": "test_faults.test_a_file_dropped_during_an_import_is_catalogued_before_its_end",
    "F28": "test_watching.test_a_folder_name_that_breaks_every_watch_never_stops_ingest",
    "F29": "test_faults.test_hostile_file_names_are_catalogued_separately",
    "F30": "test_faults.test_hostile_tags_become_valid_text",
    "F31": "test_faults.test_an_empty_file_fails_only_if_it_stays_empty",
    "F32": "test_faults.test_a_truncated_file_is_a_track_or_a_failure_with_a_reason",
    "F33": "test_faults.test_a_deeply_nested_or_huge_file_does_not_stop_the_others",
    "F34": "test_faults.test_pipes_sockets_and_folders_named_like_songs_are_ignored",
    "F35": "test_faults.test_links_are_followed_only_if_set_and_never_outside_or_in_circles",
    "F36": "test_faults.test_an_unreadable_file_fails_until_permission_is_granted",
    "F37": "test_failing_disks.test_unreadable_files_are_failures_until_the_disk_recovers",
    "F38": "test_faults.test_files_with_absurd_timestamps_are_catalogued_and_updated",
    "F39": "test_watching.test_a_daemon_that_was_suspended_scans_everything",
    "F40": "test_main_job.test_a_restart_of_the_daemon_writes_nothing",
    "F41": "test_control.test_reload_refuses_wrong_settings_and_keeps_the_old_ones",
    "F42": "test_faults.test_a_file_whose_reader_is_killed_is_read_by_the_next",
    "F43": "test_watching.test_a_network_mount_is_polled",
    "F44": "test_main_job.test_a_wrong_setting_prints_one_clear_sentence_and_exits_with_78",
    "F45": "test_postgres_faults.test_a_restart_of_the_server_loses_no_file",
    "F46": "test_environment.test_ingest_continues_when_the_log_pipe_is_closed_or_full",
}


def test_each_fault_has_a_test() -> None:
    assert list(TESTS) == [f"F{number}" for number in range(1, 47)]
    for fault, name in TESTS.items():
        module, function = name.split(".")
        source = (HERE / f"{module}.py").read_text()
        assert re.search(rf"^(async )?def {function}\(", source, re.MULTILINE), f"{fault}: there is no {name}"


def test_200_kills_at_random_moments_lose_and_duplicate_nothing() -> None:
    """For a longer run: python tests/support/kill_loop.py --kills 10000."""
    command = [sys.executable, str(HERE / "support" / "kill_loop.py"), "--kills", "200"]

    result = subprocess.run(command, capture_output=True, text=True, timeout=170, check=False)

    assert result.returncode == 0, result.stdout + result.stderr
    assert "200 kills" in result.stdout


@on_sqlite
def test_600_random_cuts_of_the_log_leave_a_consistent_catalogue(
    catalogue_url: str, tmp_path: Path, music: Path
) -> None:
    """As after a power cut: the log ends anywhere, or a part of it was never written."""
    for number in range(40):
        (music / f"{number}.mp3").write_bytes(SONG)
    with InProcessDaemon(catalogue_url, music, watching=False) as daemon:
        daemon.scan()
        database = shutil.copy(daemon.database_file, tmp_path / "whole.db")
        log = Path(f"{daemon.database_file}-wal").read_bytes()
    base, chance, recovered = Path(database).read_bytes(), random.Random(1), set[int]()
    memory = Path("/dev/shm")  # 600 catalogues are faster in memory
    cut = Path(tempfile.mkdtemp(dir=memory if memory.is_dir() else tmp_path)) / "cut.db"

    for number in range(600):
        broken = bytearray(log)
        place = chance.randrange(len(log))
        if number % 3 == 0:
            del broken[place:]
        elif number % 3 == 1:
            broken[place // 512 * 512 : place // 512 * 512 + 512] = bytes(512)
        else:
            broken[place:] = bytes(len(log) - place)
        cut.write_bytes(base)
        Path(f"{cut}-wal").write_bytes(broken)
        connection = sqlite3.connect(cut)
        tracks, audited, files, orphans = connection.execute(
            "SELECT (SELECT count(*) FROM tracks),"
            " (SELECT count(*) FROM audit_log WHERE action = 'track_added'),"
            " (SELECT count(*) FROM files WHERE track_id IS NOT NULL),"
            " (SELECT count(*) FROM tracks WHERE id NOT IN (SELECT track_id FROM track_artists))"
        ).fetchone()
        assert (tracks, audited, files, orphans) == (tracks, tracks, tracks, 0)
        if number % 20 == 0:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        connection.close()
        recovered.add(tracks)

    shutil.rmtree(cut.parent)
    assert len(recovered) > 25


@on_sqlite
def test_a_file_whose_reader_is_killed_is_read_by_the_next(daemon: InProcessDaemon, music: Path) -> None:
    write_song(music / "first.flac")
    daemon.until(lambda: daemon.paths() == {"first.flac"})
    (worker,) = shared().readers._readers
    os.kill(worker.process.pid, signal.SIGSTOP)
    write_song(music / "song.mp3")
    daemon.until(lambda: worker.sent)

    os.kill(worker.process.pid, signal.SIGKILL)

    daemon.until(lambda: daemon.paths() == {"first.flac", "song.mp3"})


def test_songs_dropped_while_the_queue_overflows_are_found(soulspot: Soulspot) -> None:
    """Stop the process, overflow the kernel's queue, and drop songs whose events are lost."""
    daemon = soulspot.watch(SOULSPOT_LIBRARY__RECONCILE_INTERVAL="3600")
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    daemon.send_signal(signal.SIGSTOP)
    for number in range(limit // 2):
        os.close(os.open(soulspot.music / f"{number}.txt", os.O_CREAT | os.O_WRONLY))
    for number in range(30):
        folder = soulspot.music / f"album {number % 3}" / "disc"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.mp3").write_bytes(SONG)
    daemon.send_signal(signal.SIGCONT)

    until(lambda: len(soulspot.tracks()) == 30)
    (soulspot.music / "album 1" / "disc" / "later.mp3").write_bytes(SONG)
    until(lambda: len(soulspot.tracks()) == 31)


def test_a_deleted_and_recreated_folder_is_watched_again(
    catalogue_url: str, music: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("soulspot.ingest.polling.ROOT_CHECK", 0.1)
    write_song(music / "album" / "a.mp3")
    with InProcessDaemon(catalogue_url, music, polling=True) as daemon:
        daemon.until(lambda: daemon.paths() == {"album/a.mp3"})
        for folder, name in ((music / "album", "b.flac"), (music, "c.ogg")):
            shutil.rmtree(folder)
            time.sleep(0.3)
            write_song(music / "album" / name)
            while f"album/{name}" not in daemon.paths():
                time.sleep(0.02)


def test_every_file_in_created_moved_and_copied_folders_is_found(
    daemon: InProcessDaemon, tmp_path: Path, music: Path
) -> None:
    tree = tmp_path / "tree"
    for number in range(40):
        (tree / f"d{number}" / "e").mkdir(parents=True)
        (tree / f"d{number}" / "e" / f"{number}.mp3").write_bytes(SONG)

    subprocess.run(["cp", "-r", str(tree), str(music / "copied")], check=True)
    tree.rename(music / "moved")
    for number in range(40):
        os.makedirs(music / f"x{number}" / "y")
        (music / f"x{number}" / "y" / "z.mp3").write_bytes(SONG)

    daemon.until(lambda: len(daemon.paths()) == 120, 30)


@pytest.mark.parametrize("leases", [True, False])
def test_a_copy_that_stalls_and_continues_is_catalogued(catalogue_url: str, music: Path, *, leases: bool) -> None:
    """Close the file half way, wait longer than the quiet period, then write the rest."""
    whole = (AUDIO / "tone.flac").read_bytes()
    with InProcessDaemon(catalogue_url, music, leases=leases) as daemon:
        (music / "song.flac").write_bytes(whole[:30])
        daemon.until(lambda: daemon.paths("failed") == {"song.flac"})
        with (music / "song.flac").open("ab") as file:
            file.write(whole[30:])
        daemon.until(lambda: daemon.paths() == {"song.flac"})

        assert daemon.actions() == ["file_failed", "track_added"]


@on_sqlite
def test_a_growing_file_does_not_fail_before_its_quiet_period(catalogue_url: str, music: Path) -> None:
    whole = (AUDIO / "tone.flac").read_bytes()
    with InProcessDaemon(catalogue_url, music, quiet_period=1.0) as daemon:
        for end in range(10, 40, 10):
            (music / "song.flac").write_bytes(whole[:end])
            time.sleep(0.2)
        (music / "song.flac").write_bytes(whole)
        daemon.until(lambda: daemon.paths() == {"song.flac"})

        assert daemon.actions() == ["track_added"]


def test_retrying_an_unchanged_failure_writes_nothing(
    catalogue_url: str, music: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "RETRY_AFTER", (0.1, 0.1, 0.1))
    (music / "song.flac").write_bytes((AUDIO / "tone.flac").read_bytes()[:30])
    with InProcessDaemon(catalogue_url, music) as daemon:
        daemon.until(lambda: daemon.paths("failed") == {"song.flac"})
        time.sleep(0.8)

        assert daemon.actions() == ["file_failed"]
        assert daemon.rows("SELECT attempts FROM files") == [(1,)]


@on_sqlite
def test_a_file_that_keeps_changing_is_reported_once_and_checked_rarely(
    catalogue_url: str, music: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def reports() -> int:
        return len([record for record in caplog.records if "still being written" in record.message])

    def write_for(seconds: float, file: IO[bytes]) -> None:
        for _write in range(int(seconds / 0.005)):
            file.write(b"x")
            time.sleep(0.005)

    checks = 0
    with InProcessDaemon(catalogue_url, music, quiet_period=0.02) as daemon:
        stability = daemon.pipeline._intake._stability
        judge = stability.judge

        def count(path: str) -> Verdict:
            nonlocal checks
            checks += 1
            return judge(path)

        monkeypatch.setattr(stability, "judge", count)
        with (music / "song.mp3").open("wb", buffering=0) as file:
            deadline = time.monotonic() + 20
            while not reports() and time.monotonic() < deadline:
                write_for(0.1, file)
            checks = 0
            write_for(0.5, file)
            assert daemon.paths() == set()
            assert reports() == 1
            assert checks < 50  # not one for each of a hundred writes

        daemon.until(lambda: daemon.paths("failed") == {"song.mp3"})


def test_a_file_that_changes_while_it_is_read_is_read_again(
    daemon: InProcessDaemon, music: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, readings = shared().readers.read, []

    async def read_and_change(path: str, *, is_urgent: bool) -> object:
        reading = await read(path, is_urgent=is_urgent)
        readings.append(path)
        if len(readings) == 1:
            write_song(music / "song.mp3", title="second")
        return reading

    monkeypatch.setattr(shared().readers, "read", read_and_change)
    write_song(music / "song.mp3", title="first")

    daemon.until(lambda: daemon.rows("SELECT title FROM tracks WHERE title = 'second'"))
    assert len(readings) >= 2


def test_a_file_that_vanishes_before_it_is_read_is_not_a_failure(daemon: InProcessDaemon, music: Path) -> None:
    for number in range(50):
        (music / f"{number}.mp3").write_bytes(SONG)
        (music / f"{number}.mp3").unlink()
    write_song(music / "stays.mp3")

    daemon.until(lambda: "stays.mp3" in daemon.paths())
    daemon.settled()

    assert daemon.paths("failed") == set()


def test_a_file_dropped_during_an_import_is_catalogued_before_its_end(catalogue_url: str, music: Path) -> None:
    for number in range(1500):
        (music / f"{number}.mp3").write_bytes(SONG)
    with InProcessDaemon(catalogue_url, music) as daemon:
        daemon.until(lambda: len(daemon.paths()) > 100)
        began = time.monotonic()
        write_song(music / "new.mp3")
        write_song(music / "album" / "new.mp3")
        daemon.until(lambda: {"new.mp3", "album/new.mp3"} <= daemon.paths())
        waited, imported = time.monotonic() - began, len(daemon.paths())
        assert daemon.pipeline._intake._ready._bulk.maxlen is None

        assert imported < 1500, f"it came last, after {waited:.1f} s"


def test_hostile_file_names_are_catalogued_separately(daemon: InProcessDaemon, music: Path) -> None:
    names = [
        b"new\nline.mp3",
        b"tab\t\x1b[31m.mp3",
        b"latin\xe9.mp3",
        b"back\\slash.mp3",
        "e\u0301.mp3".encode(),
        "\u00e9.mp3".encode(),
        "\u202e3pm.mp3".encode(),
        b"x" * 251 + b".mp3",
        b"'; DROP TABLE files;--.mp3",
    ]
    for name in names:
        Path(os.fsdecode(os.fsencode(music) + b"/" + name)).write_bytes(SONG)
    deep = os.fsencode(music)
    for _level in range(40):
        deep += b"/" + b"deep" * 20
        os.mkdir(deep)
    Path(os.fsdecode(deep + b"/deep.mp3")).write_bytes(SONG)

    daemon.until(lambda: len(daemon.paths()) == len(names) + 1, 30)
    assert len(set(daemon.ids().values())) == len(names) + 1


def test_hostile_tags_become_valid_text(daemon: InProcessDaemon, music: Path) -> None:
    song = write_song(music.parent / "song.mp3")
    tags = mutagen.id3.ID3(song)
    tags.add(mutagen.id3.TIT2(encoding=3, text="nul\0and\ttab"))
    tags.add(mutagen.id3.TPE1(encoding=3, text="\ufffd\u202e noncharacter \uffff"))
    tags.add(mutagen.id3.TALB(encoding=3, text="long" * 250_000))
    tags.save()
    song.rename(music / "song.mp3")

    daemon.until(lambda: daemon.paths() == {"song.mp3"})
    ((title, artist, album),) = daemon.rows(
        "SELECT t.title, t.artist_credit, a.title FROM tracks t JOIN albums a ON a.id = t.album_id"
    )
    assert "\0" not in title
    assert (artist.encode("utf-8").decode("utf-8"), len(album)) == (artist, 500)


def test_an_empty_file_fails_only_if_it_stays_empty(daemon: InProcessDaemon, music: Path) -> None:
    (music / "filled.mp3").touch()
    (music / "empty.mp3").touch()
    (music / "filled.mp3").write_bytes(SONG)

    daemon.until(lambda: (daemon.paths(), daemon.paths("failed")) == ({"filled.mp3"}, {"empty.mp3"}))
    assert daemon.rows("SELECT error_code FROM files WHERE path = 'empty.mp3'") == [("empty",)]


def test_a_truncated_file_is_a_track_or_a_failure_with_a_reason(catalogue_url: str, music: Path) -> None:
    for kind in ("mp3", "flac", "ogg", "opus", "m4a", "wav", "wma"):
        whole = (AUDIO / f"tone.{kind}").read_bytes()
        for length in (1, 3, 4, 9, 10, 11, 27, 28, 30, 42, 64, 100, 200, 500, 1000, len(whole) // 2, len(whole) - 1):
            (music / f"{length}.{kind}").write_bytes(whole[:length])
        (music / f"as {kind}.flac").write_bytes(whole)
    with InProcessDaemon(catalogue_url, music, watching=False) as daemon:
        daemon.scan(60)

        assert len(daemon.paths()) + len(daemon.paths("failed")) == len(list(music.iterdir()))
        assert daemon.rows("SELECT 1 FROM files WHERE status = 'failed' AND length(error_text) = 0") == []


def test_a_deeply_nested_or_huge_file_does_not_stop_the_others(catalogue_url: str, music: Path) -> None:
    nested = b""
    for _level in range(3000):
        nested = struct.pack(">I4s", len(nested) + 8, b"moov") + nested
    (music / "nested.m4a").write_bytes(struct.pack(">I4s4sI4s", 20, b"ftyp", b"M4A ", 0, b"M4A ") + nested)
    with (music / "sparse.mp3").open("wb") as sparse:
        sparse.write(SONG[:2000])
        sparse.truncate(20 << 30)
    write_song(music / "good.mp3")

    with InProcessDaemon(catalogue_url, music, watching=False) as daemon:
        daemon.scan(60)

        assert "good.mp3" in daemon.paths()
        assert "nested.m4a" in daemon.paths("failed")
        assert "sparse.mp3" in daemon.paths() | daemon.paths("failed")


@on_sqlite
def test_pipes_sockets_and_folders_named_like_songs_are_ignored(daemon: InProcessDaemon, music: Path) -> None:
    os.mkfifo(music / "pipe.mp3")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(music / "socket.flac"))
    write_song(music / "folder.mp3" / "song.mp3")

    daemon.until(lambda: daemon.paths() == {"folder.mp3/song.mp3"})
    assert daemon.paths("failed") == set()


@on_sqlite
@pytest.mark.parametrize("follow", [False, True])
def test_links_are_followed_only_if_set_and_never_outside_or_in_circles(
    catalogue_url: str, tmp_path: Path, music: Path, *, follow: bool
) -> None:
    write_song(music / "real" / "song.mp3")
    write_song(tmp_path / "outside" / "secret.mp3")
    (music / "inside").symlink_to("real")
    (music / "song.mp3").symlink_to("real/song.mp3")
    (music / "out").symlink_to(tmp_path / "outside")
    (music / "out.mp3").symlink_to(tmp_path / "outside" / "secret.mp3")
    (music / "zero.mp3").symlink_to("/dev/zero")
    (music / "nowhere.mp3").symlink_to("nothing.mp3")
    (music / "loop").symlink_to("loop")
    (music / "real" / "up").symlink_to("..")
    (music / "real" / "self").symlink_to(".")
    for one, other in (("a", "b"), ("b", "a")):
        (music / one).mkdir()
        (music / one / "other").symlink_to(f"../{other}")
    write_song(music / "a" / "deep.mp3")

    with InProcessDaemon(catalogue_url, music, watching=False, follow_links=follow) as daemon:
        daemon.scan()

        expected = {"real/song.mp3", "a/deep.mp3"}
        linked = {"song.mp3", "inside/song.mp3", "b/other/deep.mp3"} if follow else set()
        assert daemon.paths() == expected | linked
        assert daemon.paths("failed") == set()


@pytest.mark.root
def test_an_unreadable_file_fails_until_permission_is_granted(soulspot: Soulspot) -> None:
    """The scan runs without root's right to read every file."""
    without = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all"]
    for name in ("plain.mp3", "secret.mp3", "folder/inside.mp3"):
        write_song(soulspot.music / name)
    (soulspot.music / "secret.mp3").chmod(0)
    (soulspot.music / "folder").chmod(0)
    scan = [*without, sys.executable, "-m", "soulspot", "scan", str(soulspot.music), "--json"]

    first = subprocess.run(scan, env=soulspot.environment, capture_output=True, text=True, check=False)
    code = soulspot.rows("SELECT error_code FROM files WHERE path = 'secret.mp3'")
    (soulspot.music / "secret.mp3").chmod(0o600)
    (soulspot.music / "folder").chmod(0o700)
    subprocess.run(scan, env=soulspot.environment, capture_output=True, check=True)

    assert json.loads(first.stdout)["failed"] == 1
    assert code == [("unreadable",)]
    assert {path for path, _title in soulspot.tracks()} == {"plain.mp3", "secret.mp3", "folder/inside.mp3"}


def test_files_with_absurd_timestamps_are_catalogued_and_updated(daemon: InProcessDaemon, music: Path) -> None:
    for name, moment in (("old.mp3", 0), ("before.mp3", -1000), ("future.mp3", 2**33)):
        song = write_song(music.parent / name, title="first")
        os.utime(song, (moment, moment))
        song.rename(music / name)
    daemon.until(lambda: len(daemon.paths()) == 3)

    moment = (music / "future.mp3").stat().st_mtime_ns
    write_song(music / "future.mp3", title="a longer title than before", artist="with the same mtime")
    os.utime(music / "future.mp3", ns=(moment, moment))

    daemon.until(lambda: daemon.rows("SELECT 1 FROM tracks WHERE title = 'a longer title than before'"))


def test_ignore_rules_exclude_files_and_take_effect_when_changed(daemon: InProcessDaemon, music: Path) -> None:
    for name in ("a.mp3", "live/b.flac", "live/keep/c.ogg", "studio/d.opus"):
        write_song(music / name)
    daemon.until(lambda: len(daemon.paths()) == 4)

    (music / ".soulspotignore").write_text("/live/*\n!/live/keep\n")
    (music / "studio" / ".soulspotignore").write_text("*.opus\n")
    daemon.until(lambda: daemon.paths() == {"a.mp3", "live/keep/c.ogg"})
    reasons = "SELECT path, changes->>'reason' FROM audit_log WHERE action = 'track_missing'"
    missing = dict(daemon.rows(reasons))
    (music / ".soulspotignore").unlink()
    daemon.until(lambda: daemon.paths() == {"a.mp3", "live/b.flac", "live/keep/c.ogg"})

    assert missing[f"{music}/live/b.flac"] == f"ignored by {music}/.soulspotignore, line 1: /live/*"
    assert daemon.actions().count("track_restored") == 1


@on_sqlite
def test_the_ignore_setting_applies_in_every_folder(catalogue_url: str, music: Path) -> None:
    for name in ("a.mp3", "x/demo/b.mp3", "x/c.live.mp3"):
        write_song(music / name)

    with InProcessDaemon(catalogue_url, music, watching=False, ignore=["demo/", "*.live.mp3"]) as daemon:
        daemon.scan()

        assert daemon.paths() == {"a.mp3"}


def test_a_slowly_copied_album_is_catalogued_completely(daemon: InProcessDaemon, music: Path) -> None:
    """As a slow network copies it: first the names, then the content in pieces, with several files open at once."""
    whole = {f"song.{kind}": (AUDIO / f"tone.{kind}").read_bytes() for kind in ("mp3", "flac", "ogg")}
    (music / "album").mkdir()

    def copy(name: str, content: bytes) -> None:
        with (music / "album" / name).open("wb", buffering=0) as file:
            for start in range(0, len(content), len(content) // 8 + 1):
                file.write(content[start : start + len(content) // 8 + 1])
                time.sleep(0.05)

    writers = [threading.Thread(target=copy, args=each) for each in whole.items()]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()

    daemon.until(lambda: daemon.paths() == {f"album/{name}" for name in whole})
    assert daemon.actions() == ["track_added"] * 3
