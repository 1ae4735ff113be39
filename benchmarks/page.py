"""Measures the web page: response times, how soon a drop appears, what it costs an import and an idle machine.

    python benchmarks/page.py size [--tracks 100000] [--entries 1000000] [--postgres]
    python benchmarks/page.py latency [--drops 100]
    python benchmarks/page.py stuck [--files 2000] [--runs 5] [--pages 10]
    python benchmarks/page.py idle [--seconds 60]

    size        requests each page of a large catalogue
    latency     the time from the last close of a file to the event at an open page
    stuck       imports with open pages that never read, by turns with none
    idle        a daemon that waits at the page's address, beside one that does not

Prints medians of the runs.
"""

import argparse
import asyncio
import http.client
import os
import re
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from catalogues import Collection, Place, fill_postgres, fill_sqlite
from daemon import Daemon, running, song, until
from postgres import new_catalogue
from tests.support.postgres_server import Server, new_server

from soulspot.infrastructure.filesystem import FileSystem
from soulspot.infrastructure.persistence.database import Database
from soulspot.infrastructure.persistence.schema import bring_up_to_date
from soulspot.ingest.catalogue.folder_service import FolderService

DAYS = 60
"""Days over which the audit entries of a large catalogue are spread."""
ROUNDS = 15


@contextmanager
def page(url: str) -> Iterator[tuple[int, int]]:
    """Serve the page of a catalogue; yield its port and its process id."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SOULSPOT_")}
    environment |= {"SOULSPOT_DATABASE__URL": url}
    command = [sys.executable, "-m", "soulspot", "web", "--listen", "127.0.0.1:0"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline().strip().rpartition(":")[2].strip("/"))
        try:
            yield port, process.pid
        finally:
            process.terminate()


def ask(port: int, path: str) -> tuple[float, str]:
    """Return how many milliseconds a response takes, and its body."""
    began = time.perf_counter()
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=120)) as connection:
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read().decode("utf-8", "replace")
    if response.status != http.HTTPStatus.OK:
        sys.exit(f"{path}: {response.status}\n{body[:500]}")
    return (time.perf_counter() - began) * 1000, body


async def fill(url: str, tracks: int, entries: int, server: Server | None) -> None:
    async with Database(url) as database:
        await bring_up_to_date(database)
        folder = await FolderService(database, run="made", node="here").adopt_folder(
            "/srv/music", FileSystem("ext4", "uuid", "/")
        )
    collection = Collection([Place(folder.id, "/srv/music", tracks)])
    if server is None:
        file = Path(url.partition(":///")[2])
        fill_sqlite(file, collection)
        with closing(sqlite3.connect(file)) as connection, connection:
            grow(connection.execute, entries)
    else:
        with server.connect("page") as postgres:
            fill_postgres(postgres, collection)
            grow(lambda statement: postgres.execute(statement.encode()), entries)
            postgres.execute("VACUUM ANALYZE")


def grow(run: Callable[[str], Any], entries: int) -> None:
    """Repeat the history until it has `entries` entries, and spread them over the last `DAYS` days."""
    columns = "action, entity_type, entity_id, path, changes, run"
    while (missing := entries - run("SELECT count(*) FROM audit_log").fetchone()[0]) > 0:
        some = f"SELECT at, {columns} FROM audit_log ORDER BY sequence LIMIT {missing}"  # noqa: S608 - ours
        run(f"INSERT INTO audit_log (at, {columns}) {some}")
    last = run("SELECT max(sequence) FROM audit_log").fetchone()[0]
    began = datetime.now(UTC) - timedelta(days=DAYS)
    for number in range(1000):  # steps; all entries of a step have the same time
        low, high = last * number // 1000, last * (number + 1) // 1000
        at = began + timedelta(days=DAYS * high / last)
        some = f"sequence > {low} AND sequence <= {high}"
        run(f"UPDATE audit_log SET at = '{at:%Y-%m-%d %H:%M:%S.%f}' WHERE {some}")  # noqa: S608


def measure_size(tracks: int, entries: int, *, on_postgres: bool) -> None:
    with ExitStack() as kept:
        scratch = tempfile.TemporaryDirectory(prefix="soulspot-page-", dir=os.environ.get("SCRATCH"))
        place = Path(kept.enter_context(scratch))
        server = None
        url = f"sqlite+aiosqlite:///{place}/soulspot.db"
        if on_postgres:
            server = new_server(shared_buffers="256MB")
            kept.callback(server.close)
            url = server.socket_url(new_catalogue(server, "page"))
        asyncio.run(fill(url, tracks, entries, server))
        print(f"{tracks:,} tracks, {entries:,} entries, {'PostgreSQL' if on_postgres else 'SQLite'}")
        port, _process = kept.enter_context(page(url))
        for name, path in paths(port):
            first, _body = ask(port, path)
            times = [ask(port, path)[0] for _round in range(ROUNDS)]
            then = f"{statistics.median(times):6.1f} ms, max {max(times):6.1f}"
            print(f"  {name:<34} first {first:6.0f} ms, then {then}", flush=True)
        began = time.perf_counter()
        until(lambda: "being counted" not in ask(port, "/")[1], 300, every=0.1)
        print(f"  the chart's thirty days take {time.perf_counter() - began:.1f} s more")


def paths(port: int) -> Iterator[tuple[str, str]]:
    """Yield each page's name and address; some addresses come from links on other pages."""
    yield "stream", "/"
    middle = int(re.findall(r'id="entry-(\d+)"', ask(port, "/")[1])[0]) // 2
    yield "stream, from the middle", f"/?before={middle}"
    for kind in ("added", "moved", "failed", "missing", "back"):
        yield f"stream, {kind}", f"/?kind={kind}"
    yield "albums, newest", "/albums"
    yield "albums, by title, from the middle", "/albums?by=title&after=m&id="
    yield "artists, from the middle", "/artists?after=m&id="
    for kind, where in (("album", "/albums"), ("artist", "/artists"), ("track", "/")):
        found = re.search(rf'href="(/{kind}/[^"]+)"', ask(port, where)[1])
        assert found is not None
        yield kind, found[1]
    yield "search, a common word", "/search?q=ba"
    yield "search, two words", "/search?q=fra+lor"
    yield "search, no match", "/search?q=zzzzqqqq"
    yield "failures", "/failures"
    yield "failures, one code", "/failures?code=corrupt"
    yield "health", "/health"


def follow(port: int) -> IO[bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", "/events")
    return connection.getresponse()


def measure_latency(drops: int) -> None:
    content, times = song(), []
    with running() as daemon, page(f"sqlite+aiosqlite:///{daemon.database}") as (port, _process):  # noqa: SIM117
        with closing(follow(port)) as events:  # the three do not fit on one line
            until(lambda: b"event: health" in events.readline())
            for number in range(drops):
                (daemon.music / f"{number}.mp3").write_bytes(content)
                closed = time.perf_counter()
                while f"{number}.mp3".encode() not in events.readline():
                    pass
                times.append((time.perf_counter() - closed) * 1000)
                time.sleep(0.3)
    cuts = statistics.quantiles(times, n=100, method="inclusive")
    print(f"{drops} drops, close to event: p50 {cuts[49]:.0f} ms, p99 {cuts[98]:.0f} ms, max {max(times):.0f} ms")


def import_files(daemon: Daemon, files: int, turn: int) -> float:
    """Return how many files a second come in."""
    content, before = song(), daemon.count()
    folder = daemon.music / f"turn {turn}"
    folder.mkdir()
    began = time.perf_counter()
    for number in range(files):
        (folder / f"{number}.mp3").write_bytes(content)
    if not until(lambda: daemon.count() >= before + files, 300):
        sys.exit("not every file came in")
    return files / (time.perf_counter() - began)


@contextmanager
def stuck(port: int, pages: int) -> Iterator[None]:
    """Keep pages open that take nothing."""
    with ExitStack() as kept:
        for _number in range(pages):
            connection = kept.enter_context(socket.socket())
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect(("127.0.0.1", port))
            connection.sendall(b"GET /events?after=0 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        time.sleep(0.5)
        yield


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure_stuck(files: int, runs: int, pages: int) -> None:
    without, with_them, ours, theirs = [], [], 0.0, 0.0
    with running() as daemon, page(f"sqlite+aiosqlite:///{daemon.database}") as (port, process):
        import_files(daemon, files, -1)  # warm
        for turn in range(runs):
            without.append(import_files(daemon, files, 2 * turn))
            with stuck(port, pages):
                before = cpu_seconds(process), daemon.cpu_seconds()
                with_them.append(import_files(daemon, files, 2 * turn + 1))
                ours, theirs = ours + cpu_seconds(process) - before[0], theirs + daemon.cpu_seconds() - before[1]
            print(f"  {without[-1]:.0f} files/s without, {with_them[-1]:.0f} with {pages} stuck pages", flush=True)
    ratio = statistics.median(with_them) / statistics.median(without)
    print(f"import with {pages} stuck pages / without: {ratio:.2f};", end=" ")
    print(f"the page used {ours:.1f} s of CPU, the daemon and its readers {theirs:.1f} s")


def measure_idle(seconds: float) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with running() as plain, running(SOULSPOT_WEB__LISTEN=f"127.0.0.1:{port}") as waiting:
        time.sleep(12)  # let the work after the start end
        before, began = [each.cpu_seconds() for each in (plain, waiting)], time.monotonic()
        time.sleep(seconds)
        spent = [each.cpu_seconds() - earlier for each, earlier in zip((plain, waiting), before, strict=True)]
        share = [each / (time.monotonic() - began) for each in spent]
        memory = [each.pss_megabytes() for each in (plain, waiting)]
        print(f"a plain daemon: {share[0]:.2%} of a core, {memory[0]:.1f} MB;", end=" ")
        print(f"one that waits at the page's address: {share[1]:.2%}, {memory[1]:.1f} MB")
        ask(port, "/")
        time.sleep(1)
        print(f"with the page open: {waiting.pss_megabytes():.1f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["size", "latency", "stuck", "idle"])
    parser.add_argument("--tracks", type=int, default=100_000)
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--postgres", action="store_true")
    parser.add_argument("--drops", type=int, default=100)
    parser.add_argument("--files", type=int, default=2_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--pages", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=60.0)
    given = parser.parse_args()
    if given.what == "size":
        measure_size(given.tracks, given.entries, on_postgres=given.postgres)
    elif given.what == "latency":
        measure_latency(given.drops)
    elif given.what == "stuck":
        measure_stuck(given.files, given.runs, given.pages)
    else:
        measure_idle(given.seconds)


if __name__ == "__main__":
    main()
