"""The main job, as a user does it: real files, the real command, a real database."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.conftest import Soulspot, both, until, write_song

FORMATS = ["mp3", "flac", "ogg", "opus", "m4a", "wav", "aiff", "wma", "wv"]
pytestmark = pytest.mark.timeout(240)


@pytest.mark.parametrize("extension", FORMATS)
def test_a_dropped_file_of_each_format_is_catalogued(soulspot: Soulspot, extension: str) -> None:
    soulspot.watch()

    write_song(soulspot.music / f"song.{extension}")

    until(lambda: soulspot.tracks() == {(f"song.{extension}", "song")})
    assert soulspot.actions("track_added") == 1


@both
def test_tags_become_track_artist_and_album(soulspot: Soulspot) -> None:
    tags = {"title": "Wish", "artist": "AC/DC", "album": "Blue", "albumartist": "AC/DC", "date": "1999-12-31"}
    write_song(soulspot.music / "a" / "01.flac", **tags, tracknumber="3/12", genre="Rock")

    soulspot.scan()

    found = json.loads(soulspot.run("tracks", "wish", "--json").stdout)
    named = ("title", "artist", "album", "track_number", "track_total", "date", "genres", "codec", "sample_rate")
    assert [found[name] for name in named] == ["Wish", "AC/DC", "Blue", 3, 12, "1999-12-31", ["Rock"], "flac", 16000]
    assert soulspot.rows("SELECT name FROM artists") == [("AC/DC",)]


@both
def test_an_untagged_file_has_a_note_of_where_its_title_came_from(soulspot: Soulspot) -> None:
    write_song(soulspot.music / "My Song.mp3")

    soulspot.scan()

    found = json.loads(soulspot.run("tracks", "--json").stdout)
    assert (found["title"], found["artist"]) == ("My Song", "[unknown]")
    assert json.loads(soulspot.rows("SELECT notes FROM files")[0][0]) == ["title-from-name", "artist-unknown"]


def test_a_file_with_a_wrong_extension_is_read_by_its_content(soulspot: Soulspot) -> None:
    write_song(soulspot.music / "song.flac", "mp3")
    write_song(soulspot.music / "nameless", "ogg")

    soulspot.scan()

    assert {json.loads(line)["codec"] for line in soulspot.run("tracks", "--json").stdout.splitlines()} == {
        "mp3",
        "vorbis",
    }


@both
def test_an_unreadable_file_is_a_failure_and_clutter_is_ignored(soulspot: Soulspot) -> None:
    (soulspot.music / "broken.mp3").write_bytes(b"no audio at all" * 100)
    (soulspot.music / "cover.jpg").write_bytes(b"\xff\xd8\xff")
    (soulspot.music / "readme").write_text("words")
    os.mkfifo(soulspot.music / "pipe.mp3")

    soulspot.scan()

    rows = soulspot.rows("SELECT path, status, error_code, 1 FROM files WHERE length(error_text) > 0")
    assert rows == [("broken.mp3", "failed", "corrupt", 1)]
    assert soulspot.actions("file_failed") == 1


@both
def test_a_second_scan_writes_nothing(soulspot: Soulspot) -> None:
    write_song(soulspot.music / "song.mp3", title="One")
    (soulspot.music / "broken.mp3").write_bytes(b"x" * 1000)
    soulspot.scan()
    before = soulspot.dump()

    result = soulspot.scan("--json")

    assert json.loads(result.stdout)["unchanged"] == 2
    assert soulspot.dump() == before


@both
def test_a_restart_of_the_daemon_writes_nothing(soulspot: Soulspot) -> None:
    write_song(soulspot.music / "song.mp3", title="One")
    soulspot.scan()
    before = soulspot.dump()

    daemon = soulspot.watch()
    time.sleep(1)
    daemon.send_signal(signal.SIGTERM)

    assert daemon.wait(timeout=15) == 0
    assert soulspot.dump() == before


@both
def test_a_changed_file_is_updated_with_before_and_after(soulspot: Soulspot) -> None:
    song = write_song(soulspot.music / "song.mp3", title="One", artist="A")
    soulspot.scan()

    write_song(song, title="Two", artist="A")
    soulspot.scan()

    changes = json.loads(soulspot.rows("SELECT changes FROM audit_log WHERE action = 'track_updated'")[0][0])
    assert changes == {"title": ["One", "Two"]}
    assert soulspot.actions("track_added") == 1


@both
def test_an_artist_without_credits_is_removed_with_an_audit_entry(soulspot: Soulspot) -> None:
    song = write_song(soulspot.music / "song.mp3", title="One", artist="Old")
    soulspot.scan()

    write_song(song, title="One", artist="New")
    soulspot.scan()

    assert soulspot.rows("SELECT name FROM artists") == [("New",)]
    assert soulspot.actions("artist_removed") == 1


@both
def test_a_renamed_file_and_a_renamed_folder_keep_their_ids(soulspot: Soulspot) -> None:
    write_song(soulspot.music / "a" / "song.mp3", title="One")
    soulspot.watch()
    until(lambda: soulspot.tracks() == {("a/song.mp3", "One")})
    track = soulspot.rows("SELECT id FROM tracks")

    (soulspot.music / "a" / "song.mp3").rename(soulspot.music / "a" / "tune.mp3")
    until(lambda: soulspot.tracks() == {("a/tune.mp3", "One")})
    (soulspot.music / "a").rename(soulspot.music / "b")
    until(lambda: soulspot.tracks() == {("b/tune.mp3", "One")})

    assert soulspot.rows("SELECT id FROM tracks") == track
    assert (soulspot.actions("track_moved"), soulspot.actions("track_added")) == (2, 1)


@both
def test_a_scan_after_a_rename_skips_the_grace_period(soulspot: Soulspot) -> None:
    song = write_song(soulspot.music / "a" / "0.mp3")
    for number in range(1, 60):
        shutil.copyfile(song, soulspot.music / "a" / f"{number}.mp3")
    soulspot.scan()
    (soulspot.music / "a").rename(soulspot.music / "b")

    summary = json.loads(
        soulspot.run("scan", str(soulspot.music), "--json", SOULSPOT_LIBRARY__MISSING_AFTER="3600").stdout
    )

    assert (summary["moved"], summary["missing"]) == (60, 0)


@both
def test_a_vanished_file_goes_missing_and_returns_with_its_id(soulspot: Soulspot) -> None:
    write_song(soulspot.music / "stays.mp3")
    song = write_song(soulspot.music / "song.mp3", title="One")
    soulspot.watch(SOULSPOT_LIBRARY__MISSING_AFTER="0.5")
    until(lambda: len(soulspot.tracks()) == 2)
    away = soulspot.music.parent / "away.mp3"

    song.rename(away)
    until(lambda: soulspot.rows("SELECT 1 FROM files WHERE status = 'missing'"))
    away.rename(song)
    until(lambda: ("song.mp3", "One") in soulspot.tracks())

    assert (soulspot.actions("track_missing"), soulspot.actions("track_restored")) == (1, 1)


@pytest.mark.parametrize("leases", ["true", "false"])
def test_a_slowly_written_file_is_catalogued_once_when_complete(soulspot: Soulspot, leases: str) -> None:
    song = write_song(soulspot.music.parent / "song.flac", title="Whole").read_bytes()
    soulspot.watch(SOULSPOT_LIBRARY__LEASES=leases)

    with (soulspot.music / "song.flac").open("wb", buffering=0) as file:
        for part in range(10):
            file.write(song[part * len(song) // 10 : (part + 1) * len(song) // 10])
            time.sleep(0.5)
        assert soulspot.rows("SELECT 1 FROM files") == []

    until(lambda: soulspot.tracks() == {("song.flac", "Whole")})
    assert soulspot.actions("track_added") == 1
    assert soulspot.actions("track_updated") == soulspot.actions("file_failed") == 0


@both
def test_a_file_closed_and_reopened_is_catalogued_once_complete(soulspot: Soulspot) -> None:
    whole = write_song(soulspot.music.parent / "song.flac", title="Whole").read_bytes()
    soulspot.watch()

    (soulspot.music / "song.flac").write_bytes(whole[:9000])
    until(lambda: soulspot.rows("SELECT 1 FROM files"))
    with (soulspot.music / "song.flac").open("ab") as file:
        file.write(whole[9000:])

    until(lambda: soulspot.rows(f"SELECT 1 FROM files WHERE status = 'catalogued' AND size = {len(whole)}"))
    assert soulspot.tracks() == {("song.flac", "Whole")}
    assert soulspot.actions("track_added") == 1


@both
def test_a_known_folder_that_disappears_is_offline_and_loses_nothing(soulspot: Soulspot) -> None:
    write_song(soulspot.music / "song.mp3")
    soulspot.scan()
    soulspot.music.rename(soulspot.music.parent / "unmounted")

    planned = soulspot.run("scan", str(soulspot.music), "--dry-run")
    scanned = soulspot.run("scan", str(soulspot.music))

    assert (planned.returncode, scanned.returncode) == (1, 1)
    assert "skipped, offline" in planned.stdout
    assert "skipped, offline" in scanned.stdout
    assert len(soulspot.tracks()) == 1


@both
def test_an_empty_folder_loses_nothing(soulspot: Soulspot) -> None:
    for number in range(3):
        write_song(soulspot.music / f"{number}.mp3")
    soulspot.scan()
    for song in soulspot.music.iterdir():
        song.unlink()

    result = soulspot.run("scan", str(soulspot.music))

    assert result.returncode == 1
    assert "it is empty" in result.stdout
    assert len(soulspot.tracks()) == 3


@both
def test_a_loss_of_most_files_is_held_until_confirmed(soulspot: Soulspot) -> None:
    for number in range(60):
        write_song(soulspot.music / f"{number}.mp3")
    soulspot.scan()
    for number in range(59):
        (soulspot.music / f"{number}.mp3").unlink()

    held = soulspot.run("scan", str(soulspot.music), SOULSPOT_LIBRARY__MISSING_AFTER="0")
    after_held = len(soulspot.tracks())
    confirmed = soulspot.run("scan", str(soulspot.music), "--confirm-missing", SOULSPOT_LIBRARY__MISSING_AFTER="0")

    assert (held.returncode, after_held) == (1, 60)
    assert (confirmed.returncode, len(soulspot.tracks())) == (0, 1)


@both
def test_names_that_are_not_utf8_are_catalogued_and_shown_safely(soulspot: Soulspot) -> None:
    song = write_song(soulspot.music / "song.mp3").read_bytes()
    for name in (b"latin\xe9.mp3", b"new\nline.mp3", b"back\\slash.mp3"):
        (Path(os.fsdecode(os.fsencode(soulspot.music) + b"/" + name))).write_bytes(song)

    soulspot.scan()

    names = {"song.mp3", "latin\\xe9.mp3", "new\nline.mp3", "back\\\\slash.mp3"}
    assert {path for path, _title in soulspot.tracks()} == names
    assert len(soulspot.run("tracks").stdout.splitlines()) == 4


@both
def test_kill_9_during_an_import_loses_and_duplicates_nothing(soulspot: Soulspot) -> None:
    soulspot.readers = {}
    song = write_song(soulspot.music / "0.mp3")
    for number in range(1, 300):
        shutil.copyfile(song, soulspot.music / f"{number}.mp3")

    for delay in (0.1, 0.3, 0.5):
        daemon = soulspot.watch()
        time.sleep(delay)
        daemon.kill()
        daemon.wait()
    soulspot.watch()

    until(lambda: len(soulspot.tracks()) == 300, 60)
    assert soulspot.rows("SELECT count(*), count(DISTINCT entity_id) FROM audit_log WHERE action = 'track_added'") == [
        (300, 300)
    ]
    orphans = "SELECT 1 FROM audit_log WHERE action = 'track_added' AND entity_id NOT IN (SELECT id FROM tracks)"
    assert soulspot.rows(orphans) == []
    assert soulspot.check() == "ok"


@both
def test_many_new_folders_at_once_are_all_found(soulspot: Soulspot) -> None:
    source = soulspot.music.parent / "source"
    song = write_song(source / "a0" / "0.mp3")
    for folder in range(40):
        for number in range(5):
            target = source / f"a{folder}" / "deep" / f"{number}.mp3"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(song, target)
    soulspot.watch()

    subprocess.run(["cp", "-r", f"{source}/.", str(soulspot.music)], check=True)

    until(lambda: len(soulspot.tracks()) == 201, 60)


def test_a_second_writer_is_refused_with_the_name_of_the_first(soulspot: Soulspot) -> None:
    daemon = soulspot.watch()

    result = soulspot.run("watch", str(soulspot.music))

    assert result.returncode == 75
    assert f"pid {daemon.pid}" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "settings", "words"),
    [
        (["scan", "/nowhere/at/all"], {}, "does not exist"),
        (["scan"], {}, "no music folder given"),
        (["scan", "/tmp"], {"SOULSPOT_DATABSE__URL": "x"}, "did you mean SOULSPOT_DATABASE__URL"),
        (
            ["scan", "/tmp"],
            {"SOULSPOT_DATABASE__URL": "sqlite+aiosqlite:////tmp/inside.db"},
            "is in the music folder",
        ),
        (["scan", "/tmp"], {"SOULSPOT_DATABASE__URL": "sqlite:////x.db"}, "starts with sqlite+aiosqlite://"),
        (["tracks"], {"SOULSPOT_DATABASE__URL": "sqlite+aiosqlite:////nowhere/x.db"}, "there is no catalogue at"),
    ],
)
def test_a_wrong_setting_prints_one_clear_sentence_and_exits_with_78(
    soulspot: Soulspot, arguments: list[str], settings: dict[str, str], words: str
) -> None:
    result = soulspot.run(*arguments, **settings)

    assert result.returncode == 78
    assert words in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_dry_run_reports_its_plan_and_creates_no_database(new_soulspot: Soulspot) -> None:
    write_song(new_soulspot.music / "song.mp3")

    result = new_soulspot.run("scan", str(new_soulspot.music), "--dry-run", "--json")

    assert json.loads(result.stdout)["added"] == 1
    assert not new_soulspot.database.exists()


def test_the_version_is_printed_quickly() -> None:
    result = subprocess.run([sys.executable, "-m", "soulspot", "--version"], capture_output=True, text=True, check=True)

    assert result.stdout.startswith("soulspot ")
    assert result.stderr == ""


@both
@pytest.mark.corpus
def test_real_audio_files_become_tracks_or_failures_and_others_neither(soulspot: Soulspot, corpus: Path) -> None:
    shutil.copytree(corpus, soulspot.music / "corpus")

    soulspot.scan()

    catalogued = {path for path, _title in soulspot.tracks()}
    failed = soulspot.rows("SELECT path, error_code, error_text FROM files WHERE status = 'failed'")
    assert len(catalogued) >= 250
    assert all(code and text for _path, code, text in failed)
    clutter = {
        path for path in [*catalogued, *(row[0] for row in failed)] if "LICENSE" in path or path.endswith("sonl")
    }
    assert clutter == set()


@pytest.mark.library_tool
def test_every_file_of_a_recursive_copy_of_2000_is_catalogued(soulspot: Soulspot, make_library: Path) -> None:
    soulspot.readers = {}
    source = soulspot.music.parent / "library"
    command = [
        sys.executable,
        str(make_library),
        str(source),
        "--files",
        "2000",
        "--seconds",
        "1",
        "--cover-share",
        "0",
    ]
    subprocess.run(command, check=True, capture_output=True)
    soulspot.watch()

    subprocess.run(["cp", "-r", f"{source}/.", str(soulspot.music)], check=True)

    until(lambda: len(soulspot.rows("SELECT 1 FROM files WHERE status = 'catalogued'")) == 2000, 120)
    assert soulspot.actions("track_added") == 2000


def test_a_renamed_machine_keeps_its_catalogue(soulspot: Soulspot) -> None:
    write_song(soulspot.music / "song.mp3")
    soulspot.environment["SOULSPOT_LIBRARY__NODE"] = "another-name"
    soulspot.scan()
    del soulspot.environment["SOULSPOT_LIBRARY__NODE"]

    again = json.loads(soulspot.run("scan", "--json", str(soulspot.music)).stdout)

    assert (again["unchanged"], again["added"]) == (1, 0)
    assert soulspot.rows("SELECT node FROM folders") == [("another-name",)]
    assert ": catalogued as" in soulspot.run("explain", str(soulspot.music / "song.mp3")).stdout
