"""What the server does for a query that is run for each file: it looks into an index, however many rows there are."""

import re

import pytest
from sqlalchemy import event
from tests.postgres import Server

from soulspot.infrastructure.filesystem import FileSystem, Signature
from soulspot.infrastructure.persistence.database import Database
from soulspot.infrastructure.persistence.repositories import FileRepository
from soulspot.infrastructure.tags import TrackTags
from soulspot.ingest.scanner import FoundFile, Root
from soulspot.ingest.service import IngestService

pytestmark = pytest.mark.postgresql

ROWS = 50_000
FILL = """
    INSERT INTO artists (id, name, name_key, created_at)
        SELECT 'a' || n, 'Artist ' || n, 'artist ' || n, now() FROM generate_series(1, {rows} / 20) n;
    INSERT INTO albums (id, identity_key, title, title_key, artist_id, created_at)
        SELECT 'b' || n, 'key ' || n, 'Album', 'album', 'a' || 1 + n % ({rows} / 20), now()
        FROM generate_series(1, {rows} / 10) n;
    INSERT INTO tracks (id, title, artist_id, artist_credit, album_id, genres, has_cover, search_text, tags,
                        created_at, updated_at)
        SELECT 't' || n, 'T', 'a' || 1 + n % ({rows} / 20), 'A', 'b' || 1 + n % ({rows} / 10), '[]', false, 't a',
               '{{}}', now(), now() FROM generate_series(1, {rows}) n;
    INSERT INTO track_artists (track_id, role, position, artist_id, credited_as)
        SELECT 't' || n, 'main', 0, 'a' || 1 + n % ({rows} / 20), 'A' FROM generate_series(1, {rows}) n;
    INSERT INTO files (id, folder_id, path, size, mtime_ns, ctime_ns, inode, status, attempts, parser_version, notes,
                       track_id, created_at)
        SELECT 'f' || n, '{folder}', n / 12 || '/' || n || '.mp3', 1, 2, 3, n, 'catalogued', 0, 1, '[]', 't' || n, now()
        FROM generate_series(1, {rows}) n;
    ANALYZE
"""


async def test_no_query_of_one_file_reads_a_whole_table(postgres_server: Server, postgres_catalogue: str) -> None:
    seen: dict[str, tuple[object, ...]] = {}

    def note(
        _connection: object, _cursor: object, statement: str, parameters: tuple[object, ...], *_more: object
    ) -> None:
        seen.setdefault(statement, tuple(parameters))

    async with Database(postgres_server.socket_url(postgres_catalogue)) as database:
        service = IngestService(database, run="run", node="node")
        folder = await service.adopt_folder("/music", FileSystem("ext4", "uuid", "/"))
        for statement in FILL.format(rows=ROWS, folder=folder.id).split(";"):
            postgres_server.run(statement, postgres_catalogue)
        root, files = Root(folder.id, "/music"), FileRepository(database.session)
        for engine in (database._writer, database._reader):
            event.listen(engine.sync_engine, "before_cursor_execute", note)

        def tags(name: str) -> TrackTags:
            ids = ("7cf0ea9d-86b9-4dad-ba9e-2355a64899ea",)
            more = {"album": name, "album_artist": "With Id", "musicbrainz_album_artist_ids": ids}
            return TrackTags(title="T", artist=name, artists=(name,), **more)  # type: ignore[arg-type]

        await service.ingest(FoundFile(root, "new.mp3", Signature(1, 2, 3, 4)), tags("One"), None)
        known = (await files.known_at(root.id, ["new.mp3", "5/60.mp3"]))["new.mp3"]
        changed = FoundFile(root, "new.mp3", Signature(2, 2, 3, 4))
        await service.ingest(changed, tags("Two"), known)
        known = (await files.known_at(root.id, ["new.mp3"]))["new.mp3"]
        await service.move(FoundFile(root, "to.mp3", Signature(2, 2, 3, 4)), known, None)
        await service.lose((await files.known_at(root.id, ["to.mp3"]))["to.mp3"])
        await files.known_between(root.id, "5/", "", "5/70.mp3")
        await files.present_below(root.id, "5")
        await files.with_inodes([7, 8, 9])

    scans = {}
    with postgres_server.connect(postgres_catalogue) as connection:
        connection.execute("SET plan_cache_mode = force_custom_plan")
        for statement, parameters in seen.items():
            if "folders" in statement.split("FROM")[-1]:
                continue  # a handful of rows
            text = re.sub(r"\$(\d+)", lambda found: f"%(p{found[1]})s", statement)
            values = {f"p{number}": value for number, value in enumerate(parameters, start=1)}
            plan = connection.execute(f"EXPLAIN {text}".encode(), values).fetchall()
            scans[statement] = [row[0] for row in plan if "Seq Scan" in row[0]]
    assert len(scans) > 12
    assert {statement: found for statement, found in scans.items() if found} == {}
