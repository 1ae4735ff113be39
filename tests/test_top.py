"""`soulspot top` in a real terminal, and how it draws hostile file names."""

import json
import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len
from tests.conftest import Soulspot, until, write_song
from tests.support.tmux_terminal import Terminal

from soulspot.cli.output.text import printable
from soulspot.cli.output.top_view import View, cut, screen
from soulspot.infrastructure.net import control_socket

EVIL = {
    "bidi": "\u202eevil\u2066.mp3",
    "control": "\x1b[2J\x1b]0;owned\x07\r\n\x9b31m\x00",
    "wide": "日本語" * 500,
    "marks": "e" + "\u0301" * 5000,
    "emoji": "👩‍👩‍👧‍👦🏳️‍🌈" * 300,
    "megabytes": "x" * 3_000_000,
    "lone surrogate": "\udcff" * 50,
    "markup": "[bold red]not red[/] \\[x]",
}


def start(soulspot: Soulspot, terminal: Terminal, *, columns: int = 80, rows: int = 24) -> None:
    terminal.run([*soulspot.command, "top"], soulspot.environment, columns=columns, rows=rows)
    until(lambda: "soulspot" in terminal.screen() and "quit" in terminal.screen())


def is_whole(shown: list[str], rows: int) -> bool:
    return len(shown) == rows and "soulspot" in shown[0] and "q  quit" in shown[-1]


@pytest.mark.terminal
def test_a_dropped_file_shows_within_a_second_and_a_failure_by_code(soulspot: Soulspot, terminal: Terminal) -> None:
    daemon = soulspot.watch()
    start(soulspot, terminal)
    until(lambda: f"pid {daemon.pid}" in terminal.screen())

    waits: list[float] = []
    while len(waits) < 20 and not any(each < 1 for each in waits[1:]):
        number = len(waits)
        write_song(soulspot.music / f"{number}.mp3", artist="Somebody", title=f"Something {number}")
        began = time.monotonic()
        until(lambda: f"{number}.mp3  Somebody – Something {number}" in terminal.screen())  # noqa: B023 - called at once
        waits.append(time.monotonic() - began)

    assert min(waits[1:]) < 1, waits  # a busy machine may take longer
    (soulspot.music / "broken.mp3").write_bytes(b"no audio at all" * 100)
    until(lambda: "failures to look into  1 corrupt" in terminal.screen(), 15)
    shown = terminal.lines()
    assert len(shown) == 24
    assert re.search(r"● ok +up \d+ s +pid", shown[0])
    assert re.search(r"files/s +[\d.]+ now +[\d.]+ last minute +[▁▂▃▄▅▆▇█]+", shown[1])
    assert str(soulspot.music)[-20:] in terminal.screen()


@pytest.mark.terminal
def test_an_incomplete_file_shows_how_long_it_has_waited(soulspot: Soulspot, terminal: Terminal) -> None:
    soulspot.watch(SOULSPOT_LIBRARY__LEASES="false", SOULSPOT_LIBRARY__QUIET_PERIOD="60")
    start(soulspot, terminal)

    write_song(soulspot.music / "growing.mp3")

    until(lambda: re.search(r"settles +[1-9]\d* s +growing.mp3", terminal.screen()), 10)
    assert "1 still being written" in terminal.screen()


@pytest.mark.terminal
def test_the_view_fits_a_terminal_of_any_size(soulspot: Soulspot, terminal: Terminal) -> None:
    for number in range(40):
        write_song(soulspot.music / f"{number}.mp3")
    soulspot.watch()
    start(soulspot, terminal)
    until(lambda: "40 catalogued" in terminal.screen())

    for columns, rows in ((50, 10), (200, 50), (30, 6), (80, 24)):
        terminal.resize(columns, rows)

        until(lambda: is_whole(terminal.lines(), rows))  # noqa: B023 - called at once


@pytest.mark.terminal
def test_keys_pause_resume_and_scan(soulspot: Soulspot, terminal: Terminal) -> None:
    soulspot.watch()
    start(soulspot, terminal)
    until(lambda: "p  pause" in terminal.screen())

    terminal.type("p")
    until(lambda: "● paused" in terminal.screen())
    terminal.type("r")
    until(lambda: "● ok" in terminal.screen())
    terminal.type("s")
    until(lambda: "scanning all folders" in terminal.screen())


@pytest.mark.terminal
def test_the_view_shows_when_no_daemon_runs_and_connects_to_a_new_one(soulspot: Soulspot, terminal: Terminal) -> None:
    write_song(soulspot.music / "song.mp3")
    soulspot.scan()
    start(soulspot, terminal)
    until(lambda: "no soulspot is running" in terminal.screen() and "1 catalogued" in terminal.screen())

    daemon = soulspot.watch()
    until(lambda: "● ok" in terminal.screen(), 10)
    daemon.send_signal(signal.SIGKILL)
    daemon.wait()
    until(lambda: "the daemon has stopped; waiting for another" in terminal.screen(), 10)
    other = soulspot.watch()
    until(lambda: f"pid {other.pid}" in terminal.screen(), 10)
    other.send_signal(signal.SIGSTOP)
    until(lambda: "silent for" in terminal.screen(), 10)
    other.send_signal(signal.SIGCONT)
    until(lambda: "● ok" in terminal.screen(), 10)


@contextmanager
def answering(socket_file: Path, *lines: dict[str, Any]) -> Iterator[None]:
    """Stand in for a daemon that sends these lines to each client."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(socket_file))
        listening.listen()

        def answer() -> None:
            with suppress(OSError):
                while True:
                    with listening.accept()[0] as client:
                        client.sendall("".join(json.dumps(line) + "\n" for line in lines).encode())

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        try:
            yield
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()
            socket_file.unlink()


@pytest.mark.terminal
def test_a_crash_restores_the_terminal(soulspot: Soulspot, terminal: Terminal) -> None:
    soulspot.scan()
    start(soulspot, terminal)

    with answering(control_socket.socket_of(soulspot.database), {"pid": 1, "since": "no time"}):
        until(lambda: "left 1" in terminal.screen(), 10)

    assert "ValueError" in terminal.screen()
    assert (terminal.pane("alternate_on"), terminal.pane("cursor_flag"), terminal.pane("wrap_flag")) == ("0", "1", "1")


@pytest.mark.terminal
def test_a_flood_of_events_is_drawn_in_few_frames(soulspot: Soulspot, terminal: Terminal) -> None:
    soulspot.scan()
    at = "2026-11-24T18:00:00+00:00"
    flood = [{"happened": [{"at": at, "kind": "added", "path": f"/m/{number}.mp3"}]} for number in range(20_000)]

    with answering(control_socket.socket_of(soulspot.database), {"pid": 1, "since": at}, *flood):
        terminal.run([*soulspot.command, "top"], soulspot.environment)
        until(lambda: "quit" in terminal.screen())
        until(lambda: "/m/19999.mp3" in terminal.screen(), 10)


@pytest.mark.terminal
@pytest.mark.parametrize("no_color", ["", "1"])
def test_colours_appear_unless_no_color_is_set(
    soulspot: Soulspot, terminal: Terminal, monkeypatch: pytest.MonkeyPatch, no_color: str
) -> None:
    monkeypatch.setenv("NO_COLOR", no_color)
    soulspot.scan()
    start(soulspot, terminal)

    until(lambda: "no soulspot is running" in terminal.screen())

    assert bool(re.search("\x1b\\[([0-9]+;)*3[1-7]m", terminal.screen("-e"))) is not bool(no_color)


@pytest.mark.terminal
@pytest.mark.parametrize("how", ["q", "C-c", "TERM"])
def test_the_terminal_is_restored_however_top_ends(soulspot: Soulspot, terminal: Terminal, how: str) -> None:
    soulspot.scan()
    start(soulspot, terminal)
    assert (terminal.pane("alternate_on"), terminal.pane("cursor_flag"), terminal.pane("wrap_flag")) == ("1", "0", "0")

    if how == "TERM":
        os.kill(_child(int(terminal.pane("pane_pid"))), signal.SIGTERM)
    else:
        terminal.type(how)

    until(lambda: "left 0" in terminal.screen(), 10)
    assert (terminal.pane("alternate_on"), terminal.pane("cursor_flag"), terminal.pane("wrap_flag")) == ("0", "1", "1")
    terminal.type("clear; stty -a | tr ' ' '\\n' | grep -cx 'icanon\\|echo'", "Enter")
    until(lambda: terminal.lines()[:1] == ["2"])


def _child(pid: int) -> int:
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


@pytest.mark.terminal
def test_hostile_names_do_not_break_the_screen(soulspot: Soulspot, terminal: Terminal) -> None:
    for text in EVIL.values():
        name = text.replace("/", "").replace("\0", "").encode(errors="surrogateescape")[:200].decode(errors="ignore")
        write_song(soulspot.music / f"{name or 'empty'}.mp3")
    soulspot.watch()
    start(soulspot, terminal)
    until(lambda: f"{len(EVIL)} catalogued" in terminal.screen())

    shown = terminal.lines()

    assert len(shown) == 24
    assert "soulspot" in shown[0]
    assert "q  quit" in shown[-1]
    assert "\\u202eevil\\u2066" in terminal.screen()
    assert terminal.pane("pane_title") != "owned"


def test_without_a_terminal_an_error_names_the_alternatives(soulspot: Soulspot) -> None:
    soulspot.scan()

    for settings in ({"TERM": "dumb"}, {"TERM": "xterm"}):
        result = soulspot.run("top", **settings)

        assert result.returncode == 1
        assert "`soulspot audit --follow`" in result.stderr
        assert "\x1b" not in result.stdout


@pytest.mark.parametrize("text", EVIL.values(), ids=EVIL)
@pytest.mark.parametrize("keep_end", [False, True])
@pytest.mark.parametrize("cells", [0, 1, 2, 7, 80])
def test_a_text_is_cut_to_the_given_cells(text: str, cells: int, keep_end: bool) -> None:
    shown = cut(text, cells, keep_end=keep_end)

    assert cell_len(shown) <= cells
    assert len(shown) <= 6 * cells + 10
    assert printable(shown) == shown


@pytest.mark.parametrize("columns", [20, 80, 300])
@pytest.mark.parametrize("rows", [5, 6, 24, 100])
def test_hostile_answers_stay_within_columns_and_rows(columns: int, rows: int) -> None:
    view = View()
    view.update({"pid": 1, "since": "2026-11-24T18:00:00+00:00", "may_steer": True})
    at = "2026-11-24T18:00:00+00:00"
    for text in EVIL.values():
        view.update({"happened": [{"at": at, "kind": "failed", "path": text, "detail": text}], "lost": 0})
        arriving = [{"path": text, "seconds": 1e9, "settles": True}] * 20
        last = [{"path": text, "code": "corrupt", "detail": text}] * 5
        view.update({
            "vitals": {
                "health": "degraded", "reasons": [text] * 9, "rates": [10**9] * 60, "arriving": arriving,
                "queue": {"in_hand": 10**12, "settling": 10**12, "oldest_seconds": 10**9},
                "folders": {text[:1000]: {"offline": text}, "/b": {"held": 5}, "/c": {"offline": None}},
                "walks": [{"folder": text, "done": 10, "total": 10**9, "seconds": 3}] * 9,
                "totals": {"files": {"failed": 9}, "failures": {"corrupt": 9}, "last_failures": last},
            }
        })  # fmt: skip

        drawn = screen(view, columns, rows).plain.split("\n")

        assert len(drawn) == rows
        assert max(map(cell_len, drawn)) <= columns
        assert all(printable(line) == line for line in drawn)


def test_the_view_shows_health_rates_and_outcomes() -> None:
    view = View()
    view.update({"pid": 7, "since": "2026-11-24T18:00:00+00:00", "may_steer": False})
    view.update({
        "vitals": {
            "health": "degraded", "reasons": ["the disk is full"], "rates": [0, 3], "folders": {"/music": {}},
            "totals": {"files": {"catalogued": 1200, "failed": 1}, "failures": {}, "last_failures": []},
        },
        "happened": [{"at": "2026-11-24T18:00:00+00:00", "kind": "added", "path": "/music/a/song.mp3", "detail": "A"}],
    })  # fmt: skip

    shown = screen(view, 80, 12).plain

    assert "● degraded" in shown
    assert "  the disk is full" in shown
    assert "1,200 catalogued, 0 missing, 1 failed" in shown
    assert "added     a/song.mp3  A" in shown
    assert "pause" not in shown


async def test_the_live_stream_starts_with_recent_events_and_health(soulspot: Soulspot) -> None:
    soulspot.watch()
    write_song(soulspot.music / "song.mp3")
    until(soulspot.tracks)

    answers = control_socket.stream_answers(control_socket.socket_of(soulspot.database), "live")
    first, second = await anext(answers), await anext(answers)

    assert ([Path(each["path"]).name for each in first["happened"]], first["may_steer"]) == (["song.mp3"], True)
    assert second["vitals"]["health"] == "ok"
    assert sum(second["vitals"]["rates"]) <= 1
    await answers.aclose()


def test_a_client_that_does_not_read_blocks_nothing(soulspot: Soulspot) -> None:
    soulspot.watch()
    socket_file = control_socket.socket_of(soulspot.database)
    script = (
        "import socket, sys, time; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]);"
        """s.sendall(b'{"ask": "live"}\\n'); time.sleep(60)"""
    )
    stuck = [subprocess.Popen([soulspot.command[0], "-c", script, str(socket_file)]) for _number in range(10)]
    try:
        for number in range(200):
            write_song(soulspot.music / f"{number}.mp3")
        until(lambda: len(soulspot.tracks()) == 200)
        assert json.loads(soulspot.run("status", "--json").stdout)["health"] == "ok"
    finally:
        for process in stuck:
            process.kill()
            process.wait()
