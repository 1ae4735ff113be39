"""Measures how fast one watcher imports into PostgreSQL, relative to SQLite in the same run.

    python benchmarks/postgres.py [--music FOLDER] [--files 10000] [--delay 1 --delay 5] [--connections 32] [--rounds 3]

Makes a library of small files, or uses one. Each import is a `soulspot scan` into a new catalogue: in SQLite, in
PostgreSQL over its unix socket, and through a proxy that delays each packet by --delay milliseconds in each direction.
The server is a private one that syncs every commit to disk, as by default. Prints the medians of the rounds: files a
second, their ratio to SQLite in the same round, CPU time per file of the command and its tag readers, and through the
proxy the length of a round trip and the number of round trips per file.
"""

import argparse
import asyncio
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path

import psycopg
from library import write_library

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.support.postgres_server import PASSWORD, Server, migrate, new_server

USUAL = {"fsync": "on", "full_page_writes": "on", "synchronous_commit": "on", "autovacuum": "on"}


class Proxy:
    """Passes bytes on to the server after a delay; it runs in a thread of its own."""

    def __init__(self, port: int, delay: float) -> None:
        self.port, self.sent, self._target, self._delay = 0, 0, port, delay
        self._is_up = threading.Event()
        threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True).start()
        self._is_up.wait()

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._is_up.set()
        await server.serve_forever()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._target)
        await asyncio.gather(self._pass_on(reader, back, 1), self._pass_on(there, writer, 0))

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, sent: int) -> None:
        loop, held = asyncio.get_running_loop(), deque[bytes]()

        def release() -> None:
            piece = held.popleft()
            if not writer.is_closing():
                writer.write(piece) if piece else writer.close()

        while True:
            try:
                piece = await reader.read(65536)
            except ConnectionError:
                piece = b""
            held.append(piece)
            self.sent += sent
            loop.call_later(self._delay, release)
            if not piece:
                return


@dataclass(frozen=True, slots=True)
class Import:
    """One import: files a second, CPU milliseconds per file, milliseconds of a round trip, round trips per file."""

    rate: float
    processor: float
    away: float = 0.0
    trips: float = 0.0


def measured(url: str, music: str, connections: str) -> Import:
    """Import a folder into a new catalogue; the rate is what the command reports."""
    environment = os.environ | {"SOULSPOT_DATABASE__URL": url, "SOULSPOT_LOG__LEVEL": "error"}
    environment |= {"SOULSPOT_DATABASE__CONNECTIONS": connections}
    command = [sys.executable, "-m", "soulspot", "scan", music, "--json"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = json.loads(run.stdout)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Import(result["added"] / result["seconds"], seconds / result["added"] * 1000)


def measured_away(server: Server, delay: float, music: str, connections: str) -> Import:
    """Import through a proxy."""
    proxy = Proxy(server.port, delay / 1000)
    name = new_catalogue(server, "bench")
    away = round_trip(proxy.port)
    before = proxy.sent
    found = measured(server.tcp_url(name, proxy.port), music, connections)
    files = server.connect(name).execute("SELECT count(*) FROM files").fetchall()[0][0]
    return Import(found.rate, found.processor, away, (proxy.sent - before) / files)


def round_trip(port: int) -> float:
    """Return the milliseconds of a round trip through a proxy."""
    where = f"host=127.0.0.1 port={port} user=soulspot dbname=bench"
    with psycopg.connect(where, password=PASSWORD, autocommit=True) as connection:
        began = time.perf_counter()
        for _trip in range(50):
            connection.execute("SELECT 1")
        return (time.perf_counter() - began) / 50 * 1000


def new_catalogue(server: Server, name: str) -> str:
    server.run(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
    server.run(f"CREATE DATABASE {name} OWNER soulspot")
    migrate(server.socket_url(name))
    return name


def one_round(server: Server, music: str, delays: list[float], connections: str) -> dict[str, Import]:
    with tempfile.TemporaryDirectory() as place:
        found = {"SQLite": measured(f"sqlite+aiosqlite:///{place}/soulspot.db", music, connections)}
    here = server.socket_url(new_catalogue(server, "bench"))
    found["PostgreSQL, unix socket"] = measured(here, music, connections)
    for delay in delays:
        found[f"PostgreSQL, {delay:g} ms away"] = measured_away(server, delay, music, connections)
    return found


def report(rounds: list[dict[str, Import]]) -> None:
    print(f"{'':<24}{'files/s':>9}{'/ SQLite':>10}{'CPU ms per file':>17}{'round trip ms':>15}{'trips per file':>16}")
    for name in rounds[0]:
        ratio = statistics.median(each[name].rate / each["SQLite"].rate for each in rounds)
        rate = statistics.median(each[name].rate for each in rounds)
        processor = statistics.median(each[name].processor for each in rounds)
        line = f"{name:<24}{rate:9,.0f}{ratio:10.2f}{processor:17.2f}"
        if away := statistics.median(each[name].away for each in rounds):
            line += f"{away:15.1f}{statistics.median(each[name].trips for each in rounds):16.2f}"
        print(line)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--music", help="use this library; it is only read")
    parser.add_argument("--files", type=int, default=10_000, help="files in the library that is made")
    parser.add_argument(
        "--delay", type=float, action="append", help="milliseconds in each direction; 1 and 5 by default"
    )
    parser.add_argument("--connections", default="32")
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    server = new_server(**USUAL)
    try:
        with tempfile.TemporaryDirectory() as place:
            music = asked.music or f"{place}/music"
            if not asked.music:
                write_library(Path(music), asked.files, cover_share=0)
            delays = asked.delay or [1.0, 5.0]
            report([one_round(server, music, delays, asked.connections) for _round in range(asked.rounds)])
    finally:
        server.close()


if __name__ == "__main__":
    main()
