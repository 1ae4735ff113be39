"""`soulspot top` in a real terminal, and how a line is made of what anybody may have named a file."""

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
from rich.cells import cell_len
from tests.conftest import Soulspot, until, write_song
from tests.support.tmux_terminal import Terminal

from soulspot.cli.output.text import printable
from soulspot.cli.output.top_view import View, cut, lines
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
def test_a_drop_is_seen_within_a_second_and_a_failure_is_named(soulspot: Soulspot, terminal: Terminal) -> None:
    daemon = soulspot.watch()
    start(soulspot, terminal)
    until(lambda: f"pid {daemon.pid}" in terminal.screen())

    waits: list[float] = []
    while len(waits) < 20 and not any(each < 1 for each in waits[1:]):
        number = len(waits)
        write_song(soulspot.music / f"{number}.mp3", artist="Somebody", title=f"Something {number}")
        began = time.monotonic()
        until(lambda: f"{number}.mp3  Somebody – Something {number}" in terminal.screen())  # noqa: B023 - at once
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
def test_what_settles_is_shown_with_for_how_long(soulspot: Soulspot, terminal: Terminal) -> None:
    soulspot.watch(SOULSPOT_LIBRARY__LEASES="false", SOULSPOT_LIBRARY__QUIET_PERIOD="60")
    start(soulspot, terminal)

    write_song(soulspot.music / "growing.mp3")

    until(lambda: re.search(r"settles +[1-9]\d* s +growing.mp3", terminal.screen()), 10)
    assert "1 not complete yet" in terminal.screen()


@pytest.mark.terminal
def test_it_fits_the_terminal_whatever_its_size(soulspot: Soulspot, terminal: Terminal) -> None:
    for number in range(40):
        write_song(soulspot.music / f"{number}.mp3")
    soulspot.watch()
    start(soulspot, terminal)
    until(lambda: "40 catalogued" in terminal.screen())

    for columns, rows in ((50, 10), (200, 50), (30, 6), (80, 24)):
        terminal.resize(columns, rows)

        until(lambda: is_whole(terminal.lines(), rows))  # noqa: B023 - at once


@pytest.mark.terminal
def test_keys_pause_and_resume_and_scan(soulspot: Soulspot, terminal: Terminal) -> None:
    soulspot.watch()
    start(soulspot, terminal)
    until(lambda: "p  pause" in terminal.screen())

    terminal.type("p")
    until(lambda: "● paused" in terminal.screen())
    terminal.type("r")
    until(lambda: "● ok" in terminal.screen())
    terminal.type("s")
    until(lambda: "all folders are looked at" in terminal.screen())


@pytest.mark.terminal
def test_it_says_that_no_daemon_runs_and_comes_back_when_one_does(soulspot: Soulspot, terminal: Terminal) -> None:
    write_song(soulspot.music / "song.mp3")
    soulspot.scan()
    start(soulspot, terminal)
    until(lambda: "no soulspot is running" in terminal.screen() and "1 catalogued" in terminal.screen())

    daemon = soulspot.watch()
    until(lambda: "● ok" in terminal.screen(), 10)
    daemon.send_signal(signal.SIGKILL)
    daemon.wait()
    until(lambda: "it has stopped; another is waited for" in terminal.screen(), 10)
    other = soulspot.watch()
    until(lambda: f"pid {other.pid}" in terminal.screen(), 10)
    other.send_signal(signal.SIGSTOP)
    until(lambda: "silent for" in terminal.screen(), 10)
    other.send_signal(signal.SIGCONT)
    until(lambda: "● ok" in terminal.screen(), 10)


@pytest.mark.terminal
@pytest.mark.parametrize("how", ["q", "C-c", "TERM"])
def test_the_terminal_is_as_before_however_it_ends(soulspot: Soulspot, terminal: Terminal, how: str) -> None:
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
def test_hostile_names_leave_the_screen_whole(soulspot: Soulspot, terminal: Terminal) -> None:
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


def test_without_a_terminal_it_says_what_to_use_instead(soulspot: Soulspot) -> None:
    soulspot.scan()

    for settings in ({"TERM": "dumb"}, {"TERM": "xterm"}):
        result = soulspot.run("top", **settings)

        assert result.returncode == 1
        assert "`soulspot audit --follow`" in result.stderr
        assert "\x1b" not in result.stdout


@pytest.mark.parametrize("text", EVIL.values(), ids=EVIL)
@pytest.mark.parametrize("keep_end", [False, True])
@pytest.mark.parametrize("cells", [0, 1, 2, 7, 80])
def test_a_text_is_cut_to_the_cells_that_there_are(text: str, cells: int, keep_end: bool) -> None:
    shown = cut(text, cells, keep_end=keep_end)

    assert cell_len(shown) <= cells
    assert len(shown) <= 6 * cells + 10
    assert printable(shown) == shown


@pytest.mark.parametrize("columns", [20, 80, 300])
@pytest.mark.parametrize("rows", [5, 6, 24, 100])
def test_hostile_answers_are_drawn_within_columns_and_rows(columns: int, rows: int) -> None:
    view = View()
    view.hear({"pid": 1, "since": "2026-11-24T18:00:00+00:00", "may_steer": True})
    at = "2026-11-24T18:00:00+00:00"
    for text in EVIL.values():
        view.hear({"happened": [{"at": at, "kind": "failed", "path": text, "detail": text}], "lost": 0})
        arriving = [{"path": text, "seconds": 1e9, "settles": True}] * 20
        last = [{"path": text, "code": "corrupt", "detail": text}] * 5
        view.hear({
            "vitals": {
                "health": "degraded", "reasons": [text] * 9, "rates": [10**9] * 60, "arriving": arriving,
                "queue": {"in_hand": 10**12, "settling": 10**12, "oldest_seconds": 10**9},
                "folders": {text[:1000]: {"offline": text}, "/b": {"held": 5}, "/c": {"offline": None}},
                "walks": [{"folder": text, "done": 10, "total": 10**9, "seconds": 3}] * 9,
                "totals": {"files": {"failed": 9}, "failures": {"corrupt": 9}, "last_failures": last},
            }
        })  # fmt: skip

        drawn = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in lines(view, columns, rows)]

        assert len(drawn) == rows
        assert max(map(cell_len, drawn)) <= columns
        assert all(printable(line) == line for line in drawn)


async def test_the_stream_tells_how_it_is_and_what_happened_before_it_was_asked(soulspot: Soulspot) -> None:
    soulspot.watch()
    write_song(soulspot.music / "song.mp3")
    until(soulspot.tracks)

    answers = control_socket.stream_answers(control_socket.socket_of(soulspot.database), "live")
    first, second = await anext(answers), await anext(answers)

    assert ([Path(each["path"]).name for each in first["happened"]], first["may_steer"]) == (["song.mp3"], True)
    assert second["vitals"]["health"] == "ok"
    assert sum(second["vitals"]["rates"]) <= 1
    await answers.aclose()


def test_one_who_asks_and_does_not_read_stops_nobody(soulspot: Soulspot) -> None:
    soulspot.watch()
    place = control_socket.socket_of(soulspot.database)
    script = (
        "import socket, sys, time; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]);"
        """s.sendall(b'{"ask": "live"}\\n'); time.sleep(60)"""
    )
    stuck = [subprocess.Popen([soulspot.command[0], "-c", script, str(place)]) for _number in range(10)]
    try:
        for number in range(200):
            write_song(soulspot.music / f"{number}.mp3")
        until(lambda: len(soulspot.tracks()) == 200)
        assert json.loads(soulspot.run("status", "--json").stdout)["health"] == "ok"
    finally:
        for process in stuck:
            process.kill()
            process.wait()
