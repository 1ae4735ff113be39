"""`soulspot explain`, `verify` and `purge`."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.conftest import Soulspot, write_song

from soulspot.cli.actions import verify


@pytest.fixture
def explain(
    soulspot: Soulspot, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[Path], dict[str, str]]:
    """Run the command in this process: starting a process for each path is slow."""
    monkeypatch.setenv("SOULSPOT_DATABASE__URL", soulspot.environment["SOULSPOT_DATABASE__URL"])

    def explain_here(path: Path) -> dict[str, str]:
        verify.explain(path, None, as_json=True)
        return dict(json.loads(capsys.readouterr().out))

    return explain_here


def test_explain_gives_the_state_of_each_kind_of_path_with_a_reason(
    soulspot: Soulspot, explain: Callable[[Path], dict[str, str]]
) -> None:
    song = write_song(soulspot.music / "song.mp3", title="Wish", artist="Nine").read_bytes()
    write_song(soulspot.music / "gone.flac")
    write_song(soulspot.music / "changed.ogg")
    (soulspot.music / "broken.mp3").write_bytes(b"no audio" * 100)
    soulspot.scan()
    (soulspot.music / "gone.flac").unlink()
    soulspot.run("scan", str(soulspot.music), SOULSPOT_LIBRARY__MISSING_AFTER="0")
    for name in ("new.mp3", ".hidden.mp3", "load.mp3.part", "live/a.mp3", "changed.ogg"):
        (soulspot.music / name).parent.mkdir(exist_ok=True)
        (soulspot.music / name).write_bytes(song)
    (soulspot.music / ".soulspotignore").write_text("# bootlegs\n/live/\n")
    (soulspot.music / "cover.jpg").touch()
    os.mkfifo(soulspot.music / "pipe.mp3")
    (soulspot.music / "link.mp3").symlink_to("song.mp3")
    unfinished = (soulspot.music / "open.mp3").open("wb")
    unfinished.write(song)
    unfinished.flush()

    found = {path.name: explain(path) for path in soulspot.music.iterdir()}
    found |= {name: explain(soulspot.music / name) for name in ("gone.flac", "live/a.mp3", "absent.mp3")}
    found["outside"] = explain(Path("/etc/passwd"))
    unfinished.close()

    assert {name: each["state"] for name, each in found.items() if name != ".soulspotignore"} == {
        "song.mp3": "catalogued",
        "gone.flac": "missing",
        "changed.ogg": "changed",
        "broken.mp3": "failed",
        "new.mp3": "waiting",
        ".hidden.mp3": "left-alone",
        "load.mp3.part": "left-alone",
        "live": "left-alone",
        "live/a.mp3": "left-alone",
        "cover.jpg": "not-audio",
        "pipe.mp3": "not-regular",
        "link.mp3": "left-alone",
        "open.mp3": "being-written",
        "absent.mp3": "absent",
        "outside": "outside",
    }
    assert "Nine – Wish" in found["song.mp3"]["reason"]
    assert f"ignored by {soulspot.music}/.soulspotignore, line 2: /live/" in found["live/a.mp3"]["reason"]
    assert "hidden" in found[".hidden.mp3"]["reason"]
    assert "unfinished" in found["load.mp3.part"]["reason"]
    assert "corrupt" in found["broken.mp3"]["reason"]


def test_explain_reports_that_a_folder_is_offline(
    soulspot: Soulspot, explain: Callable[[Path], dict[str, str]]
) -> None:
    write_song(soulspot.music / "song.mp3")
    soulspot.scan()
    soulspot.music.rename(soulspot.music.parent / "unmounted")
    soulspot.run("scan", str(soulspot.music))

    found = explain(soulspot.music / "song.mp3")

    assert found["state"] == "offline"
    assert "is its disk mounted?" in found["reason"]


def test_verify_passes_a_correct_catalogue_and_lists_differences(soulspot: Soulspot) -> None:
    for name in ("stays.mp3", "gone.mp3", "changed.mp3"):
        write_song(soulspot.music / name)
    (soulspot.music / "notes").write_text("no audio")
    (soulspot.music / "broken.mp3").write_bytes(b"no audio" * 100)
    soulspot.scan()
    before = soulspot.dump()
    matching = soulspot.run("verify")
    (soulspot.music / "gone.mp3").unlink()
    write_song(soulspot.music / "changed.mp3", title="another")
    write_song(soulspot.music / "new.mp3")

    differing = soulspot.run("verify", "--json")

    assert (matching.returncode, matching.stdout) == (0, "the catalogue matches the folders\n")
    assert differing.returncode == 1
    assert {(each["kind"], Path(each["path"]).name) for each in map(json.loads, differing.stdout.splitlines())} == {
        ("not-there", "gone.mp3"),
        ("changed", "changed.mp3"),
        ("not-catalogued", "new.mp3"),
    }
    assert soulspot.dump() == before


@pytest.fixture
def two_missing(soulspot: Soulspot) -> Soulspot:
    """A catalogue of three tracks, two of which have been missing for forty days."""
    write_song(soulspot.music / "stays.mp3", title="stays", artist="Stays")
    for name in ("a", "b"):
        write_song(soulspot.music / f"{name}.flac", title=name, artist="Goes", album="Gone")
    soulspot.scan()
    for name in ("a", "b"):
        (soulspot.music / f"{name}.flac").unlink()
    soulspot.run("scan", str(soulspot.music), SOULSPOT_LIBRARY__MISSING_AFTER="0")
    soulspot.change("UPDATE files SET missing_since = datetime('now', '-40 days') WHERE status = 'missing'")
    return soulspot


def test_purge_removes_long_missing_tracks_with_their_album_and_artist(two_missing: Soulspot) -> None:
    listed = two_missing.run("purge", "--older-than", "30d", "--dry-run")
    unconfirmed = two_missing.run("purge", "--older-than", "30d")
    wrong_count = two_missing.run("purge", "--older-than", "30d", "--yes", "1")
    assert len(two_missing.rows("SELECT 1 FROM tracks")) == 3

    done = two_missing.run("purge", "--older-than", "30d", "--yes", "2")

    assert (listed.returncode, unconfirmed.returncode, wrong_count.returncode, done.returncode) == (0, 1, 1, 0)
    assert "a.flac" in listed.stdout
    assert "--yes 2" in unconfirmed.stdout
    assert two_missing.rows("SELECT title FROM tracks") == [("stays",)]
    assert two_missing.rows("SELECT name FROM artists") == [("Stays",)]
    assert two_missing.rows("SELECT 1 FROM albums") == []
    assert two_missing.rows("SELECT path FROM files") == [("stays.mp3",)]
    assert two_missing.actions("track_purged") == 2


def test_purge_keeps_recently_missing_files(two_missing: Soulspot) -> None:
    result = two_missing.run("purge", "--older-than", "60d")

    assert (result.returncode, result.stdout) == (0, "no file has been missing for that long\n")
    assert len(two_missing.rows("SELECT 1 FROM tracks")) == 3
