"""Every query that runs for each file uses an index, however many rows there are."""

import sys
from pathlib import Path

import pytest
from tests.support.postgres_server import Server
from tests.support.query_plans import (
    full_scans_in_postgres,
    full_scans_in_sqlite,
    recorded_statements,
    run_every_file_operation,
)
from tests.support.tagged_catalogue import Catalogue

from soulspot.infrastructure.filesystem import FileSystem
from soulspot.infrastructure.persistence.database import Database
from soulspot.ingest.catalogue.folder_service import FolderService
from soulspot.ingest.catalogue.service import IngestService
from soulspot.ingest.disk.walker import Root

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from catalogues import Collection, Place, fill_postgres, fill_sqlite

TRACKS = 10_000


@pytest.mark.postgresql
async def test_no_query_for_a_single_file_scans_a_table_in_postgresql(
    postgres_server: Server, postgres_catalogue: str
) -> None:
    async with Database(postgres_server.socket_url(postgres_catalogue)) as database:
        service = IngestService(database, run="run")
        folder = await FolderService(database, run="run", node="node").adopt_folder(
            "/music", FileSystem("ext4", "uuid", "/")
        )
        with postgres_server.connect(postgres_catalogue) as connection:
            fill_postgres(connection, Collection([Place(folder.id, "/music", TRACKS)]))
        with recorded_statements(database) as seen:
            await run_every_file_operation(database, service, Root(folder.id, "/music"))

    with postgres_server.connect(postgres_catalogue) as connection:
        assert full_scans_in_postgres(connection, seen) == {}
    assert len(seen) > 30


@pytest.mark.parametrize("catalogue_url", ["sqlite"], indirect=True)
async def test_no_query_for_a_single_file_scans_a_table_in_sqlite(catalogue: Catalogue) -> None:
    database = catalogue.database
    fill_sqlite(Path(str(database.url.database)), Collection([Place(catalogue.root.id, "/music", 1_000)]))

    with recorded_statements(database) as seen:
        await run_every_file_operation(database, catalogue.service, catalogue.root)

    assert await full_scans_in_sqlite(database, seen) == {}
    assert len(seen) > 20
