"""Log lines in the format that their reader needs, without a flood when one error repeats ten thousand times."""

import contextlib
import json
import logging
import os
import pty
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.conftest import Soulspot, until, write_song
from tests.test_documents import rows

from soulspot.cli.output.log_throttle import FIRST, REPORT_SECONDS, LogThrottle
from soulspot.cli.output.progress import log_outcome
from soulspot.ingest.outcome import Outcome

JSON = {"SOULSPOT_LOG__FORMAT": "json"}
TERMINAL = {"TERM": "xterm", "COLUMNS": "300"}
FAULTY = """
import soulspot.ingest.intake.stability as stability
def broken(*arguments, **options):
    raise RuntimeError("nobody expected this")
stability.Stability.__init__ = broken
"""


def parsed(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


def break_files(soulspot: Soulspot, count: int) -> None:
    """Write this many corrupt, empty and good files, in turn."""
    for number in range(count):
        (soulspot.music / f"{number:03} corrupt.mp3").write_bytes(b"no audio" * 100)
        (soulspot.music / f"{number:03} empty.flac").touch()
        write_song(soulspot.music / f"{number:03} well.mp3", title=f"Song {number}")


def drawn(soulspot: Soulspot, *arguments: str, **settings: str) -> str:
    """Run the command on a terminal and return its standard error."""
    ours, theirs = pty.openpty()
    environment = {name: value for name, value in soulspot.environment.items() if name != "NO_COLOR"}
    environment |= TERMINAL | settings
    command = [*soulspot.command, *arguments]
    text = b""
    with subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stderr=theirs) as process:
        soulspot.running.append(process)
        os.close(theirs)
        with contextlib.suppress(OSError):  # the terminal has closed
            while part := os.read(ours, 4096):
                text += part
                if b"added" in text:
                    process.send_signal(signal.SIGTERM)
    os.close(ours)
    return text.decode()


def test_json_has_the_outcome_of_a_file_in_separate_fields(soulspot: Soulspot) -> None:
    daemon = soulspot.watch(**JSON)
    song = write_song(soulspot.music / "a\nb\x1b[31m\u202e.mp3", title="Song", artist="Artist")
    (soulspot.music / "broken.mp3").write_bytes(b"no audio" * 100)

    until(lambda: soulspot.tracks() and '"failed"' in soulspot.log.read_text())
    daemon.send_signal(signal.SIGTERM)
    daemon.wait()

    assert soulspot.log.read_text().replace("\n", "").isprintable()
    lines = parsed(soulspot.log.read_text())
    [added] = [line for line in lines if line.get("kind") == "added"]
    [(track_id,)] = soulspot.rows("SELECT id FROM tracks")
    assert (added["path"], added["track_id"], added["code"]) == (str(song), track_id, None)
    assert (added["level"], added["logger"], added["detail"]) == ("info", "soulspot", "Artist – Song")
    [failed] = [line for line in lines if line.get("kind") == "failed"]
    assert (failed["level"], failed["code"], failed["track_id"]) == ("warning", "corrupt", None)
    assert failed["message"] == f"failed {failed['path']} (corrupt: {failed['detail']})"
    assert all(re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", str(line["time"])) for line in lines)


def test_a_crash_is_one_json_object_with_its_traceback(soulspot: Soulspot, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(FAULTY)

    result = soulspot.run("watch", str(soulspot.music), PYTHONPATH=str(tmp_path), **JSON)

    assert result.returncode == 1
    last = parsed(result.stderr)[-1]
    assert (last["level"], last["message"]) == ("critical", "internal error")
    assert str(last["exception"]).startswith("Traceback")
    assert "RuntimeError: nobody expected this" in str(last["exception"])


def test_an_error_that_ends_the_daemon_is_a_json_object(soulspot: Soulspot) -> None:
    soulspot.database.write_bytes(b"this is no database" * 1000)

    result = soulspot.run("watch", str(soulspot.music), **JSON)

    assert result.returncode == 78
    [last] = parsed(result.stderr)
    assert last["level"] == "critical"
    assert str(soulspot.database) in str(last["message"])


def test_json_has_exactly_the_documented_fields(soulspot: Soulspot, tmp_path: Path) -> None:
    break_files(soulspot, FIRST + 1)
    (tmp_path / "sitecustomize.py").write_text(FAULTY)

    output = soulspot.run("scan", str(soulspot.music), **JSON).stderr
    output += soulspot.run("scan", str(soulspot.music), PYTHONPATH=str(tmp_path), **JSON).stderr

    seen = {name for line in parsed(output) for name in line}
    assert seen == {row[0].strip("`") for row in rows("docs/operations.md", "log-fields")}


def test_a_terminal_gets_colours_but_none_from_a_file_name(soulspot: Soulspot) -> None:
    write_song(soulspot.music / "a\x1b[31m.mp3")

    text = drawn(soulspot, "watch", str(soulspot.music))

    assert "\x1b[32madded\x1b[0m" in text
    assert r"a\x1b[31m.mp3" in text


@pytest.mark.parametrize(
    "settings", [{"NO_COLOR": "1"}, {"TERM": "dumb"}, {"TERM": ""}, {"SOULSPOT_LOG__FORMAT": "plain"}, JSON]
)
def test_a_terminal_without_colour_support_gets_none(soulspot: Soulspot, settings: dict[str, str]) -> None:
    write_song(soulspot.music / "song.mp3")

    text = drawn(soulspot, "watch", str(soulspot.music), **settings)

    assert "added" in text
    assert "\x1b" not in text


@pytest.mark.parametrize(("form", "coloured"), [("auto", False), ("plain", False), ("color", True)])
def test_a_pipe_gets_colours_only_on_request(soulspot: Soulspot, form: str, coloured: bool) -> None:
    soulspot.watch(SOULSPOT_LOG__FORMAT=form)
    write_song(soulspot.music / "song.mp3")

    until(lambda: "song.mp3" in soulspot.log.read_text())

    assert ("\x1b" in soulspot.log.read_text()) is coloured


def test_an_unknown_format_is_refused_and_the_valid_ones_are_listed(soulspot: Soulspot) -> None:
    result = soulspot.run("watch", str(soulspot.music), SOULSPOT_LOG__FORMAT="xml")

    assert result.returncode == 78
    assert "'auto', 'plain', 'colour' or 'json'" in result.stderr


def test_repeated_errors_are_counted_by_code_and_good_files_all_logged(soulspot: Soulspot) -> None:
    count = FIRST + 15
    soulspot.readers = {}
    soulspot.watch(**JSON)
    break_files(soulspot, count)

    until(lambda: '"codes"' in soulspot.log.read_text(), REPORT_SECONDS * 3)
    until(lambda: len(soulspot.tracks()) == count)

    lines = parsed(soulspot.log.read_text())
    single = Counter(line["code"] for line in lines if line.get("kind") == "failed" and "count" not in line)
    assert single == {"corrupt": FIRST, "empty": FIRST}
    counted: Counter[str] = Counter()
    for line in lines:
        if isinstance(codes := line.get("codes"), dict):
            counted.update(codes)
            assert line["count"] == sum(codes.values())
    assert counted == {"corrupt": 15, "empty": 15}
    assert sum(line.get("kind") == "added" for line in lines) == count
    assert len(soulspot.run("failures", "list").stdout.splitlines()) == 2 * count


@pytest.mark.parametrize(
    ("form", "pattern"), [("auto", r"<4>failed /"), ("colour", r"<4>failed /"), ("json", r'<4>{"time')]
)
def test_the_systemd_journal_gets_priorities_and_no_colours(soulspot: Soulspot, form: str, pattern: str) -> None:
    soulspot.log.touch()
    status = soulspot.log.stat()
    soulspot.watch(SOULSPOT_LOG__FORMAT=form, JOURNAL_STREAM=f"{status.st_dev}:{status.st_ino}")
    (soulspot.music / "broken.mp3").write_bytes(b"no audio" * 100)

    until(lambda: "broken.mp3" in soulspot.log.read_text())

    lines = soulspot.log.read_text().splitlines()
    assert all(re.match(r"<\d>", line) for line in lines)
    assert any(re.match(pattern, line) for line in lines)
    assert "\x1b" not in soulspot.log.read_text()


def test_repeated_errors_do_not_bury_the_progress_bar(soulspot: Soulspot) -> None:
    break_files(soulspot, FIRST + 5)

    text = drawn(soulspot, "scan", str(soulspot.music))

    assert text.count("failed\x1b[0m /") == 2 * FIRST
    assert "failed 10 more: 5 corrupt, 5 empty" in re.sub(r"\x1b\[[\d;]*m", "", text)


def test_pending_counts_are_logged_when_the_daemon_stops(soulspot: Soulspot) -> None:
    daemon = soulspot.watch()
    break_files(soulspot, FIRST + 5)

    until(lambda: soulspot.rows("SELECT count(*) FROM files WHERE status = 'failed'") == [(2 * FIRST + 10,)])
    daemon.send_signal(signal.SIGTERM)

    assert daemon.wait(timeout=15) == 0
    assert "failed 10 more: 5 corrupt, 5 empty; `soulspot failures list` shows each" in soulspot.log.read_text()


def test_debug_level_logs_every_line(soulspot: Soulspot) -> None:
    break_files(soulspot, FIRST + 5)

    result = soulspot.run("scan", str(soulspot.music), SOULSPOT_LOG__LEVEL="debug")

    assert result.stderr.count("failed /") == 2 * FIRST + 10


def test_a_partly_written_line_does_not_run_into_the_next() -> None:
    """Tear a line, as a nearly full pipe with a slow reader does."""
    program = (
        "import logging, sys; from soulspot.cli.output import logs; logs.set_up('info', 'json'); "
        "log = logging.getLogger('soulspot'); log.info('x' * 200_000); print(flush=True); input(); log.info('after')"
    )
    ours, theirs = os.pipe()
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=theirs) as process:
        os.close(theirs)
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        begun = os.read(ours, 1 << 20)
        process.stdin.write(b"\n")
        process.stdin.close()
        rest = b""
        while part := os.read(ours, 1 << 20):
            rest += part
    os.close(ours)

    assert begun.endswith(b"xxx")
    assert [line["message"] for line in parsed(rest.decode().removeprefix("\n"))] == [
        "1 lines were lost because the reader was too slow",
        "after",
    ]


@pytest.fixture
def throttled(caplog: pytest.LogCaptureFixture) -> Iterator[tuple[LogThrottle, list[str], list[float]]]:
    """Yield a throttle, the messages that it lets through, and its clock."""
    caplog.set_level(logging.INFO)
    clock = [0.0]
    throttle, through = LogThrottle(clock=lambda: clock[0]), list[str]()

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if not throttle.suppresses(record):
                through.append(record.getMessage())

    handler = Handler()
    logger = logging.getLogger("soulspot")
    logger.addHandler(handler)
    yield throttle, through, clock
    logger.removeHandler(handler)


def reports(throttle: LogThrottle) -> list[str]:
    return [record.getMessage() for record in throttle.reports()]


def test_an_error_after_a_pause_is_logged_in_full_again(throttled) -> None:
    throttle, through, clock = throttled
    for number in range(FIRST + 2):
        log_outcome(Outcome("failed", f"/{number}", code="unreadable"))
    assert reports(throttle) == ["failed 2 more: 2 unreadable; `soulspot failures list` shows each"]

    clock[0] = REPORT_SECONDS + 1
    log_outcome(Outcome("failed", "/again", code="unreadable"))

    assert through[-1].startswith("failed /again")
    assert reports(throttle) == []


def test_a_new_kind_of_error_is_logged_in_full(throttled) -> None:
    throttle, through, _clock = throttled
    for number in range(FIRST + 2):
        log_outcome(Outcome("failed", f"/{number}", code="unreadable"))
        logging.getLogger("soulspot.scanner").warning("cannot read folder %s: %s", f"/{number}", "I/O error")
    log_outcome(Outcome("failed", "/new", code="corrupt"))

    assert through[-1].startswith("failed /new")
    assert reports(throttle) == [
        f"2 more lines such as: cannot read folder /{FIRST + 1}: I/O error",
        "failed 2 more: 2 unreadable; `soulspot failures list` shows each",
    ]


def test_added_and_missing_files_are_never_throttled(throttled) -> None:
    throttle, through, _clock = throttled
    for number in range(FIRST * 3):
        for kind in ("added", "missing", "updated"):
            log_outcome(Outcome(kind, f"/{number}"))

    assert len(through) == FIRST * 9
    assert reports(throttle) == []
