"""The daemon's control socket, beside its catalogue: a line asks, one line of JSON answers.

Who may open it may ask: its owner and its group (mode 0660). Whoever serves holds the writer lock, so a socket that is
there already was left by a process that is gone.
"""

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

Answers = Mapping[str, Callable[[], Awaitable[dict[str, Any]]]]
_QUESTION_LIMIT: Final = 1024


def socket_of(database_file: Path) -> Path:
    return database_file.with_name(database_file.name + ".socket")


@asynccontextmanager
async def serve(place: Path, answers: Answers) -> AsyncIterator[None]:
    """Answer questions, each by the function of its name, until the block ends."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            question = (await reader.readline()).decode(errors="replace").strip()
            known = answers.get(question)
            said = await known() if known else {"error": f"{question[:40]!r} is no question: {', '.join(answers)}"}
            writer.write(json.dumps(said).encode() + b"\n")
            await writer.drain()
        writer.close()

    with _short(place) as address, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        with suppress(FileNotFoundError):
            place.unlink()
        before = os.umask(0o117)
        try:
            listening.bind(address)
        finally:
            os.umask(before)
        server = await asyncio.start_unix_server(answer, sock=listening, limit=_QUESTION_LIMIT)
        try:
            yield
        finally:
            server.close()
            with suppress(FileNotFoundError):
                place.unlink()


def ask(place: Path, question: str, *, within: float = 5.0) -> dict[str, Any] | None:
    """Return the answer of the daemon that serves there, None where there is none or it does not answer in time."""
    try:
        with _short(place) as address, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(within)
            connection.connect(address)
            connection.sendall(question.encode() + b"\n")
            line = connection.makefile("rb").readline()
    except OSError:
        return None
    answer = json.loads(line) if line else None
    return answer if isinstance(answer, dict) else None


@contextmanager
def _short(place: Path) -> Iterator[str]:
    """Yield another name of a path: a socket's address has room for 107 bytes only (unix(7))."""
    folder = os.open(place.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{place.name}"
    finally:
        os.close(folder)
