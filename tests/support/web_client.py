"""Runs `soulspot web`, and sends it requests as a browser does, or as no client should."""

import http.client
import json
import re
import signal
import socket
import struct
import zlib
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import mutagen
from mutagen.flac import Picture
from mutagen.id3 import APIC
from tests.conftest import Soulspot, until, write_song
from tests.support import prefork
from tests.support.deadlines import load_factor


@dataclass(frozen=True, slots=True)
class Response:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()


@dataclass(slots=True)
class Event:
    """One server-sent event."""

    name: str = ""
    data: list[str] = field(default_factory=list)
    id: str = ""

    @property
    def html(self) -> str:
        return "\n".join(self.data)


class WebClient:
    """A `soulspot web` of its own, and a client of it."""

    def __init__(self, soulspot: Soulspot, *arguments: str, **settings: str) -> None:
        command = [*soulspot.command, "web", *(arguments or ("--listen", "127.0.0.1:0"))]
        self.log = soulspot.music.parent / "web.log"
        with self.log.open("wb") as log:
            self.process = prefork.start(command, soulspot.environment | settings, log, log)
        soulspot.running.append(self.process)
        until(lambda: self.process.poll() is not None or b"serving " in self.log.read_bytes())
        assert self.process.poll() is None, self.log.read_text()
        self.where = self.log.read_text().partition("serving ")[2].splitlines()[0].strip()
        self.port = int(self.where.rpartition(":")[2].strip("/")) if self.where.startswith("http") else 0

    def ask(self, path: str, method: str = "GET", body: str | None = None, **headers: str) -> Response:
        """Send a request on a new connection; `_` in the name of a header becomes a dash, an empty one is left out."""
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=30 * load_factor())) as connection:
            given = {"Host": f"127.0.0.1:{self.port}"} | {
                name.replace("_", "-"): text for name, text in headers.items()
            }
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            if body is not None:
                given = {"Content-Type": "application/x-www-form-urlencoded", "Content-Length": str(len(body))} | given
            for name, text in given.items():
                if text:
                    connection.putheader(name, text)
            connection.endheaders(body.encode() if body is not None else None)
            response = connection.getresponse()
            found = {name.lower(): text for name, text in response.getheaders()}
            return Response(response.status, found, response.read())

    def raw(self, content: bytes) -> bytes:
        """Send bytes as they are; return what comes back until the server closes the connection."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=30 * load_factor()) as connection:
            answer = b""
            with suppress(ConnectionError):
                connection.sendall(content)
                while part := connection.recv(65_536):
                    answer += part
        return answer

    @contextmanager
    def events(self, after: int | str | None = None, **headers: str) -> Iterator[Iterator[Event]]:
        """Yield the server-sent events, those after an entry if one is given."""
        query = "" if after is None else f"?after={after}"
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=30 * load_factor())) as connection:
            connection.request("GET", f"/events{query}", headers={n.replace("_", "-"): t for n, t in headers.items()})
            response = connection.getresponse()
            assert response.status == 200, response.read()
            assert response.getheader("Content-Type") == "text/event-stream; charset=utf-8"
            yield _events(response)

    def first_link(self, path: str, kind: str) -> str:
        """Return the first link on a page to a thing of a kind, such as "track"."""
        found = re.search(rf'href="(/{kind}/[^"]+)"', self.ask(path).text)
        assert found is not None, f"{path} leads to no {kind}"
        return found[1]

    def log_in(self, token: str) -> tuple[str, str]:
        """Log in; return the session cookie, and the token that the forms carry."""
        answer = self.ask("/login", "POST", f"token={token}")
        assert answer.status == 303, answer.text
        cookie = answer.headers["set-cookie"].partition(";")[0]
        csrf_token = re.search(r'name="csrf_token" value="(\w+)"', self.ask("/", Cookie=cookie).text)
        assert csrf_token is not None
        return cookie, csrf_token[1]

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=20)


def _events(response: IO[bytes]) -> Iterator[Event]:
    event = Event()
    for line in response:
        name, _, text = line.decode().rstrip("\n").partition(": ")
        if name == "event":
            event.name = text
        elif name == "data":
            event.data.append(text)
        elif name == "id":
            event.id = text
        elif not name and event.name:
            yield event
            event = Event()


def sequences(html: str) -> list[int]:
    """Return the numbers of the entries in some HTML, in the order in which they stand."""
    return [int(number) for number in re.findall(r'id="entry-(\d+)"', html)]


def token_of(soulspot: Soulspot) -> str:
    result = soulspot.run("web", "--show-token")
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()[0]


def status_of(soulspot: Soulspot) -> dict[str, object]:
    return dict(json.loads(soulspot.run("status", "--json").stdout))


def picture(colour: tuple[int, int, int] = (200, 80, 40), size: int = 24) -> bytes:
    """Return a PNG of one colour."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    head = struct.pack(">IIBBBBB", size, size, 8, 2, 0, 0, 0)
    rows = (b"\0" + bytes(colour) * size) * size
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def write_covered(path: Path, cover: bytes, **tags: str) -> Path:
    """Write a song with an embedded cover."""
    unfinished = write_song(path.parents[1] / "unfinished" / path.name, **tags)
    song = mutagen.File(unfinished)
    if path.suffix == ".flac":
        inside = Picture()
        inside.type, inside.mime, inside.data = 3, "image/png", cover
        song.add_picture(inside)
    else:
        song.tags.add(APIC(encoding=0, mime="image/png", type=3, desc="", data=cover))
    song.save()
    path.parent.mkdir(parents=True, exist_ok=True)
    return unfinished.rename(path)
