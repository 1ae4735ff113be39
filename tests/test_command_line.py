"""What commands show to people and programs: output, logs, completion, progress."""

import contextlib
import json
import logging
import os
import pty
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.conftest import Soulspot, until, write_song
from tests.support import prefork

from soulspot.cli.output import logs
from soulspot.cli.output.progress import LoggedProgress
from soulspot.ingest.outcome import Outcome


def installed_command() -> str:
    return str(Path(sys.executable).with_name("soulspot"))


def test_audit_follow_prints_new_entries_as_they_arrive(soulspot: Soulspot) -> None:
    write_song(soulspot.music / "before.mp3")
    soulspot.scan()
    printed = soulspot.music.parent / "printed"
    with printed.open("wb") as output:
        command = [sys.executable, "-m", "soulspot", "audit", "--follow", "--json", "--action", "track_added"]
        follower = prefork.start(command, soulspot.environment, output)
    soulspot.running.append(follower)
    until(lambda: b"before.mp3" in printed.read_bytes())

    write_song(soulspot.music / "after.mp3")
    soulspot.scan()

    until(lambda: printed.read_bytes().count(b"\n") == 2)
    entries = [json.loads(line) for line in printed.read_text().splitlines()]
    assert [Path(entry["path"]).name for entry in entries] == ["before.mp3", "after.mp3"]
    follower.send_signal(signal.SIGINT)
    assert follower.wait(timeout=10) == 0


def test_audit_filters_by_file_artist_action_and_time(soulspot: Soulspot) -> None:
    write_song(soulspot.music / "a" / "one.flac", title="One", artist="Björk")
    soulspot.scan()
    write_song(soulspot.music / "b" / "two.flac", title="Two", artist="Low")
    soulspot.scan()

    def paths(*filters: str) -> list[str]:
        lines = soulspot.run("audit", "--json", "--action", "track_added", *filters).stdout.splitlines()
        return [Path(json.loads(line)["path"]).name for line in lines]

    assert paths() == ["one.flac", "two.flac"]
    assert paths("--file", str(soulspot.music / "a")) == ["one.flac"]
    assert paths("--artist", "BJÖRK") == ["one.flac"]
    assert paths("--since", "1h") == ["one.flac", "two.flac"]
    assert paths("--since", "2999-01-01") == []
    assert paths("--limit", "1") == ["two.flac"]


def test_an_invalid_time_is_refused_with_the_allowed_forms(soulspot: Soulspot) -> None:
    soulspot.scan()

    result = soulspot.run("audit", "--since", "yesterday-ish")

    assert result.returncode == 78
    assert "yesterday-ish" in result.stderr
    assert "24h" in result.stderr


def test_artists_are_listed_with_their_number_of_tracks(soulspot: Soulspot) -> None:
    for number, artist in enumerate(["Low", "Low", "Кино"]):
        write_song(soulspot.music / f"{number}.flac", artist=artist)
    soulspot.scan()

    found = [json.loads(line) for line in soulspot.run("artists", "--json").stdout.splitlines()]

    assert {each["name"]: each["tracks"] for each in found} == {"Low": 2, "Кино": 1}
    assert json.loads(soulspot.run("artists", "кино", "--json").stdout)["name"] == "Кино"


def test_output_goes_to_standard_output_and_logs_to_standard_error(soulspot: Soulspot) -> None:
    (soulspot.music / "broken.mp3").write_bytes(b"no audio" * 200)

    result = soulspot.scan("--json")

    assert json.loads(result.stdout)["failed"] == 1
    assert "broken.mp3" in result.stderr


def test_a_closed_pipe_ends_a_listing_quietly(soulspot: Soulspot) -> None:
    song = write_song(soulspot.music / "0.mp3")
    for number in range(1, 400):
        shutil.copyfile(song, soulspot.music / f"{number}.mp3")
    soulspot.scan()

    listing = f"{sys.executable} -m soulspot tracks --json | head -1"
    result = subprocess.run(listing, shell=True, env=soulspot.environment, capture_output=True, text=True, check=True)

    assert len(result.stdout.splitlines()) == 1
    assert result.stderr == ""


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_can_be_installed(shell: str) -> None:
    # This prints what `--install-completion` writes. The option itself detects the calling shell; a test has none.
    environment = os.environ | {"_SOULSPOT_COMPLETE": f"source_{shell}"}
    script = subprocess.run([installed_command()], env=environment, capture_output=True, text=True, check=False)

    assert script.returncode == 0, script.stderr
    assert "_SOULSPOT_COMPLETE" in script.stdout


def test_completion_lists_the_matching_commands() -> None:
    environment = os.environ | {"_SOULSPOT_COMPLETE": "complete_bash", "COMP_WORDS": "soulspot tra", "COMP_CWORD": "1"}

    result = subprocess.run([installed_command()], env=environment, capture_output=True, text=True, check=False)

    assert "tracks" in result.stdout.split()
    assert "watch" not in result.stdout.split()


def test_a_scan_on_a_terminal_shows_a_progress_bar_and_a_summary(soulspot: Soulspot) -> None:
    write_song(soulspot.music / "song.mp3")
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "soulspot", "scan", str(soulspot.music)]

    terminal = soulspot.environment | {"TERM": "xterm"}

    drawn = b""
    with subprocess.Popen(command, env=terminal, stdout=subprocess.PIPE, stderr=theirs) as scan:
        os.close(theirs)
        with contextlib.suppress(OSError):  # reading fails once the scan has closed the terminal
            while True:
                drawn += os.read(ours, 4096)
        assert scan.stdout is not None
        summary = scan.stdout.read().decode()
    os.close(ours)

    assert b"scanning" in drawn
    assert b"files/s" in drawn
    assert summary.startswith("done: 1 added")


def test_a_long_scan_logs_its_progress_every_ten_seconds(caplog: pytest.LogCaptureFixture) -> None:
    now = 0.0
    progress = LoggedProgress(clock=lambda: now)
    caplog.set_level(logging.INFO)

    progress.expect(4000)
    progress.pass_over(500)
    now = 10.0
    progress.report(Outcome("added", "/music/a.mp3"))
    progress.report(Outcome("added", "/music/b.mp3"))

    [line] = caplog.messages
    assert line.startswith("501 of 4,000 files, 50 a second, 70 s left: 1 added")


def test_every_line_for_the_journal_has_a_priority(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    status = os.fstat(2)
    monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    try:
        logs.set_up("info")
        logging.getLogger("soulspot").warning("failed %s", "a\nb\x1b[31m.mp3")
        try:
            int("why")
        except ValueError:
            logging.getLogger("soulspot").exception("broken")
    finally:
        root.handlers[:] = before
        root.setLevel(level)

    lines = capfd.readouterr().err.splitlines()
    assert lines[0] == r"<4>failed a\nb\x1b[31m.mp3"
    assert all(line.startswith("<3>") for line in lines[1:])
    assert len(lines) > 3


def test_version_takes_at_most_2_5_times_as_long_as_importing_typer() -> None:
    """Compare two CPU times: seconds vary too much on a shared machine."""

    def cpu_seconds(*command: str) -> float:
        """Return the CPU time of a command, which other processes do not change."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *command], check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    typer_alone = min(cpu_seconds("-c", "import typer") for _run in range(3))
    soulspot = min(cpu_seconds("-m", "soulspot", "--version") for _run in range(3))

    assert soulspot < typer_alone * 2.5
