"""Records the statements that file operations run, and finds those that scan a whole table (EXPLAIN)."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import psycopg
from sqlalchemy import event

from soulspot.infrastructure.filesystem import Signature
from soulspot.infrastructure.persistence.database import Database
from soulspot.infrastructure.persistence.records import Known
from soulspot.infrastructure.persistence.repositories import FileRepository
from soulspot.infrastructure.tags import Failure, TrackTags
from soulspot.ingest.catalogue.service import IngestService
from soulspot.ingest.disk.walker import FoundFile, Root

Statements = dict[str, tuple[object, ...]]
"""Each statement that ran, with the parameters of its first run."""
# The index of missing files may be scanned: it is small.
_WHOLE_TABLE = re.compile(
    r"Seq Scan on (\w+)|SCAN (\w+)\b(?! USING (?:COVERING )?INDEX ix_files_folder_id_path_missing)"
)
CUSTOM_PLANS = 5
"""Runs of a prepared statement that PostgreSQL plans for their values, before it may use one generic plan."""
_SMALL = frozenset(("folders",))
"""Tables of a few rows, for which an index is no use."""


@contextmanager
def recorded_statements(database: Database) -> Iterator[Statements]:
    """Record each statement that runs within the block."""
    seen: Statements = {}

    def note(
        _connection: object, _cursor: object, statement: str, parameters: tuple[object, ...], *_more: object
    ) -> None:
        if not statement.startswith("INSERT"):  # which reads nothing
            seen.setdefault(statement, tuple(parameters))

    engines = [engine.sync_engine for engine in (database.backend.write_engine, database.backend.read_engine)]
    for engine in engines:
        event.listen(engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        for engine in engines:
            event.remove(engine, "before_cursor_execute", note)


async def run_every_file_operation(database: Database, service: IngestService, root: Root) -> None:
    """Add, update, move, lose, restore, reject and purge files, and run every query that the ingest asks on the way."""
    files = FileRepository(database.session)

    def tags(name: str, *, album: str = "Album", identity: str | None = None, by: str = "By") -> TrackTags:
        ids = (identity,) if identity else ()
        return TrackTags(
            title="T", artist=name, artists=(name,), musicbrainz_artist_ids=ids, album=album, album_artist=by,
            album_artist_sort=f"{by}, the", fingerprint=f"sound of {name}",
        )  # fmt: skip

    def found(path: str, size: int = 1) -> FoundFile:
        return FoundFile(root, path, Signature(size, 2, 3, 4))

    async def known(path: str) -> Known:
        return (await files.known_at(root.id, [path]))[path]

    for identity in ("7cf0ea9d-86b9-4dad-ba9e-2355a64899ea", "664c3e0e-42d8-48c1-b209-1efca19c0325"):
        await service.ingest(found(f"new/{identity}.mp3"), tags("Namesake", identity=identity), None)
    await service.ingest(found("new/which.mp3"), tags("Namesake", album="Other"), None)
    for number in (1, 2):
        await service.ingest(found(f"new/{number}.mp3"), tags("One", by=f"By {number}"), None)
    await service.ingest(found("new/1.mp3", 2), tags("one", album="Split"), await known("new/1.mp3"))
    await service.ingest(found("new/2.mp3", 2), tags("one", album="Split"), await known("new/2.mp3"))
    await service.move(found("moved/1.mp3", 2), await known("new/1.mp3"), None)
    await service.lose(await known("moved/1.mp3"))
    await service.restore(found("moved/1.mp3", 2), await known("moved/1.mp3"))
    await service.reject(found("moved/1.mp3", 3), Failure("corrupt", "no audio"), await known("moved/1.mp3"))
    await service.merge_moved_copy(await known("moved/1.mp3"), await known("new/2.mp3"))
    await service.lose(await known("new/2.mp3"))
    missing = await files.missing_since(datetime.now(UTC) + timedelta(days=1))
    await service.purge(next(file for file in missing if file.path == "new/2.mp3"))

    which = await known("new/which.mp3")
    await files.known_between(root.id, "", "a", "b")
    await files.current_between(root.id, "", "a", "b", reading=1, failed=("unreadable",))
    await files.known_between(root.id, "new/", "", None)
    await files.known_in(root.id, "new/")
    await files.present_below(root.id, "new")
    await files.some_present(root.id)
    await files.some_present(root.id, "new/", 1)
    await files.with_inodes([7, 8, 9])
    await files.with_fingerprint("sound", 20)
    await files.fingerprints_at(root.id, ["new/which.mp3"])
    await files.fingerprints_of([which.id])
    await files.fingerprints_missing()
    now = datetime.now(UTC)
    await files.later_copies_of(which.id, younger_by=timedelta(minutes=1), since=now)
    await files.at(f"{root.path}/new/which.mp3")
    await files.with_id(which.id)


def full_scans_in_postgres(connection: psycopg.Connection[tuple[object, ...]], seen: Statements) -> dict[str, str]:
    """Return the statements that scan a whole table, under a custom plan or the generic one, with the tables."""
    found = {}
    for number, (statement, values) in enumerate(seen.items()):
        connection.execute(f"PREPARE p{number} AS {statement}".encode())
        places = f"({', '.join(['%s'] * len(values))})" if values else ""
        for _time in range(CUSTOM_PLANS + 2):
            with psycopg.ClientCursor(connection) as cursor:
                plan = cursor.execute(f"EXPLAIN EXECUTE p{number}{places}".encode(), values).fetchall()
            if scanned := _full_scans([str(row[0]) for row in plan]):
                found[statement] = scanned
    return found


async def full_scans_in_sqlite(database: Database, seen: Statements) -> dict[str, str]:
    """Return the statements that scan a whole table, with the tables."""
    found = {}
    async with database.session() as session:
        connection = await session.connection()
        for statement, values in seen.items():
            plan = (await connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values)).all()
            if scanned := _full_scans([row.detail for row in plan]):
                found[statement] = scanned
    return found


def _full_scans(plan: list[str]) -> str:
    scanned = {match[1] or match[2] for line in plan if (match := _WHOLE_TABLE.search(line)) is not None}
    return ", ".join(sorted(scanned - _SMALL))
