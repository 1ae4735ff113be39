"""Starts the soulspot command as a fork of a process that has imported it: imports take longer than most tests.

    the test's process              the fork server                   the command
    ------------------              ---------------                   -----------
    start() ---- spawns once -----> imports soulspot
            ---- request + fds ---> fork() -------------------------> takes over arguments, environment,
            <--- pid -------------- goes on serving                   folder, streams; runs main()
    wait()  <--- exit status ------ waitpid() <---------------------- ends

    request + fds: a JSON message on a socket pair, with the three standard streams and the writing end of a pipe
    exit status:   four bytes through that pipe, so that each wait() is on its own; the pipe breaks if the server dies

The command is a process of its own and differs from `python -m soulspot` in nothing that comes after the imports.
Variables that an import or the start of the interpreter reads have to be equal; otherwise, and wherever REAL_STARTS is
set, the command is started in the usual way. CI runs the tests of the main job both ways.
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
"""Prefixes of the variables that are read while a command runs, and not by an import."""
_LARGEST_REQUEST = 1 << 17
_STATUS = struct.Struct("i")
_COMMAND = [sys.executable, "-m", "soulspot"]


# In the test's process


def start(
    command: Sequence[str],
    environment: Mapping[str, str],
    stdout: IO[Any] | None = None,
    stderr: IO[Any] | None = None,
) -> subprocess.Popen[bytes]:
    """Start a command, by a fork if it is soulspot's own; the timeout of its `wait` follows the machine's load."""
    differing = {name for name, _value in environment.items() ^ os.environ.items()}
    is_own = list(command[:3]) == _COMMAND and all(name.startswith(_READ_LATER) for name in differing)
    if not is_own or "REAL_STARTS" in os.environ:
        return _SpawnedProcess(command, env=environment, stdout=stdout, stderr=stderr)
    if not _fork_server:
        _fork_server.append(_ForkServer())
    streams = [0, *(own if file is None else file.fileno() for own, file in ((1, stdout), (2, stderr)))]
    return _ForkedProcess(_fork_server[0], command, environment, streams)


class _ForkServer:
    """The process that has imported everything; it ends with this one, and kills every command that it forked."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [sys.executable, __file__, str(theirs.fileno())]
            self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
        atexit.register(self._end)

    def fork(self, request: bytes, descriptors: list[int]) -> int:
        with self._lock:
            socket.send_fds(self._requests, [request], descriptors)
            answer = self._requests.recv(_STATUS.size)
        assert answer, "the fork server has ended"
        return int(_STATUS.unpack(answer)[0])

    def _end(self) -> None:
        self._requests.close()
        self._process.wait()


_fork_server: list[_ForkServer] = []


class _SpawnedProcess(subprocess.Popen[bytes]):
    def wait(self, timeout: float | None = None) -> int:
        return super().wait(_stretched(timeout))


class _ForkedProcess(subprocess.Popen[bytes]):
    """As much of `Popen` as tests use, for a process whose parent is the fork server."""

    def __init__(
        self, server: _ForkServer, command: Sequence[str], environment: Mapping[str, str], streams: list[int]
    ) -> None:
        self.args, self.returncode = command, None
        self.stdin = self.stdout = self.stderr = None
        self._child_created = False  # keeps Popen from waiting for a process that is not its child
        self._exit_status, writing_end = os.pipe()
        request = json.dumps([["soulspot", *command[3:]], dict(environment), os.getcwd()]).encode()
        try:
            self.pid = server.fork(request, [*streams, writing_end])
        finally:
            os.close(writing_end)

    def poll(self) -> int | None:
        with suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            if not select.select([self._exit_status], [], [], _stretched(timeout))[0]:
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            status = os.read(self._exit_status, _STATUS.size)
            os.close(self._exit_status)
            self.returncode = _STATUS.unpack(status)[0] if status else -signal.SIGKILL
        return self.returncode

    def send_signal(self, sig: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, sig)


def _stretched(timeout: float | None) -> float | None:
    from tests.support.deadlines import load_factor  # not in the fork server, which has no such package

    return timeout and timeout * load_factor()


# In the fork server


def _serve(requests: socket.socket) -> Callable[[], None]:
    """Fork for each request until the test's process ends; in each fork, return what it has to do next."""
    running: dict[int, tuple[int, int]] = {}
    while True:
        for ready in select.select([requests.fileno(), *running], [], [])[0]:
            if ready in running:
                pid, status_pipe = running.pop(ready)
                _report_exit(pid, status_pipe)
                os.close(ready)
                continue
            request, descriptors, _flags, _address = socket.recv_fds(requests, _LARGEST_REQUEST, 4)
            if not request:
                _kill_all(running)
            pid = os.fork()
            if pid == 0:
                return lambda: _take_over(json.loads(request), descriptors[:3])
            running[os.pidfd_open(pid)] = pid, descriptors[3]
            for descriptor in descriptors[:3]:
                os.close(descriptor)
            requests.send(_STATUS.pack(pid))


def _report_exit(pid: int, status_pipe: int) -> None:
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    with suppress(BrokenPipeError):
        os.write(status_pipe, _STATUS.pack(status))
    os.close(status_pipe)


def _kill_all(running: Mapping[int, tuple[int, int]]) -> NoReturn:
    for descriptor in running:
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    os._exit(0)


def _import_everything() -> None:
    """Import all that a command may import."""
    import typer

    import soulspot.cli.app

    for module in pkgutil.walk_packages(soulspot.__path__, "soulspot."):
        if not module.name.endswith(("__main__", "_process", ".http_post")):  # these are programs
            importlib.import_module(module.name)
    for name in ("aiosqlite", "alembic.command", "asyncpg", "psycopg"):
        importlib.import_module(name)
    typer.main.get_command(soulspot.cli.app.app)


# In the command


def _take_over(request: tuple[list[str], dict[str, str], str], streams: list[int]) -> None:
    """Take over what a new process would have been started with."""
    arguments, environment, folder = request
    for number, descriptor in enumerate(streams):
        os.dup2(descriptor, number)
    os.closerange(3, 1 << 16)
    for name, number in (("stdin", 0), ("stdout", 1), ("stderr", 2)):
        before = getattr(sys, name)
        stream = open(  # noqa: SIM115 - open until the process ends
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


if __name__ == "__main__":
    del sys.path[0]  # this folder
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the test's process, which ends the commands
    _import_everything()
    gc.collect()
    gc.freeze()
    take_over = _serve(socket.socket(fileno=int(sys.argv[1])))
    take_over()
    from soulspot.__main__ import main

    main()
