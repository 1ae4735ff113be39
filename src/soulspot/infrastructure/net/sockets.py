"""Listening sockets: our own, or those that socket activation passes to this process.

systemd passes sockets by $LISTEN_FDS, inetd's "wait" on standard input: the process starts at the first connection, may
exit when idle, and is started again. Connections wait in the socket's backlog meanwhile.
"""

import os
import socket
import stat
from collections.abc import Sequence
from contextlib import AbstractContextManager
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from soulspot.infrastructure.net import control_socket

BACKLOG: Final = 128
"""Connections that may wait to be accepted."""
_FIRST: Final = 3  # sd_listen_fds(3)


def passed_sockets() -> Sequence[socket.socket]:
    """Return the listening sockets that socket activation has passed to this process."""
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
        with socket.socket(fileno=os.dup(descriptor)) as passed:
            return passed.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1
    except OSError:
        return False


def listen_at(place: str, *, mode: int, group: str) -> AbstractContextManager[socket.socket]:
    """Yield a socket bound to "HOST:PORT", or to a path with this mode and group.

    Raises:
        LockHeldError: another process serves there.
        OSError: the socket cannot be created.

    """
    if place.startswith("/"):
        return control_socket.bound(Path(place), mode=mode, group=group)
    host, _, port = place.rpartition(":")
    host = "127.0.0.1" if host == "localhost" else host.strip("[]")
    return socket.create_server((host, int(port)), family=socket.AF_INET6 if ":" in host else socket.AF_INET)


def address_of(listening: socket.socket) -> str:
    """Return the URL of a socket, or its path."""
    where = listening.getsockname()
    if isinstance(where, tuple):
        host = f"[{where[0]}]" if ":" in where[0] else where[0]
        return f"http://{host}:{where[1]}/"
    # The socket is bound to an alias of its path, see control_socket.
    folder, name = os.path.split(str(where))
    return f"{os.path.realpath(folder)}/{name}"


def is_private(listening: socket.socket) -> bool:
    """Whether other machines cannot reach a socket."""
    where = listening.getsockname()
    return not isinstance(where, tuple) or ip_address(where[0]).is_loopback


def is_this_machine(host: str) -> bool:
    """Whether a name or an address, with or without brackets, is a loopback one."""
    try:
        return host.lower() == "localhost" or ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
