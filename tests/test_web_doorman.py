"""The daemon starts the page on the first visit: until then it costs nothing, and it never delays ingest."""

import http.client
import os
import re
import socket
import time
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
from tests.conftest import Soulspot, until, write_song
from tests.support.http_endpoints import free_port


@pytest.fixture
def port() -> int:
    return free_port()


def ask(port: int, path: str = "/") -> tuple[int, str]:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode()


def pages_of(daemon: int) -> list[int]:
    """Return the processes of a daemon that serve its page."""
    children = Path(f"/proc/{daemon}/task/{daemon}/children").read_text().split()
    return [int(each) for each in children if b"\0web\0" in Path(f"/proc/{each}/cmdline").read_bytes()]


def test_the_first_visitor_starts_the_page(soulspot: Soulspot, port: int) -> None:
    write_song(soulspot.music / "song.mp3", title="On the page")
    daemon = soulspot.watch(SOULSPOT_WEB__LISTEN=f"127.0.0.1:{port}")
    until(soulspot.tracks)
    before = pages_of(daemon.pid)

    status, text = ask(port)

    assert before == []
    assert status == 200
    assert "On the page" in text
    assert "watching" in text
    [page] = pages_of(daemon.pid)
    assert os.getsid(page) == page


def test_a_crashed_page_restarts_and_ingest_continues(soulspot: Soulspot, port: int) -> None:
    daemon = soulspot.watch(SOULSPOT_WEB__LISTEN=f"127.0.0.1:{port}")
    assert ask(port)[0] == 200

    for number in range(2):
        [page] = pages_of(daemon.pid)
        os.kill(page, 9)
        write_song(soulspot.music / f"{number}.mp3")
        until(partial(_has, soulspot, number + 1))
        assert ask(port)[0] == 200

    pauses = re.findall(r"the page ended with code -9 after \d+ s: restarting it in (\d+) s", soulspot.log.read_text())
    assert [int(each) for each in pauses] == [1, 2]


def test_the_page_exits_with_the_daemon(soulspot: Soulspot, port: int) -> None:
    daemon = soulspot.watch(SOULSPOT_WEB__LISTEN=f"127.0.0.1:{port}")
    ask(port)
    [page] = pages_of(daemon.pid)

    began = time.monotonic()
    daemon.terminate()

    assert daemon.wait(timeout=20) == 0
    assert time.monotonic() - began < 6
    until(lambda: not Path(f"/proc/{page}").exists(), 5)


def test_the_page_uses_the_settings_of_its_daemon(soulspot: Soulspot, port: int, tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text(
        f'[database]\nurl = "sqlite+aiosqlite:///{soulspot.database}"\n[library]\nfolders = ["{soulspot.music}"]\n'
        f'[web]\nlisten = "127.0.0.1:{port}"\nhosts = ["music.example"]\n'
    )
    soulspot.environment.pop("SOULSPOT_DATABASE__URL")
    daemon = soulspot.start_watching(folders=False, SOULSPOT_CONFIG=str(config))
    until(lambda: b"watching" in soulspot.log.read_bytes())

    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
        connection.request("GET", "/health", headers={"Host": "music.example"})
        response = connection.getresponse()
        text = response.read().decode()

    assert response.status == 200
    assert str(soulspot.music) in text
    assert daemon.poll() is None


@pytest.mark.parametrize(
    ("listen", "message"),
    [
        ("0.0.0.0:0", "other machines reach"),
        ("/nowhere/web.socket", "the page cannot be served at /nowhere/web.socket"),
        ("music.example:80", "WEB__LISTEN is"),
    ],
)
def test_an_address_that_cannot_be_served_is_reported_at_the_start(
    soulspot: Soulspot, listen: str, message: str
) -> None:
    soulspot.scan()

    result = soulspot.run("watch", str(soulspot.music), SOULSPOT_WEB__LISTEN=listen)

    assert result.returncode == 78
    assert message.lower() in result.stderr.lower()


def test_a_socket_path_gets_the_mode_of_the_control_socket(soulspot: Soulspot, tmp_path: Path) -> None:
    socket_file = tmp_path / "web.socket"
    daemon = soulspot.watch(SOULSPOT_WEB__LISTEN=str(socket_file), SOULSPOT_CONTROL__MODE="0600")

    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.connect(str(socket_file))
        connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        with connection.makefile("rb") as answer:
            assert answer.readline() == b"HTTP/1.1 200 OK\r\n"

    assert socket_file.stat().st_mode & 0o777 == 0o600
    daemon.terminate()
    daemon.wait()
    assert not socket_file.exists()


def test_waiting_for_a_visitor_takes_no_cpu_time(soulspot: Soulspot, port: int) -> None:
    daemon = soulspot.watch(SOULSPOT_WEB__LISTEN=f"127.0.0.1:{port}")
    time.sleep(1)

    with socket.create_connection(("127.0.0.1", port)):
        until(lambda: pages_of(daemon.pid))
        before = _ticks(daemon.pid)
        time.sleep(3)
        after = _ticks(daemon.pid)

    assert after - before < 0.3


def _ticks(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _has(soulspot: Soulspot, tracks: int) -> bool:
    return len(soulspot.tracks()) == tracks
