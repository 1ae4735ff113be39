"""HTTP for tests: requests to a port or a unix socket, and a server that records what is posted to it."""

import http.client
import itertools
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.support.deadlines import load_factor

_ports = itertools.count(os.getpid() * 100)
"""Each process of the test run starts elsewhere."""


def free_port() -> int:
    """Return a port that is free and stays free: it is below those that the kernel assigns by itself."""
    while True:
        port = 10_000 + next(_ports) % 20_000
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=10 * load_factor())
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def _connection(address: int | Path) -> http.client.HTTPConnection:
    if isinstance(address, Path):
        return _UnixConnection(address)
    return http.client.HTTPConnection("127.0.0.1", address)


@dataclass(frozen=True)
class Response:
    status: int
    text: str
    headers: dict[str, str]


def ask(address: int | Path, path: str, method: str = "GET", **headers: str) -> Response:
    """Send a request to a port of this machine or to a unix socket."""
    with closing(_connection(address)) as connection:
        connection.request(method, path, headers=headers)
        response = connection.getresponse()
        return Response(response.status, response.read().decode(), dict(response.getheaders()))


@dataclass
class RecordingServer:
    """Records the requests it gets; `status` and `location` say how it answers, once `may_answer` is set."""

    port: int = 0
    status: int = 200
    location: str = ""
    requests: list[tuple[str, dict[str, str], str]] = field(default_factory=list)
    may_answer: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/refresh"


@contextmanager
def recording_server(*, stuck: bool = False) -> Iterator[RecordingServer]:
    """Run a server for POST requests; a stuck one answers nothing until `may_answer` is set."""
    server = RecordingServer()
    if not stuck:
        server.may_answer.set()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            server.requests.append((self.path, dict(self.headers), body))
            server.may_answer.wait(60)
            self.send_response(server.status)
            if server.location:
                self.send_header("Location", server.location)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            """Log nothing."""

    serving = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.port = serving.server_address[1]
    thread = threading.Thread(target=serving.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.may_answer.set()
        serving.shutdown()
        serving.server_close()
        thread.join()
