"""How fast one watcher imports into PostgreSQL, against its SQLite rate in the same run.

    python benchmarks/postgres.py MUSIC [--delay 1 --delay 5] [--connections 8]

MUSIC is a folder of audio files. Each import is the installed command, `soulspot scan`, on a new catalogue: in SQLite,
in PostgreSQL over its unix socket, and through a proxy that holds each packet back for so many milliseconds, either
way. The server is a private one with its usual settings, so every commit is on disk.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections import deque
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.postgres import Server, migrate, new_server

USUAL = {"fsync": "on", "full_page_writes": "on", "synchronous_commit": "on", "autovacuum": "on"}


class Proxy:
    """Passes bytes on to the server, each a while after it came, in a thread of its own."""

    def __init__(self, port: int, delay: float) -> None:
        self.port, self._target, self._delay = 0, port, delay
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
        await asyncio.gather(self._pass_on(reader, back), self._pass_on(there, writer))

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop, held = asyncio.get_running_loop(), deque[bytes]()

        def let_go() -> None:
            piece = held.popleft()
            if not writer.is_closing():
                writer.write(piece) if piece else writer.close()

        while True:
            try:
                piece = await reader.read(65536)
            except ConnectionError:
                piece = b""
            held.append(piece)
            loop.call_later(self._delay, let_go)
            if not piece:
                return


def rate(url: str, music: str, **settings: str) -> float:
    """Import a folder into a new catalogue and return files a second, by the command's own clock."""
    environment = os.environ | {"SOULSPOT_DATABASE__URL": url, "SOULSPOT_LOG__LEVEL": "error"} | settings
    command = [sys.executable, "-m", "soulspot", "scan", music, "--json"]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    result = json.loads(run.stdout)
    return float(result["added"] / result["seconds"])


def new_catalogue(server: Server, name: str) -> str:
    server.run(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
    server.run(f"CREATE DATABASE {name} OWNER soulspot")
    migrate(server.socket_url(name))
    return name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("music")
    parser.add_argument("--delay", type=float, action="append", default=[], help="milliseconds, each way")
    parser.add_argument("--connections", default="8")
    parser.add_argument("--rounds", type=int, default=1)
    asked = parser.parse_args()
    settings = {"SOULSPOT_DATABASE__CONNECTIONS": asked.connections}
    server = new_server(**USUAL)
    try:
        for _round in range(asked.rounds):
            with tempfile.TemporaryDirectory() as place:
                sqlite = rate(f"sqlite+aiosqlite:///{place}/soulspot.db", asked.music)
            print(f"SQLite                     {sqlite:6,.0f} files/s")
            found = rate(server.socket_url(new_catalogue(server, "bench")), asked.music, **settings)
            print(f"PostgreSQL, unix socket    {found:6,.0f} files/s  {found / sqlite:.2f} x")
            for delay in asked.delay:
                proxy = Proxy(server.port, delay / 1000)
                found = rate(server.tcp_url(new_catalogue(server, "bench"), proxy.port), asked.music, **settings)
                print(f"PostgreSQL, {delay:4.1f} ms delay  {found:6,.0f} files/s  {found / sqlite:.2f} x", flush=True)
    finally:
        server.close()


if __name__ == "__main__":
    main()
