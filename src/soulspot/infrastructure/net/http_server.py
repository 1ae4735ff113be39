"""A small HTTP server for probes and scrapers, on the event loop: it answers GET and HEAD, one request a connection.

h11 reads and writes the protocol; it waits for nothing and starts nothing. What is here is what a server owes its host:
each connection has a few seconds in all, one that is too many ends the oldest (whoever is in earnest is long done), and
a page in a browser cannot ask by another name of this machine.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

import h11

from soulspot.infrastructure.net.sockets import is_this_machine, listen_at

WITHIN: Final = 5.0
"""Seconds that a connection may take from its beginning to its end."""
AT_ONCE: Final = 16
"""Connections that are served at once."""
_HEAD_LIMIT: Final = 16_384
_TEXT: Final = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Reply:
    status: HTTPStatus
    body: bytes
    kind: str = _TEXT

    @classmethod
    def of(cls, status: HTTPStatus, text: str = "") -> "Reply":
        return cls(status, f"{text or status.phrase}\n".encode())


Answers = Mapping[str, Callable[[str], Awaitable[Reply]]]
"""What answers each path; it is given what the client accepts."""


@asynccontextmanager
async def serve(place: str, answers: Answers, *, mode: int, group: str) -> AsyncIterator[None]:
    """Answer at `HOST:PORT`, or at an absolute path by a socket of this mode and group, until the block ends.

    Raises:
        LockHeldError: somebody else answers at that path.
        OSError: nothing can listen there.

    """
    served: dict[asyncio.Task[None], None] = {}
    is_port = not place.startswith("/")

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        while len(served) >= AT_ONCE:
            oldest = next(iter(served))
            served.pop(oldest)
            oldest.cancel()
        served[task] = None
        try:
            with closing(writer), suppress(OSError, TimeoutError, asyncio.CancelledError):
                async with asyncio.timeout(WITHIN):
                    await _answer(reader, writer, answers, is_port=is_port)
        finally:
            served.pop(task, None)

    with listen_at(place, mode=mode, group=group) as listening:
        server = await asyncio.start_server(connected, sock=listening, limit=_HEAD_LIMIT)
        try:
            yield
        finally:
            server.close()
            tasks = list(served)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _answer(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answers: Answers, *, is_port: bool
) -> None:
    protocol = h11.Connection(h11.SERVER, max_incomplete_event_size=_HEAD_LIMIT)
    try:
        while (event := protocol.next_event()) is h11.NEED_DATA:
            protocol.receive_data(await reader.read(_HEAD_LIMIT))
        if not isinstance(event, h11.Request):
            return  # it has closed without a word
        reply = await _reply(event, answers, is_port=is_port)
        is_head = event.method == b"HEAD"
    except h11.RemoteProtocolError as error:
        reply, is_head = Reply.of(HTTPStatus(error.error_status_hint), str(error)), False
    headers = [("Content-Type", reply.kind), ("Content-Length", str(len(reply.body))), ("Connection", "close")]
    headers += [("Cache-Control", "no-store"), ("X-Content-Type-Options", "nosniff"), ("Allow", "GET, HEAD")]
    head = h11.Response(status_code=reply.status, headers=headers, reason=reply.status.phrase)
    writer.write(protocol.send(head) or b"")
    if not is_head:
        writer.write(protocol.send(h11.Data(data=reply.body)) or b"")
    await writer.drain()


async def _reply(request: h11.Request, answers: Answers, *, is_port: bool) -> Reply:
    headers = {name: value.decode("latin-1") for name, value in request.headers}
    if request.method not in {b"GET", b"HEAD"}:
        return Reply.of(HTTPStatus.METHOD_NOT_ALLOWED)
    if is_port and not _asks_this_machine(headers.get(b"host", "")):  # a page elsewhere may have its name point here
        return Reply.of(HTTPStatus.FORBIDDEN, "ask by 127.0.0.1, [::1] or localhost")
    answer = answers.get(request.target.decode("ascii", "replace").partition("?")[0])
    if answer is None:
        return Reply.of(HTTPStatus.NOT_FOUND, f"there are {', '.join(answers)}")
    return await answer(headers.get(b"accept", ""))


def _asks_this_machine(host: str) -> bool:
    """Whether a Host header, with or without a port, names this machine to itself."""
    name, _, port = host.rpartition(":")
    return is_this_machine(name if port.isdecimal() and name else host)
