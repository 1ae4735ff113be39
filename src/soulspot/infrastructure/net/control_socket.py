"""The daemon's control socket, server and client: a line of JSON asks, one line or a stream of lines answers.

    {"ask": "status"}                    {"pid": 4711, "health": "ok", …}
    {"ask": "scan", "paths": ["/m"]}     {"error": "only root and the user soulspot may ask for scan"}

Its owner and its group may open it (mode 0660) and use the commands that only read. Privileged commands are for the
daemon's own user and root. A socket at which no process answers is stale, and the next server removes it.
"""

import asyncio
import errno
import grp
import json
import os
import pwd
import socket
import stat
import struct
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

from soulspot.errors import LockHeldError
from soulspot.infrastructure.private_files import set_socket_rights

S = TypeVar("S")
Arguments = Mapping[str, Any]
Answer = dict[str, Any]

_QUESTION_BYTES: Final = 65_536
"""The longest question."""
_QUESTION_SECONDS: Final = 10.0
"""Seconds that a client may take to send its question."""
_SEND_BUFFER_BYTES: Final = 32_768
"""Socket send buffer: what the kernel keeps for a client that does not read."""
_MAX_CLIENTS: Final = 64
"""Connections served at once; more are refused, so that clients never use up the descriptors."""


@dataclass(frozen=True, slots=True)
class Caller:
    """The user at the other end, according to the kernel; commands get it as the argument `caller`."""

    user: str
    is_admin: bool


@dataclass(frozen=True, slots=True)
class Reply(Generic[S]):
    """A command that answers with one line. `privileged`: only for the daemon's own user and root."""

    answer: Callable[[S, Arguments], Awaitable[Answer]]
    privileged: bool = False


@dataclass(frozen=True, slots=True)
class Stream(Generic[S]):
    """A command that answers with one line after another, until the client leaves.

    A client that does not read delays only its own answers: the stream produces none meanwhile.
    """

    answers: Callable[[S, Arguments], AsyncIterator[Answer]]
    privileged: bool = False


Commands = Mapping[str, Reply[S] | Stream[S]]
"""The commands by name; each is called with the server's state and its arguments."""


def socket_of(database_file: Path) -> Path:
    return database_file.with_name(database_file.name + ".socket")


@asynccontextmanager
async def serve(
    place: Path, commands: Commands[S], state: S, *, mode: int = 0o660, group: str = ""
) -> AsyncIterator[None]:
    """Serve the commands until the block ends.

    Raises:
        LockHeldError: another process serves there.
        OSError: the socket cannot be created with this mode and group.

    """
    served: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        served.add(task)
        # Buffering for a client that does not read wastes memory and the time to serialize.
        writer.transport.set_write_buffer_limits(high=0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        try:
            with closing(writer), suppress(ConnectionError, TimeoutError):
                async with aclosing(_answers(commands, state, reader, writer, len(served))) as answers:
                    async for answer in answers:
                        writer.write(json.dumps(answer).encode() + b"\n")
                        await writer.drain()
        finally:
            served.discard(task)

    with bound(place, mode=mode, group=group) as listening:
        server = await asyncio.start_unix_server(connected, sock=listening, limit=_QUESTION_BYTES)
        try:
            yield
        finally:
            server.close()
            for task in list(served):
                task.cancel()
            await asyncio.gather(*served, return_exceptions=True)


@contextmanager
def bound(place: Path, *, mode: int, group: str) -> Iterator[socket.socket]:
    """Yield a socket bound to a path, and remove the path at the end of the block; raises as `serve` does."""
    with _short(place) as address, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        _remove_stale_socket(place, address)
        before = os.umask(0o177)
        try:
            listening.bind(address)
        finally:
            os.umask(before)
        created = set_socket_rights(place, mode=mode, group=_group_id(group) if group else None)
        try:
            yield listening
        finally:
            with suppress(OSError):  # the next server removes it
                if os.path.samestat(place.lstat(), created):
                    place.unlink()


def _remove_stale_socket(place: Path, address: str) -> None:
    """Remove a socket at which no process answers, and nothing else."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(1.0)
            probe.connect(address)
            raise LockHeldError(f"another soulspot (pid {_peer(probe)[0]}) answers at {place}")
    except FileNotFoundError:
        return
    except ConnectionRefusedError:
        if not stat.S_ISSOCK(place.lstat().st_mode):
            raise FileExistsError(errno.EEXIST, "a file that is not a socket exists there") from None
        place.unlink()


def _group_id(group: str) -> int:
    try:
        return int(group) if group.isdecimal() else grp.getgrnam(group).gr_gid
    except KeyError:
        raise OSError(errno.ENOENT, f"unknown group {group}") from None


async def _answers(
    commands: Commands[S], state: S, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, clients: int
) -> AsyncGenerator[Answer, None]:
    """Yield the answers for one connection."""
    try:
        async with asyncio.timeout(_QUESTION_SECONDS):
            question = json.loads(await reader.readline())
    except ValueError:  # not JSON, not text, or a line beyond the limit
        question = None
    name = question.pop("ask", None) if isinstance(question, dict) else None
    command = commands.get(name) if isinstance(name, str) else None
    _pid, user, _group = _peer(writer.get_extra_info("socket"))
    caller = Caller(_user_name(user), is_admin=user in {0, os.geteuid()})
    if clients > _MAX_CLIENTS:
        yield {"error": f"{_MAX_CLIENTS} clients are connected already"}
    elif command is None:
        given, names = "" if name is None else f" {name!r}"[:40], ", ".join(commands)
        yield {"error": f'unknown command{given}: send one line of JSON, {{"ask": …}}, with one of: {names}'}
    elif command.privileged and not caller.is_admin:
        yield {"error": f"only root and the user {_user_name(os.geteuid())} may ask for {name}"}
    elif isinstance(command, Reply):
        yield await command.answer(state, {**question, "caller": caller})
    else:
        async for answer in _until_gone(command.answers(state, {**question, "caller": caller}), reader):
            yield answer


async def _until_gone(answers: AsyncIterator[Answer], reader: asyncio.StreamReader) -> AsyncGenerator[Answer, None]:
    """Yield answers until the client closes its side, which an idle stream would not notice."""
    gone = asyncio.create_task(reader.read(), name="control client: wait until it leaves")
    try:
        while True:
            following = asyncio.create_task(_next(answers), name="control client: next answer")
            await asyncio.wait([gone, following], return_when=asyncio.FIRST_COMPLETED)
            if not following.done():
                following.cancel()
                await asyncio.gather(following, return_exceptions=True)
                return
            if (answer := following.result()) is None:
                return
            yield answer
    finally:
        gone.cancel()


async def _next(answers: AsyncIterator[Answer]) -> Answer | None:
    return await anext(answers, None)


def _peer(connection: socket.socket) -> tuple[int, int, int]:
    """Return pid, user and group of the other end, according to the kernel (SO_PEERCRED, unix(7))."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return struct.unpack("3i", credentials)


def _user_name(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return str(user)


def ask(place: Path, question: str, *, within: float = 5.0, **arguments: Any) -> Answer | None:  # noqa: ANN401 - JSON
    """Return the answer of the daemon that serves there, None without a daemon or an answer in time."""
    try:
        with _short(place) as address, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(within)
            connection.connect(address)
            connection.sendall(_line(question, arguments))
            line = connection.makefile("rb").readline()
    except OSError:
        return None
    answer = json.loads(line) if line else None
    return answer if isinstance(answer, dict) else None


async def stream_answers(
    place: Path,
    question: str,
    **arguments: Any,  # noqa: ANN401 - JSON
) -> AsyncGenerator[Answer, None]:
    """Yield the answers of the daemon that serves there, until it ends.

    Raises:
        OSError: no daemon serves there.

    """
    with _short(place) as address:
        reader, writer = await asyncio.open_unix_connection(address, limit=2**24)
    with closing(writer), suppress(ConnectionError):
        writer.write(_line(question, arguments))
        while line := await reader.readline():
            yield json.loads(line)


def _line(question: str, arguments: Arguments) -> bytes:
    return json.dumps({"ask": question, **arguments}).encode() + b"\n"


@contextmanager
def _short(place: Path) -> Iterator[str]:
    """Yield a short alias of a path: a socket's address has at most 107 bytes (unix(7))."""
    folder = os.open(place.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{place.name}"
    finally:
        os.close(folder)
