"""The HTTP server of the daemon, for probes and scrapers only: GET and HEAD, one request per connection.

h11 parses and writes the protocol. This module adds what a server inside a daemon needs: a time limit for each
connection, a limit on connections (a new one beyond it closes the oldest), and a check of the Host header against DNS
rebinding. The page has its own process and runs on uvicorn; docs/design.md explains why there are two.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

import h11

from soulspot.infrastructure.net.sockets import is_this_machine, listen_at

CONNECTION_SECONDS: Final = 5.0
"""Longest life of a connection."""
MAX_CONNECTIONS: Final = 16
_HEAD_LIMIT: Final = 16_384


@dataclass(frozen=True, slots=True)
class HttpReply:
    status: HTTPStatus
    body: bytes
    kind: str = "text/plain; charset=utf-8"

    @classmethod
    def of(cls, status: HTTPStatus, text: str = "") -> "HttpReply":
        return cls(status, f"{text or status.phrase}\n".encode())


Routes = Mapping[str, Callable[[str], Awaitable[HttpReply]]]
"""The handler of each path; it gets the Accept header."""


@asynccontextmanager
async def serve(place: str, routes: Routes, *, mode: int, group: str) -> AsyncIterator[None]:
    """Serve at `HOST:PORT`, or at an absolute path with a socket of this mode and group, until the block ends.

    Raises:
        LockHeldError: another process serves at that path.
        OSError: the address cannot be used.

    """
    served: dict[asyncio.Task[None], None] = {}  # oldest first

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        while len(served) >= MAX_CONNECTIONS:
            oldest = next(iter(served))
            served.pop(oldest)
            oldest.cancel()
        served[task] = None
        try:
            with closing(writer), suppress(OSError, TimeoutError, asyncio.CancelledError):
                async with asyncio.timeout(CONNECTION_SECONDS):
                    await _answer(reader, writer, routes, is_port=not place.startswith("/"))
        finally:
            served.pop(task, None)

    with listen_at(place, mode=mode, group=group) as listening:
        server = await asyncio.start_server(connected, sock=listening, limit=_HEAD_LIMIT)
        try:
            yield
        finally:
            server.close()
            for task in served:
                task.cancel()
            await asyncio.gather(*served, return_exceptions=True)


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, routes: Routes, *, is_port: bool) -> None:
    protocol = h11.Connection(h11.SERVER, max_incomplete_event_size=_HEAD_LIMIT)
    try:
        while (event := protocol.next_event()) is h11.NEED_DATA:
            protocol.receive_data(await reader.read(_HEAD_LIMIT))
        if not isinstance(event, h11.Request):
            return  # the client closed without a request
        reply = await _reply(event, routes, is_port=is_port)
        is_head = event.method == b"HEAD"
    except h11.RemoteProtocolError as error:
        reply, is_head = HttpReply.of(HTTPStatus(error.error_status_hint), str(error)), False
    headers = [
        ("Content-Type", reply.kind),
        ("Content-Length", str(len(reply.body))),
        ("Connection", "close"),
        ("Cache-Control", "no-store"),
        ("X-Content-Type-Options", "nosniff"),
        ("Allow", "GET, HEAD"),
    ]
    head = h11.Response(status_code=reply.status, headers=headers, reason=reply.status.phrase)
    writer.write(protocol.send(head) or b"")
    if not is_head:
        writer.write(protocol.send(h11.Data(data=reply.body)) or b"")
    await writer.drain()


async def _reply(request: h11.Request, routes: Routes, *, is_port: bool) -> HttpReply:
    headers = {name: value.decode("latin-1") for name, value in request.headers}
    if request.method not in {b"GET", b"HEAD"}:
        return HttpReply.of(HTTPStatus.METHOD_NOT_ALLOWED)
    # DNS rebinding: the name of a foreign page may resolve to this machine.
    if is_port and not _names_this_machine(headers.get(b"host", "")):
        return HttpReply.of(HTTPStatus.FORBIDDEN, "ask by 127.0.0.1, [::1] or localhost")
    answer = routes.get(request.target.decode("ascii", "replace").partition("?")[0])
    if answer is None:
        return HttpReply.of(HTTPStatus.NOT_FOUND, f"known paths: {', '.join(routes)}")
    return await answer(headers.get(b"accept", ""))


def _names_this_machine(host: str) -> bool:
    """Whether a Host header, with or without a port, is a loopback name or address."""
    name, _, port = host.rpartition(":")
    return is_this_machine(name if port.isdecimal() and name else host)
