"""What the tests ask over HTTP, and a server that hears what is posted to it."""

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

_ports = itertools.count(os.getpid() * 100)
"""Each process of the test runner begins elsewhere."""


def free_port() -> int:
    """Return a port that is free and stays so: the kernel gives none so low away by itself."""
    while True:
        port = 10_000 + next(_ports) % 20_000
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class _ToSocket(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=10)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(10)
        self.sock.connect(str(self._path))


@dataclass(frozen=True)
class Answer:
    status: int
    text: str
    headers: dict[str, str]


def ask(place: int | Path, path: str, method: str = "GET", **headers: str) -> Answer:
    """Ask what listens at a port or a socket."""
    connection = _ToSocket(place) if isinstance(place, Path) else http.client.HTTPConnection("127.0.0.1", place)
    with closing(connection):
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return Answer(answer.status, answer.read().decode(), dict(answer.getheaders()))


@dataclass
class Posted:
    """A server: what it was sent, and how it is to answer."""

    port: int = 0
    status: int = 200
    location: str = ""
    requests: list[tuple[str, dict[str, str], str]] = field(default_factory=list)
    is_stuck: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/refresh"


@contextmanager
def server(*, stuck: bool = False) -> Iterator[Posted]:
    posted = Posted()
    if not stuck:
        posted.is_stuck.set()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            posted.requests.append((self.path, dict(self.headers), body))
            posted.is_stuck.wait(60)
            self.send_response(posted.status)
            if posted.location:
                self.send_header("Location", posted.location)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            """Say nothing."""

    serving = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    posted.port = serving.server_address[1]
    thread = threading.Thread(target=serving.serve_forever)
    thread.start()
    try:
        yield posted
    finally:
        posted.is_stuck.set()
        serving.shutdown()
        serving.server_close()
        thread.join()
