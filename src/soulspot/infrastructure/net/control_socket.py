"""The daemon's control socket: one line of JSON asks, one line answers, or one after the other as things happen.

    {"ask": "status"}                    {"pid": 4711, "health": "ok", …}
    {"ask": "scan", "folders": ["/m"]}   {"error": "only root and the user soulspot may ask for a scan"}

Who may open it may ask what only reads: its owner and its group (mode 0660). What steers the daemon is for its own user
and for root. A socket at which nobody answers was left by a process that is gone.
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
from typing import Any, Final

from soulspot.errors import LockHeldError
from soulspot.infrastructure.private_files import set_socket_rights

Arguments = Mapping[str, Any]
Answer = dict[str, Any]

_QUESTION_LIMIT: Final = 65_536
"""Bytes that a question may have."""
_QUESTION_WITHIN: Final = 10.0
"""Seconds that an asker has to say what it wants."""
_ROOM: Final = 32_768
"""Bytes that the kernel keeps for one who does not read."""
_ASKERS: Final = 64
"""Connections that are served at once: one more is told so, and takes no descriptor from the files."""


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asks, as the kernel has it; each offer finds it in its arguments as `asker`."""

    user: str
    may_steer: bool


@dataclass(frozen=True, slots=True)
class Once:
    """Answers a question by one line. `steers`: only the daemon's own user and root may ask it."""

    answer: Callable[[Arguments], Awaitable[Answer]]
    steers: bool = False


@dataclass(frozen=True, slots=True)
class Stream:
    """Answers a question by a line for each thing that happens, until the asker goes.

    An asker that does not read stops only its own answers: what yields them is not asked for more meanwhile.
    """

    answers: Callable[[Arguments], AsyncIterator[Answer]]
    steers: bool = False


Offers = Mapping[str, Once | Stream]


def socket_of(database_file: Path) -> Path:
    return database_file.with_name(database_file.name + ".socket")


@asynccontextmanager
async def serve(place: Path, offers: Offers, *, mode: int = 0o660, group: str = "") -> AsyncIterator[None]:
    """Answer questions, each by the offer of its name, until the block ends.

    Raises:
        LockHeldError: somebody else answers there.
        OSError: there can be no socket of this mode and group there.

    """
    served: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        served.add(task)
        # What waits for one who does not read costs memory and the time to write it down, for nobody.
        writer.transport.set_write_buffer_limits(high=0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _ROOM)
        try:
            with closing(writer), suppress(ConnectionError, TimeoutError):
                async with aclosing(_answers(offers, reader, writer, len(served))) as answers:
                    async for answer in answers:
                        writer.write(json.dumps(answer).encode() + b"\n")
                        await writer.drain()
        finally:
            served.discard(task)

    with bound(place, mode=mode, group=group) as listening:
        server = await asyncio.start_unix_server(connected, sock=listening, limit=_QUESTION_LIMIT)
        try:
            yield
        finally:
            server.close()
            for task in list(served):
                task.cancel()
            await asyncio.gather(*served, return_exceptions=True)


@contextmanager
def bound(place: Path, *, mode: int, group: str) -> Iterator[socket.socket]:
    """Yield a socket that is bound to a path, which is there until the block ends; raises as `serve` does."""
    with _short(place) as address, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        _take_the_place_of_the_dead(place, address)
        before = os.umask(0o177)
        try:
            listening.bind(address)
        finally:
            os.umask(before)
        made = set_socket_rights(place, mode=mode, group=_group_id(group) if group else None)
        try:
            yield listening
        finally:
            with suppress(OSError):  # one that is left behind is taken away by who serves next
                if os.path.samestat(place.lstat(), made):
                    place.unlink()


def _take_the_place_of_the_dead(place: Path, address: str) -> None:
    """Remove a socket at which nobody answers any more, and nothing else."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(1.0)
            probe.connect(address)
            pid, _user, _group = _peer(probe)
    except FileNotFoundError:
        return
    except ConnectionRefusedError:
        if not stat.S_ISSOCK(place.lstat().st_mode):
            raise FileExistsError(errno.EEXIST, "there is a file that is no socket") from None
        place.unlink()
    else:
        msg = f"another soulspot (pid {pid}) answers at {place}"
        raise LockHeldError(msg)


def _group_id(group: str) -> int:
    try:
        return int(group) if group.isdecimal() else grp.getgrnam(group).gr_gid
    except KeyError:
        raise OSError(errno.ENOENT, f"there is no group {group}") from None


async def _answers(
    offers: Offers, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, askers: int
) -> AsyncGenerator[Answer, None]:
    """Yield what there is to say to one connection."""
    try:
        async with asyncio.timeout(_QUESTION_WITHIN):
            question = json.loads(await reader.readline())
    except ValueError:  # no JSON, no text, or a line beyond the limit
        question = None
    asked = question.pop("ask", None) if isinstance(question, dict) else None
    offer = offers.get(asked) if isinstance(asked, str) else None
    asker = _asker(writer)
    if askers > _ASKERS:
        yield {"error": f"{_ASKERS} others ask already"}
    elif offer is None:
        said = "that" if asked is None else repr(asked)[:40]
        yield {"error": f'{said} is no question: one line of JSON, {{"ask": …}}, of: {", ".join(offers)}'}
    elif offer.steers and not asker.may_steer:
        yield {"error": f"only root and the user {_name_of(os.geteuid())} may ask for {asked}"}
    elif isinstance(offer, Once):
        yield await offer.answer({**question, "asker": asker})
    else:
        async for answer in _until_gone(offer.answers({**question, "asker": asker}), reader):
            yield answer


async def _until_gone(answers: AsyncIterator[Answer], reader: asyncio.StreamReader) -> AsyncGenerator[Answer, None]:
    """Yield answers until the asker closes its side: nothing else tells that, while there is nothing to say."""
    gone = asyncio.ensure_future(reader.read())
    try:
        while True:
            following = asyncio.ensure_future(anext(answers, None))
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


def _asker(writer: asyncio.StreamWriter) -> Asker:
    _pid, user, _group = _peer(writer.get_extra_info("socket"))
    return Asker(_name_of(user), user in {0, os.geteuid()})


def _peer(connection: socket.socket) -> tuple[int, int, int]:
    """Return pid, user and group of who is at the other end, as the kernel has them (SO_PEERCRED, unix(7))."""
    told = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid, user, group = struct.unpack("3i", told)
    return pid, user, group


def _name_of(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return str(user)


def ask(place: Path, question: str, *, within: float = 5.0, **arguments: Any) -> Answer | None:  # noqa: ANN401 - JSON
    """Return the answer of the daemon that serves there, None where there is none or it does not answer in time."""
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


async def listen(place: Path, question: str, **arguments: Any) -> AsyncGenerator[Answer, None]:  # noqa: ANN401 - JSON
    """Yield the answers of the daemon that serves there, until it ends.

    Raises:
        OSError: none serves there.

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
    """Yield another name of a path: a socket's address has room for 107 bytes only (unix(7))."""
    folder = os.open(place.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{place.name}"
    finally:
        os.close(folder)
