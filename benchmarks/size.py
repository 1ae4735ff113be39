"""Measures what grows with the catalogue: a file's transaction, a scan, and the plan of every query.

    python benchmarks/size.py [--database sqlite --database postgresql] [--tracks 10000 1000000] [--root 100000]

For each database it makes a small and a large catalogue (`catalogues.py`), each with a root of real files that take no
space, and measures them by turns, so that other load on the machine slows down both:

    scan         `soulspot scan` of the unchanged root; the memory is that of all its processes
    one file     the transactions of IngestService for new, retagged, moved, missing and restored files in all watched
                 folders, and the queries before each
    plans        EXPLAIN of every statement of these: none may scan a whole table
    partitions   `soulspot db partition` of the large catalogue's history, and its transactions again (PostgreSQL)
"""

import argparse
import asyncio
import json
import os
import random
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from sqlalchemy import text

sys.path.insert(0, str(Path(__file__).parents[1]))
from catalogues import Collection, Example, Place, fill_postgres, fill_sqlite
from postgres import USUAL, new_catalogue
from speed import Memory
from tests.support.postgres_server import Server, new_server
from tests.support.query_plans import (
    full_scans_in_postgres,
    full_scans_in_sqlite,
    recorded_statements,
    run_every_file_operation,
)

from soulspot.infrastructure.filesystem import FileSystem, Signature, file_system_of
from soulspot.infrastructure.persistence.database import Database
from soulspot.infrastructure.persistence.postgresql.partitions import partition
from soulspot.infrastructure.persistence.records import Known
from soulspot.infrastructure.persistence.repositories import FileRepository
from soulspot.infrastructure.persistence.schema import bring_up_to_date
from soulspot.infrastructure.tags import TrackTags
from soulspot.ingest.catalogue.folder_service import FolderService
from soulspot.ingest.catalogue.service import IngestService
from soulspot.ingest.disk.walker import FoundFile, Root

NODES = 9
"""Number of other machines whose folders are in the catalogue."""
ROUNDS, BLOCK = 20, 20
"""Rounds of the measurement, and transactions of each kind per round and catalogue."""
ALBUM = 12
PART = 500_000
"""Audit entries per partition."""

SIZES = """
    SELECT relname, pg_table_size(oid), pg_indexes_size(oid) FROM pg_class
    WHERE relkind = 'r' AND relnamespace = current_schema()::regnamespace AND pg_table_size(oid) > 1e6 ORDER BY 2 DESC
"""


@dataclass
class Catalogue:
    """One catalogue, open."""

    name: str
    url: str
    database: Database
    service: IngestService
    examples: list[Example]
    artists: list[str]
    root: Root
    root_files: int
    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    chance: random.Random = field(default_factory=lambda: random.Random(5))
    added: int = 0

    async def measure(self, kind: str, work: Awaitable[object]) -> None:
        """Record how long an awaitable takes."""
        began = time.perf_counter()
        await work
        self.seconds[kind].append(time.perf_counter() - began)

    def transactions(self) -> list[float]:
        """Return the seconds of each transaction, of all kinds."""
        return [each for kind, values in self.seconds.items() if not kind.startswith("query") for each in values]


async def build(url: str, music: Path, tracks: int, root_files: int, fill: Callable[[Collection], None]) -> Catalogue:
    """Make a catalogue; one root is on this machine, the others are on other machines."""
    database = Database(url)
    await bring_up_to_date(database)
    places = []
    for number in range(NODES + 1 if tracks > root_files else 1):
        node, path = (f"node{number}", f"/srv/music{number}") if number else (socket.gethostname(), str(music))
        file_system = file_system_of(path) if number == 0 else FileSystem("ext4", f"uuid{number}", "/")
        folder = await FolderService(database, run="made", node=node).adopt_folder(path, file_system)
        files = (tracks - root_files) // NODES if number else root_files
        places.append(Place(folder.id, path, files, is_real=number == 0))
    collection = Collection(places, examples=8 * ROUNDS * BLOCK)
    began = time.perf_counter()
    await asyncio.to_thread(fill, collection)
    print(f"  {tracks:,} tracks made in {time.perf_counter() - began:.0f} s", flush=True)
    random.Random(3).shuffle(collection.remembered)
    service = IngestService(database, run="measured")
    root = Root(places[0].id, str(music))
    name = f"{tracks:,}"
    return Catalogue(name, url, database, service, collection.remembered, collection.artists, root, root_files)


def scan_root(catalogue: Catalogue) -> None:
    """Scan the root by the command, and print how long it took."""
    environment = os.environ | {"SOULSPOT_DATABASE__URL": catalogue.url, "SOULSPOT_LOG__LEVEL": "error"}
    command = [sys.executable, "-m", "soulspot", "scan", catalogue.root.path, "--json"]
    began = time.perf_counter()
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, start_new_session=True) as process:
        memory = Memory(process)
        assert process.stdout is not None
        summary = json.loads(process.stdout.read())
    seconds = time.perf_counter() - began
    if process.returncode or summary["unchanged"] != catalogue.root_files:
        sys.exit(f"nothing has changed, but the scan reports {summary}")
    print(
        f"  scan of {catalogue.root_files:>9,} files in {catalogue.name:>9} tracks: {seconds:5.1f} s,"
        f" {summary['seconds']:.1f} s of it scanning, {memory.peak() / 1e6:.0f} MB",
        flush=True,
    )


async def block(catalogue: Catalogue) -> None:
    """Measure some transactions of each kind."""
    files, service = FileRepository(catalogue.database.session), catalogue.service
    for _number in range(BLOCK):
        file, tags = new_file(catalogue)
        await catalogue.measure("query: by path", files.known_at(file.root.id, [file.path]))
        await catalogue.measure("query: by inode", files.with_inodes([file.signature.inode]))
        await catalogue.measure("new", service.ingest(file, tags, None))
    for _number in range(BLOCK):
        example, known = await some_file(catalogue, files)
        tags = replace(example.tags, title=f"{example.tags.title} again")
        file = found(catalogue, example.place, known.path, known.signature._replace(size=known.size + 1))
        await catalogue.measure("retagged", service.ingest(file, tags, known))
    for _number in range(BLOCK):
        example, known = await some_file(catalogue, files)
        folder, _slash, name = known.path.rpartition("/")
        folder = folder if catalogue.chance.random() < 0.8 else f"Moved/{folder}"  # noqa: PLR2004 - most are renamed
        file = found(catalogue, example.place, f"{folder}/renamed {name}", known.signature)
        await catalogue.measure("moved", service.move(file, known, None))
    for _number in range(BLOCK):
        example, known = await some_file(catalogue, files)
        await catalogue.measure("missing", service.lose(known))
        lost = (await files.known_at(known.folder_id, [known.path]))[known.path]
        file = found(catalogue, example.place, known.path, known.signature)
        await catalogue.measure("restored", service.restore(file, lost))


def new_file(catalogue: Catalogue) -> tuple[FoundFile, TrackTags]:
    """Return the next song of a new album; most albums are by an artist in the catalogue."""
    number, position = divmod(catalogue.added, ALBUM)
    catalogue.added += 1
    chance = random.Random(number)
    artist = f"Newcomer {number}" if chance.random() < 0.25 else chance.choice(catalogue.artists)  # noqa: PLR2004 - a quarter
    tags = TrackTags(
        title=f"Song {position}",
        artist=artist,
        artists=(artist,),
        album=f"New album {number}",
        album_artist=artist,
        date="2026",
        track_number=position + 1,
        track_total=ALBUM,
        fingerprint=f"b2:new {catalogue.added}",
    )
    place = catalogue.examples[number % len(catalogue.examples)].place
    return found(catalogue, place, f"{artist}/New album {number}/{position}.mp3", None), tags


def found(catalogue: Catalogue, place: Place, path: str, signature: Signature | None) -> FoundFile:
    inode = (1 << 50) + catalogue.added
    return FoundFile(Root(place.id, place.path), path, signature or Signature(5_000_000, inode, inode, inode))


async def some_file(catalogue: Catalogue, files: FileRepository) -> tuple[Example, Known]:
    """Return a file of the catalogue that no transaction has touched yet."""
    example = catalogue.examples.pop()
    return example, (await files.known_at(example.place.id, [example.path]))[example.path]


async def measure(catalogues: list[Catalogue]) -> None:
    for number in range(ROUNDS + 1):
        for catalogue in catalogues:
            await block(catalogue)
            if number == 0:
                catalogue.seconds.clear()  # the first round opens connections and plans statements
    for kind in catalogues[0].seconds:
        report(kind, [catalogue.seconds[kind] for catalogue in catalogues])
    report("all transactions", [catalogue.transactions() for catalogue in catalogues])


def report(kind: str, seconds: list[list[float]]) -> None:
    shown = []
    for values in seconds:
        cuts = statistics.quantiles(values, n=100)
        shown.append((cuts[49], cuts[94]))
    cells = "".join(f"{middle * 1000:9.2f}{worse * 1000:9.2f}" for middle, worse in shown)
    print(f"  {kind:<18}{cells}{shown[-1][0] / shown[0][0]:9.2f}{shown[-1][1] / shown[0][1]:9.2f}", flush=True)


async def measure_partitions(catalogue: Catalogue) -> None:
    """Partition the history of a catalogue, and measure again."""
    before = catalogue.transactions()
    began = time.perf_counter()
    parts = await partition(catalogue.database.url, PART)
    seconds = time.perf_counter() - began
    entries = sum(part.rows for part in parts)
    print(f"  history of about {entries:,} entries split into {len(parts)} partitions in {seconds:.1f} s")
    async with catalogue.database.session() as session:
        for table, size, indexes in await session.execute(text(SIZES)):
            print(f"  {table:<18}{size / 1e6:7,.0f} MB, indexes {indexes / 1e6:7,.0f} MB")
    catalogue.seconds.clear()
    for _number in range(ROUNDS):
        await block(catalogue)
    report("all, one / partitions", [before, catalogue.transactions()])


async def plans(catalogue: Catalogue, server: Server | None) -> None:
    with recorded_statements(catalogue.database) as seen:
        await run_every_file_operation(catalogue.database, catalogue.service, catalogue.root)
    if server is None:
        whole = await full_scans_in_sqlite(catalogue.database, seen)
    else:
        with server.connect(str(catalogue.database.url.database)) as connection:
            whole = full_scans_in_postgres(connection, seen)
    print(f"  {len(seen)} statements planned at {catalogue.name} tracks, {len(whole)} of them scan a whole table")
    for statement, tables in whole.items():
        print(f"    {tables}: {statement}")


async def run(kind: str, place: Path, tracks: list[int], root_files: int) -> None:
    print(kind)
    with ExitStack() as ending:
        server = ending.enter_context(running_server()) if kind == "postgresql" else None
        catalogues = []
        for number in tracks:
            music = place / f"{kind}-{number}"
            music.mkdir()
            if server is None:
                file = place / f"{number}.db"
                url, fill = f"sqlite+aiosqlite:///{file}", lambda collection, file=file: fill_sqlite(file, collection)
            else:
                name = new_catalogue(server, f"size_{number}")
                connection = ending.enter_context(server.connect(name))
                url = server.socket_url(name)
                fill = lambda collection, connection=connection: fill_postgres(connection, collection)  # noqa: E731
            catalogues.append(await build(url, music, number, min(number, root_files), fill))
        for catalogue in catalogues:
            scan_root(catalogue)
        heads = "".join(f"{catalogue.name:>18}" for catalogue in catalogues)
        print(f"  {'tracks':<18}{heads}{'ratio':>18}")
        print(f"  {'milliseconds':<18}{'p50      p95'.rjust(18) * 3}")
        await measure(catalogues)
        await plans(catalogues[-1], server)
        if server is not None:
            await measure_partitions(catalogues[-1])
        for catalogue in catalogues:
            await catalogue.database.aclose()


@contextmanager
def running_server() -> Iterator[Server]:
    server = new_server(**USUAL, shared_buffers="1GB", max_wal_size="8GB", checkpoint_timeout="1h")
    try:
        yield server
    finally:
        server.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--database", action="append", choices=["sqlite", "postgresql"])
    parser.add_argument("--tracks", type=int, nargs=2, default=[10_000, 1_000_000])
    parser.add_argument("--root", type=int, default=100_000, help="largest number of files in the root that is scanned")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soulspot-size-") as place:
        for kind in asked.database or ["sqlite", "postgresql"]:
            asyncio.run(run(kind, Path(place), asked.tracks, asked.root))
            shutil.rmtree(place)
            os.mkdir(place)


if __name__ == "__main__":
    main()
