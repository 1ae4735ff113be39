"""Changes on any node reach `soulspot audit --follow` and servers downstream."""

import asyncio
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.conftest import until, write_song
from tests.support.postgres_server import PostgresSoulspot, Server
from tests.support.tcp_proxy import TcpProxy

from soulspot.infrastructure import catalogue_changes
from soulspot.infrastructure.catalogue_changes import CatalogueChanges
from soulspot.infrastructure.filesystem import FileSystem
from soulspot.infrastructure.persistence.database import Database
from soulspot.infrastructure.persistence.postgresql import notifications
from soulspot.infrastructure.persistence.records import FolderKey
from soulspot.ingest.catalogue.folder_service import FolderService

pytestmark = pytest.mark.postgresql

HERE = Path(__file__).parents[1]


@asynccontextmanager
async def writing(url: str, node: str) -> AsyncIterator[FolderService]:
    run = f"run of {node}"
    async with (
        Database(url) as database,
        database.backend.lock_folders([FolderKey(node, "/music")], "watch", node=node, run=run),
    ):
        yield FolderService(database, run=run, node=node)


async def receive(
    connection: psycopg.Connection[tuple[Any, ...]], count: int, seconds: float = 5
) -> list[psycopg.Notify]:
    return await asyncio.to_thread(lambda: list(connection.notifies(timeout=seconds, stop_after=count)))


async def change(service: FolderService, number: int) -> None:
    await service.adopt_folder(f"/music/{number}", FileSystem("ext4", "uuid", "/"))


@pytest.fixture
def proxy(postgres_server: Server) -> Iterator[TcpProxy]:
    new_proxy = TcpProxy(postgres_server.port)
    yield new_proxy
    new_proxy.close()


async def test_changes_are_notified_at_once_but_many_share_a_notification(
    postgres_server: Server, postgres_catalogue: str
) -> None:
    url = postgres_server.socket_url(postgres_catalogue)
    async with writing(url, "alpha") as alpha, writing(url, "beta") as beta:
        with postgres_server.connect(postgres_catalogue) as connection:
            connection.execute("LISTEN soulspot_public")
            for service in (alpha, beta):
                began = time.monotonic()
                await change(service, 0)
                [notification] = await receive(connection, 1)
                assert time.monotonic() - began < 2
                assert json.loads(notification.payload) == {"node": service._node, "run": f"run of {service._node}"}

            began = time.monotonic()
            for number in range(1, 101):
                await change(alpha, number)
            took = time.monotonic() - began
            await asyncio.sleep(2 * notifications.NOTIFY_INTERVAL)
            received = await receive(connection, 100, seconds=0.1)

    assert 1 <= len(received) <= took / notifications.NOTIFY_INTERVAL + 3


async def test_the_last_commit_is_announced_before_the_process_ends(
    postgres_server: Server, postgres_catalogue: str
) -> None:
    with postgres_server.connect(postgres_catalogue) as connection:
        connection.execute("LISTEN soulspot_public")
        async with writing(postgres_server.socket_url(postgres_catalogue), "alpha") as alpha:
            for number in range(3):
                await change(alpha, number)
                await asyncio.sleep(0.01)

        assert len(await receive(connection, 3, seconds=0.2)) == 2


async def test_changes_are_polled_while_the_server_is_away(
    postgres_server: Server, postgres_catalogue: str, proxy: TcpProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogue_changes, "CHECK_INTERVAL", 60.0)
    monkeypatch.setattr(catalogue_changes, "POLL_INTERVAL", 0.05)
    monkeypatch.setattr(catalogue_changes, "LAST_RETRY", 0.25)
    url = postgres_server.tcp_url(postgres_catalogue, proxy.port)
    async with Database(url) as database, CatalogueChanges.of(database, lambda: None) as changes:
        wait = changes.wait
        listeners = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN%' AND datname = current_database()"
        with postgres_server.connect(postgres_catalogue) as connection:

            async def until_listening(count: int) -> None:
                async with asyncio.timeout(20):
                    while connection.execute(listeners.encode()).fetchall() != [(count,)]:
                        await wait()

            async with asyncio.timeout(20):
                await until_listening(1)
                proxy.redirect(None)
                await until_listening(0)
                for _look in range(3):
                    await wait()
                proxy.redirect(postgres_server.port)
                await until_listening(1)
            with suppress(TimeoutError):
                while True:  # until no notification comes, although it listens
                    await asyncio.wait_for(wait(), 0.5)
            connection.execute("NOTIFY soulspot_public")
            await asyncio.wait_for(wait(), 10)


def test_a_follower_shows_entries_of_all_nodes_and_reconnects(
    postgres_soulspot: PostgresSoulspot, tmp_path: Path
) -> None:
    output = tmp_path / "output"
    with output.open("wb") as out:
        follow = [sys.executable, "-m", "soulspot", "audit", "--follow", "--json", "--action", "track_added"]
        process = subprocess.Popen(follow, env=postgres_soulspot.environment, stdout=out)
    postgres_soulspot.running.append(process)
    listening_now = "SELECT 1 FROM pg_stat_activity WHERE query LIKE 'LISTEN%' AND datname = current_database()"
    until(lambda: postgres_soulspot.rows(listening_now))
    other = postgres_soulspot.music.with_name("other")

    write_song(postgres_soulspot.music / "a.mp3", title="A")
    postgres_soulspot.scan()
    until(lambda: "a.mp3" in output.read_text(), 3)  # polling would take longer than a notification
    postgres_soulspot.rows("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'soulspot'")
    write_song(other / "b.mp3", title="B")
    assert postgres_soulspot.run("scan", str(other)).returncode == 0

    until(lambda: "b.mp3" in output.read_text())
    assert process.poll() is None
    assert len(output.read_text().splitlines()) == 2


def test_the_documented_example_receives_every_entry_once(postgres_soulspot: PostgresSoulspot, tmp_path: Path) -> None:
    [example] = re.findall(r"```python\n(.*?)```", (HERE / "docs" / "scaling.md").read_text(), re.DOTALL)
    program, output = tmp_path / "example.py", tmp_path / "output"
    program.write_text(example)
    url = postgres_soulspot.environment["SOULSPOT_DATABASE__URL"].replace("+asyncpg", "")
    with output.open("wb") as out:
        process = subprocess.Popen([sys.executable, "-u", program, url], stdout=out, env=os.environ)
    postgres_soulspot.running.append(process)
    of_others = "SELECT 1 FROM pg_stat_activity WHERE pid != pg_backend_pid() AND query LIKE"
    until(lambda: postgres_soulspot.rows(f"{of_others} '%= ANY($2)%'"))
    for number in range(30):
        write_song(postgres_soulspot.music / f"{number}.mp3", title=f"T{number}", artist=f"A{number % 7}")

    postgres_soulspot.scan()

    entries = postgres_soulspot.rows("SELECT sequence, action, entity_id FROM audit_log")
    until(lambda: len(output.read_text().splitlines()) >= len(entries))
    lines = [tuple(line.split()) for line in output.read_text().splitlines()]
    assert sorted(lines) == sorted((str(number), action, entity) for number, action, entity in entries)
