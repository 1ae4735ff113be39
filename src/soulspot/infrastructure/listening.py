"""Sockets that a server listens at: its own, or one that is handed over by whoever waits at it.

Handed over as systemd does it ($LISTEN_FDS) or as inetd's "wait" does (standard input): the process starts at the first
connection, may end when nobody has asked for a while, and is started again. Who comes meanwhile waits in the socket.
"""

import errno
import os
import socket
import stat
from collections.abc import Sequence
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from soulspot.errors import ConfigError

_FIRST: Final = 3  # sd_listen_fds(3)


def handed_over() -> Sequence[socket.socket]:
    """Return the sockets that whoever started this process listens at."""
    if os.environ.pop("LISTEN_PID", "") == str(os.getpid()) and (count := os.environ.pop("LISTEN_FDS", "")).isdecimal():
        numbers = range(_FIRST, _FIRST + int(count))
    else:
        numbers = range(1) if _is_listening(0) else range(0)
    for number in numbers:
        os.set_inheritable(number, False)  # noqa: FBT003 - no names in os
    return [socket.socket(fileno=number) for number in numbers]


def _is_listening(descriptor: int) -> bool:
    try:
        if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            return False
        with socket.socket(fileno=os.dup(descriptor)) as there:
            return there.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1
    except OSError:
        return False


def listen_at(address: str) -> socket.socket:
    """Listen at "HOST:PORT" or at the path of a socket, which the group may use.

    Raises:
        ConfigError: it cannot be.

    """
    try:
        return _unix(Path(address)) if address.startswith("/") else _tcp(address)
    except OSError as error:
        why = "something listens there already" if error.errno == errno.EADDRINUSE else (error.strerror or "").lower()
        msg = f"the page cannot be served at {address} ({why}): give another address by --listen or web.listen"
        raise ConfigError(msg) from error


def _tcp(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, int(port)), family=family)


def _unix(place: Path) -> socket.socket:
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with suppress(FileNotFoundError):
        if not stat.S_ISSOCK(place.lstat().st_mode):
            raise OSError(errno.EEXIST, "there is a file that is no socket")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            if probe.connect_ex(str(place)) == 0:
                raise OSError(errno.EADDRINUSE, "")
        place.unlink()
    before = os.umask(0o117)
    try:
        listening.bind(str(place))
    finally:
        os.umask(before)
    listening.listen(128)
    return listening


def name_of(listening: socket.socket) -> str:
    """Return the address at which a person finds a socket."""
    where = listening.getsockname()
    if isinstance(where, tuple):
        host = f"[{where[0]}]" if ":" in where[0] else where[0]
        return f"http://{host}:{where[1]}/"
    return str(where)


def is_private(listening: socket.socket) -> bool:
    """Whether no other machine reaches a socket."""
    where = listening.getsockname()
    return not isinstance(where, tuple) or ip_address(where[0]).is_loopback
