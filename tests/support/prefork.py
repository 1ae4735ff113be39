"""Starts soulspot's command as a fork of a process that has imported it: to import takes longer than most tests do.

Each of them is a process of its own all the same, with the arguments, the environment, the folder and the standard
streams that it was given; it differs from `python -m soulspot` in nothing that comes after the imports. What an import
or the interpreter's start reads of the environment has to be equal, else the command is started as anybody does. With
REAL_STARTS in the environment of the tests it always is; CI runs those of the main job so too.
"""

import atexit
import gc
import importlib
import json
import os
import pkgutil
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import IO, Any, NoReturn

_READ_LATER = ("SOULSPOT_", "PYTEST_", "XDG_", "NOTIFY_SOCKET", "RUNTIME_DIRECTORY", "STATE_DIRECTORY", "HOME")
"""How variables begin that are read when a command runs, and not before."""
_LARGEST = 1 << 17
_STATUS = struct.Struct("i")
_COMMAND = [sys.executable, "-m", "soulspot"]


def start(
    command: Sequence[str],
    environment: Mapping[str, str],
    stdout: IO[Any] | None = None,
    stderr: IO[Any] | None = None,
) -> subprocess.Popen[bytes]:
    """Start a command, by a fork where it is soulspot's own."""
    differing = {name for name, _value in environment.items() ^ os.environ.items()}
    is_own = list(command[:3]) == _COMMAND and all(name.startswith(_READ_LATER) for name in differing)
    if not is_own or "REAL_STARTS" in os.environ:
        return subprocess.Popen(command, env=environment, stdout=stdout, stderr=stderr)
    if not _ready:
        _ready.append(_Ready())
    streams = [0, *(own if file is None else file.fileno() for own, file in ((1, stdout), (2, stderr)))]
    return _Forked(_ready[0], command, environment, streams)


class _Ready:
    """The process that has imported everything; it ends with this one, and everything that it started with it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._asking, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [sys.executable, __file__, str(theirs.fileno())]
            self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
        atexit.register(self._end)

    def fork(self, request: bytes, descriptors: list[int]) -> int:
        with self._lock:
            socket.send_fds(self._asking, [request], descriptors)
            answer = self._asking.recv(_STATUS.size)
        assert answer, "the process that forks has ended"
        return int(_STATUS.unpack(answer)[0])

    def _end(self) -> None:
        self._asking.close()
        self._process.wait()


_ready: list[_Ready] = []


class _Forked(subprocess.Popen[bytes]):
    """As much of a started process as tests ask for; its parent is the process that forked it."""

    def __init__(
        self, ready: _Ready, command: Sequence[str], environment: Mapping[str, str], streams: list[int]
    ) -> None:
        self.args, self.returncode = command, None
        self.stdin = self.stdout = self.stderr = None
        self._child_created = False  # it is not for this class to wait for it
        self._told, telling = os.pipe()
        request = json.dumps([["soulspot", *command[3:]], dict(environment), os.getcwd()]).encode()
        try:
            self.pid = ready.fork(request, [*streams, telling])
        finally:
            os.close(telling)

    def poll(self) -> int | None:
        with suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            if not select.select([self._told], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            told = os.read(self._told, _STATUS.size)
            os.close(self._told)
            self.returncode = _STATUS.unpack(told)[0] if told else -signal.SIGKILL
        return self.returncode

    def send_signal(self, sig: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, sig)


def _serve(asked: socket.socket) -> Callable[[], None]:
    """Fork for each request, until nobody can ask any more; return in each fork what it is to do."""
    running: dict[int, tuple[int, int]] = {}
    while True:
        for ready in select.select([asked.fileno(), *running], [], [])[0]:
            if ready in running:
                pid, telling = running.pop(ready)
                _tell(pid, telling)
                os.close(ready)
                continue
            request, descriptors, _flags, _address = socket.recv_fds(asked, _LARGEST, 4)
            if not request:
                _end(running)
            pid = os.fork()
            if pid == 0:
                return lambda: _become(json.loads(request), descriptors[:3])
            running[os.pidfd_open(pid)] = pid, descriptors[3]
            for descriptor in descriptors[:3]:
                os.close(descriptor)
            asked.send(_STATUS.pack(pid))


def _tell(pid: int, telling: int) -> None:
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    with suppress(BrokenPipeError):
        os.write(telling, _STATUS.pack(status))
    os.close(telling)


def _end(running: Mapping[int, tuple[int, int]]) -> NoReturn:
    for descriptor in running:
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    os._exit(0)


def _become(request: tuple[list[str], dict[str, str], str], streams: list[int]) -> None:
    """Be as a process that was just started."""
    arguments, environment, folder = request
    for number, descriptor in enumerate(streams):
        os.dup2(descriptor, number)
    os.closerange(3, 1 << 16)
    for name, number in (("stdin", 0), ("stdout", 1), ("stderr", 2)):
        before = getattr(sys, name)
        stream = open(  # noqa: SIM115 - for good
            number, before.mode, encoding=before.encoding, errors=before.errors, closefd=False,
            buffering=1 if name == "stderr" or os.isatty(number) else -1,
        )  # fmt: skip
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv, sys.path = arguments, [folder, *sys.path]


def _import_everything() -> None:
    """Import what a command may import."""
    import typer

    import soulspot.cli.app

    for module in pkgutil.walk_packages(soulspot.__path__, "soulspot."):
        if not module.name.endswith(("__main__", "_process", ".http_post")):  # which are programs
            importlib.import_module(module.name)
    for name in ("aiosqlite", "alembic.command", "asyncpg", "psycopg"):
        importlib.import_module(name)
    typer.main.get_command(soulspot.cli.app.app)


if __name__ == "__main__":
    del sys.path[0]  # this folder
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who starts the commands ends them
    _import_everything()
    gc.collect()
    gc.freeze()
    _serve(socket.socket(fileno=int(sys.argv[1])))()
    from soulspot.__main__ import main

    main()
