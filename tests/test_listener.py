"""The HTTP listener: it answers whoever asks properly, and is held up by nobody else."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from http import HTTPStatus
from pathlib import Path

import pytest
from tests.support.http_endpoints import Response, ask, free_port

from soulspot.errors import LockHeldError
from soulspot.infrastructure.net import http_server
from soulspot.infrastructure.net.http_server import HttpReply, Routes


async def hello(_accepted: str) -> HttpReply:
    return HttpReply.of(HTTPStatus.OK, "hello")


ANSWERS: Routes = {"/hello": hello}


@pytest.fixture
async def port() -> AsyncIterator[int]:
    number = free_port()
    async with http_server.serve(f"127.0.0.1:{number}", ANSWERS, mode=0o660, group=""):
        yield number


async def asked(place: int | Path, path: str = "/hello", method: str = "GET", **headers: str) -> Response:
    return await asyncio.to_thread(ask, place, path, method, **headers)


async def sent(port: int, words: bytes) -> bytes:
    """Return all that is answered to what was sent, until the other side closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(words)
    try:
        async with asyncio.timeout(10):
            return await reader.read()
    finally:
        writer.close()


async def test_it_answers_get_and_head_and_nothing_else(port: int) -> None:
    assert (await asked(port)).text == "hello\n"
    head = await asked(port, method="HEAD")
    assert (head.status, head.text, head.headers["Content-Length"]) == (200, "", "6")
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "TRACE"):
        refused = await asked(port, method=method)
        assert (refused.status, refused.headers["Allow"]) == (405, "GET, HEAD")
    assert (await asked(port, "/other")).text == "known paths: /hello\n"
    assert (await asked(port, "/hello?x=1")).status == 200


@pytest.mark.parametrize("host", ["127.0.0.1:1", "localhost", "LOCALHOST:80", "[::1]:80", "127.8.9.1"])
async def test_it_may_be_asked_by_the_names_of_this_machine(port: int, host: str) -> None:
    assert (await asked(port, Host=host)).status == 200


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil", "8.8.8.8", "[::1", ""])
async def test_a_page_that_has_another_name_point_here_is_refused(port: int, host: str) -> None:
    assert (await asked(port, Host=host)).status == 403


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (b"GET /hello HTTP/1.1\r\n\r\n", b"400"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", b"400"),
        (b"GET /hello HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 40_000, b"431"),
        (b"GET /hello HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", b"400"),
        (b"GET /hello HTTP/1.0\r\n\r\n", b"403"),
    ],
)
async def test_what_is_no_request_is_told_so_and_closed(port: int, words: bytes, status: bytes) -> None:
    assert (await sent(port, words)).startswith(b"HTTP/1.1 " + status)
    assert (await asked(port)).status == 200


async def test_who_does_not_come_to_an_end_is_closed(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "CONNECTION_SECONDS", 0.2)

    assert await sent(port, b"GET /hello HTTP/1.1\r\nHost: local") == b""


async def test_many_slow_clients_keep_nobody_out(port: int) -> None:
    slow = [await asyncio.open_connection("127.0.0.1", port) for _number in range(http_server.MAX_CONNECTIONS * 3)]
    for _reader, writer in slow:
        writer.write(b"GET /hello HTTP/1.1\r\nX-Slow: ")

    async with asyncio.timeout(http_server.CONNECTION_SECONDS - 1):
        assert (await asked(port)).status == 200
        assert await slow[0][0].read() == b""  # the oldest made room
    for _reader, writer in slow:
        writer.close()


async def test_a_socket_is_for_the_owner_and_the_group_and_gone_at_the_end(tmp_path: Path) -> None:
    place = tmp_path / "metrics.socket"

    async with http_server.serve(str(place), ANSWERS, mode=0o660, group=""):
        assert place.stat().st_mode & 0o777 == 0o660
        assert (await asked(place, Host="any.example")).status == 200  # no browser reaches a socket

    assert not place.exists()


async def test_the_socket_of_one_that_was_killed_is_taken_over_and_nothing_else(tmp_path: Path) -> None:
    place = tmp_path / "metrics.socket"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(place))
    async with http_server.serve(str(place), ANSWERS, mode=0o660, group=""):
        assert (await asked(place)).status == 200
        with pytest.raises(LockHeldError):
            await http_server.serve(str(place), ANSWERS, mode=0o660, group="").__aenter__()

    place.write_text("mine")
    with pytest.raises(OSError, match="not a socket"):
        await http_server.serve(str(place), ANSWERS, mode=0o660, group="").__aenter__()
    assert place.read_text() == "mine"


async def test_answers_leave_no_descriptor_behind(port: int) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _number in range(50):
        await asked(port)
    assert len(os.listdir("/proc/self/fd")) <= before + 1
