"""The daemon's HTTP server answers every valid request, and no slow client blocks it."""

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


async def fetch(address: int | Path, path: str = "/hello", method: str = "GET", **headers: str) -> Response:
    return await asyncio.to_thread(ask, address, path, method, **headers)


async def exchange(port: int, data: bytes) -> bytes:
    """Send bytes; return the whole answer, until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    try:
        async with asyncio.timeout(10):
            return await reader.read()
    finally:
        writer.close()


async def test_only_get_and_head_are_answered(port: int) -> None:
    assert (await fetch(port)).text == "hello\n"
    head = await fetch(port, method="HEAD")
    assert (head.status, head.text, head.headers["Content-Length"]) == (200, "", "6")
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "TRACE"):
        refused = await fetch(port, method=method)
        assert (refused.status, refused.headers["Allow"]) == (405, "GET, HEAD")
    assert (await fetch(port, "/other")).text == "known paths: /hello\n"
    assert (await fetch(port, "/hello?x=1")).status == 200


@pytest.mark.parametrize("host", ["127.0.0.1:1", "localhost", "LOCALHOST:80", "[::1]:80", "127.8.9.1"])
async def test_requests_to_the_names_of_this_machine_are_answered(port: int, host: str) -> None:
    assert (await fetch(port, Host=host)).status == 200


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil", "8.8.8.8", "[::1", ""])
async def test_requests_to_a_foreign_host_name_are_refused(port: int, host: str) -> None:
    assert (await fetch(port, Host=host)).status == 403


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET /hello HTTP/1.1\r\n\r\n", b"400"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", b"400"),
        (b"GET /hello HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 40_000, b"431"),
        (b"GET /hello HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", b"400"),
        (b"GET /hello HTTP/1.0\r\n\r\n", b"403"),
    ],
)
async def test_an_invalid_request_gets_an_error_and_is_closed(port: int, data: bytes, status: bytes) -> None:
    assert (await exchange(port, data)).startswith(b"HTTP/1.1 " + status)
    assert (await fetch(port)).status == 200


async def test_an_unfinished_request_is_closed(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "CONNECTION_SECONDS", 0.2)

    assert await exchange(port, b"GET /hello HTTP/1.1\r\nHost: local") == b""


async def test_many_slow_clients_do_not_block_others(port: int) -> None:
    slow = [await asyncio.open_connection("127.0.0.1", port) for _number in range(http_server.MAX_CONNECTIONS * 3)]
    for _reader, writer in slow:
        writer.write(b"GET /hello HTTP/1.1\r\nX-Slow: ")

    async with asyncio.timeout(http_server.CONNECTION_SECONDS - 1):
        assert (await fetch(port)).status == 200
        assert await slow[0][0].read() == b""  # the server closed the oldest to make room
    for _reader, writer in slow:
        writer.close()


async def test_the_http_socket_is_group_writable_and_removed_at_the_stop(tmp_path: Path) -> None:
    path = tmp_path / "metrics.socket"

    async with http_server.serve(str(path), ANSWERS, mode=0o660, group=""):
        assert path.stat().st_mode & 0o777 == 0o660
        assert (await fetch(path, Host="any.example")).status == 200  # no browser reaches a socket

    assert not path.exists()


async def test_only_the_socket_of_a_dead_process_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "metrics.socket"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    async with http_server.serve(str(path), ANSWERS, mode=0o660, group=""):
        assert (await fetch(path)).status == 200
        with pytest.raises(LockHeldError):
            await http_server.serve(str(path), ANSWERS, mode=0o660, group="").__aenter__()

    path.write_text("mine")
    with pytest.raises(OSError, match="not a socket"):
        await http_server.serve(str(path), ANSWERS, mode=0o660, group="").__aenter__()
    assert path.read_text() == "mine"


async def test_requests_leave_no_descriptor_behind(port: int) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _number in range(50):
        await fetch(port)
    assert len(os.listdir("/proc/self/fd")) <= before + 1
