"""A server that stops, kills, refuses or is slow, and watchers that share it: nothing lost, nothing audited twice."""

import asyncio
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pytest
from tests.conftest import Soulspot, until, write_song
from tests.support.postgres_server import PostgresSoulspot, Server, new_server

from soulspot.infrastructure.filesystem import FileSystem, Signature
from soulspot.infrastructure.persistence.database import Database
from soulspot.infrastructure.persistence.repositories import FileRepository
from soulspot.infrastructure.tags import Failure, TrackTags
from soulspot.ingest.catalogue.folder_service import FolderService
from soulspot.ingest.catalogue.service import IngestService
from soulspot.ingest.disk.walker import FoundFile, Root
from soulspot.ingest.outcome import StaleError

pytestmark = pytest.mark.postgresql

KILL = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid() ORDER BY random() LIMIT 1
"""


@pytest.fixture(scope="module")
def restartable_server() -> Iterator[Server]:
    """Yield a server that a test may stop."""
    # Without synchronous_commit, a crash would lose transactions that the server has confirmed.
    server = new_server(synchronous_commit="on", max_connections="40")
    yield server
    server.close()


@pytest.fixture
def restartable(tmp_path: Path, restartable_server: Server) -> Iterator[PostgresSoulspot]:
    restartable_server.run("CREATE DATABASE restartable OWNER soulspot TEMPLATE catalogue")
    command = PostgresSoulspot(tmp_path, restartable_server, "restartable")
    yield command
    command.kill()
    restartable_server.run("DROP DATABASE restartable WITH (FORCE)")


@pytest.fixture
def with_own_server(tmp_path: Path) -> Iterator[PostgresSoulspot]:
    """Yield a command with its own server, which no other test has stopped."""
    server = new_server(synchronous_commit="on")
    command = PostgresSoulspot(tmp_path, server, "catalogue")
    yield command
    command.kill()
    server.close()


def add_songs(folder: Path, count: int, artists: int = 7) -> None:
    for number in range(artists):
        name = f"Artist {number}"
        write_song(folder / f"{number}.mp3", title="T", artist=name, album=f"Album {number}", albumartist=name)
    for number in range(artists, count):
        shutil.copyfile(folder / f"{number % artists}.mp3", folder / f"{number}.mp3")


def assert_whole(soulspot: Soulspot, files: int, artists: int = 7) -> None:
    """Fail unless every file is catalogued once, with one audit entry for each row created."""
    count = "SELECT count(*), count(DISTINCT {}) FROM {}"
    assert soulspot.rows(count.format("path", "files WHERE status = 'catalogued'"))[0][0] == files
    assert soulspot.rows(count.format("name", "artists")) == [(artists, artists)]
    for entity, number in (("track", files), ("artist", artists)):
        added = soulspot.rows(count.format("entity_id", f"audit_log WHERE action = '{entity}_added'"))
        assert added == [(number, number)]
    unknown = "SELECT 1 FROM audit_log WHERE action = 'track_added' AND entity_id NOT IN (SELECT id FROM tracks)"
    assert soulspot.rows(unknown) == []


def test_a_restart_of_the_server_loses_no_file(restartable: PostgresSoulspot) -> None:
    restartable.watch()
    add_songs(restartable.music, 300)
    until(lambda: restartable.rows("SELECT 1 FROM tracks"))

    restartable.server.stop("immediate")
    write_song(restartable.music / "late.mp3", title="Late", artist="Artist 0", album="Album 0", albumartist="Artist 0")
    until(lambda: "the database refuses" in restartable.log.read_text())
    restartable.server.start()

    until(lambda: len(restartable.tracks()) == 301, 60)
    assert_whole(restartable, 301)
    assert restartable.log.read_text().count("the database refuses") == 1
    assert "the database answers again, after" in restartable.log.read_text()


def test_killed_server_processes_lose_and_duplicate_nothing(postgres_soulspot: PostgresSoulspot) -> None:
    add_songs(postgres_soulspot.music, 300)
    postgres_soulspot.watch()
    killed = 0

    deadline = time.monotonic() + 60
    while len(postgres_soulspot.tracks()) < 300:
        assert time.monotonic() < deadline, postgres_soulspot.log.read_text()[-3000:]
        killed += len(postgres_soulspot.rows(KILL))
        time.sleep(random.uniform(0, 0.05))

    assert killed > 3
    assert_whole(postgres_soulspot, 300)


def test_ingest_waits_for_a_free_connection(postgres_soulspot: PostgresSoulspot) -> None:
    postgres_soulspot.watch()
    name = postgres_soulspot.name
    postgres_soulspot.server.run(f"ALTER DATABASE {name} CONNECTION LIMIT 0")
    until(lambda: not postgres_soulspot.rows(KILL))

    add_songs(postgres_soulspot.music, 20)
    until(lambda: "too many connections" in postgres_soulspot.log.read_text())
    postgres_soulspot.server.run(f"ALTER DATABASE {name} CONNECTION LIMIT 50")

    until(lambda: len(postgres_soulspot.tracks()) == 20)
    assert_whole(postgres_soulspot, 20)


def test_ingest_waits_while_other_clients_use_every_connection(restartable: PostgresSoulspot) -> None:
    restartable.watch()
    ours = b"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'restartable'"
    with restartable.server.connect() as admin, ExitStack() as others:
        while True:
            try:
                others.enter_context(restartable.server.connect("postgres", "soulspot"))
            except psycopg.OperationalError:
                if not admin.execute(ours).fetchall():
                    break

        add_songs(restartable.music, 20)
        until(lambda: "the database refuses" in restartable.log.read_text())
        refused = restartable.run("status")
    until(lambda: len(restartable.tracks()) == 20)

    assert (refused.returncode, refused.stderr) == (0, "")  # the daemon answers although its server does not
    assert "database  cannot be read" in refused.stdout
    assert "remaining connection slots" in restartable.log.read_text()
    assert_whole(restartable, 20)


@pytest.mark.root
def test_ingest_waits_while_the_disk_of_the_server_is_full(with_own_server: PostgresSoulspot) -> None:
    server, disk = with_own_server.server, with_own_server.server.place / "disk"
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk takes root")
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m,mode=0777", "tmpfs", disk], check=True)
    try:
        space = disk / "space"
        space.mkdir()
        shutil.chown(space, server.superuser, server.superuser if server.superuser == "postgres" else None)
        server.run(f"CREATE TABLESPACE small LOCATION '{space}'")
        server.run("CREATE DATABASE small OWNER soulspot TEMPLATE catalogue TABLESPACE small STRATEGY file_copy")
        with_own_server.name, with_own_server.environment["SOULSPOT_DATABASE__URL"] = (
            "small",
            server.socket_url("small"),
        )
        filler = disk / "filler"
        with filler.open("wb", buffering=0) as file, suppress(OSError):
            while file.write(b"x" * 4096):
                pass
        add_songs(with_own_server.music, 600)
        with_own_server.start_watching()
        until(lambda: with_own_server.log.exists() and "No space left on device" in with_own_server.log.read_text())
        assert "the database refuses" in with_own_server.log.read_text()
        filler.unlink()

        until(lambda: len(with_own_server.tracks()) == 600, 60)
        assert_whole(with_own_server, 600)
    finally:
        with_own_server.kill()
        server.run("DROP DATABASE IF EXISTS small WITH (FORCE)")
        server.run("DROP TABLESPACE IF EXISTS small")
        subprocess.run(["umount", "--lazy", disk], check=True)


@pytest.mark.parametrize("limit", ["lock_timeout", "statement_timeout"])
def test_a_cancelled_statement_is_retried(postgres_soulspot: PostgresSoulspot, limit: str) -> None:
    add_songs(postgres_soulspot.music, 20)
    server, name = postgres_soulspot.server, postgres_soulspot.name
    server.run(f"ALTER DATABASE {name} SET {limit} = '200ms'")

    with server.connect(name) as blocker:
        blocker.execute(f"SET {limit} = 0")
        blocker.execute("BEGIN")
        blocker.execute("LOCK TABLE tracks IN SHARE MODE")
        postgres_soulspot.watch()
        until(lambda: "the database refuses" in postgres_soulspot.log.read_text())
        blocker.execute("COMMIT")

    until(lambda: len(postgres_soulspot.tracks()) == 20)
    assert_whole(postgres_soulspot, 20)


def test_an_unreachable_server_gives_a_one_line_error_and_exits_with_75(
    postgres_soulspot: PostgresSoulspot, postgres_server: Server
) -> None:
    unreachable = postgres_server.tcp_url("nowhere", port=1)

    result = postgres_soulspot.run("scan", str(postgres_soulspot.music), SOULSPOT_DATABASE__URL=unreachable)

    assert result.returncode == 75
    assert "cannot be reached" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert "p%25w" not in result.stderr


def test_a_second_watcher_of_a_folder_is_refused_with_the_first_named(postgres_soulspot: PostgresSoulspot) -> None:
    daemon = postgres_soulspot.watch()
    other = postgres_soulspot.music.parent / "other"
    other.mkdir()

    same = postgres_soulspot.run("watch", str(postgres_soulspot.music))
    other_scan = postgres_soulspot.run("scan", str(other))

    assert same.returncode == 75
    assert f"pid {daemon.pid}" in same.stderr
    assert other_scan.returncode == 0, other_scan.stderr


def test_a_watcher_exits_when_another_has_taken_its_folder(postgres_soulspot: PostgresSoulspot) -> None:
    daemon = postgres_soulspot.watch()
    holder = "SELECT objid::bigint, classid::bigint, pid FROM pg_locks WHERE locktype = 'advisory'"
    low, high, pid = postgres_soulspot.rows(f"{holder} AND mode = 'ExclusiveLock'")[0]
    key = high << 32 | low

    with postgres_soulspot.server.connect(postgres_soulspot.name) as thief:
        thief.execute(f"SELECT pg_terminate_backend({pid}), pg_advisory_lock({key - (1 << 64) * (key >> 63)})".encode())

        assert daemon.wait(timeout=20) == 75, postgres_soulspot.log.read_text()
    assert "is being watched by" in postgres_soulspot.log.read_text()


def test_watchers_that_share_artists_create_each_of_them_once(postgres_soulspot: PostgresSoulspot) -> None:
    folders = [postgres_soulspot.music.parent / f"root{number}" for number in range(4)]
    for folder in folders:
        add_songs(folder, 100, artists=20)

    for folder in folders:
        postgres_soulspot.music = folder
        postgres_soulspot.start_watching()
    until(lambda: postgres_soulspot.log.read_bytes().count(b"watching") == 4)
    deadline = time.monotonic() + 60
    while len(postgres_soulspot.rows("SELECT 1 FROM files WHERE status = 'catalogued'")) < 400:
        assert all(process.poll() is None for process in postgres_soulspot.running), postgres_soulspot.log.read_text()
        assert time.monotonic() < deadline, postgres_soulspot.log.read_text()[-3000:]
        postgres_soulspot.rows(KILL)
        time.sleep(0.2)

    assert_whole(postgres_soulspot, 400, artists=20)
    assert all(process.poll() is None for process in postgres_soulspot.running)


def test_a_follower_gets_entries_that_commit_out_of_order(postgres_soulspot: PostgresSoulspot, tmp_path: Path) -> None:
    add = (
        "INSERT INTO audit_log (at, action, entity_type, entity_id, run) VALUES (now(), %s, 'track', 'id', 'r')"
        " RETURNING sequence"
    )
    command = [sys.executable, "-m", "soulspot", "audit", "--follow", "--json"]
    output = tmp_path / "output"
    server, name = postgres_soulspot.server, postgres_soulspot.name
    with output.open("wb") as out, server.connect(name) as slow, server.connect(name) as quick:
        process = subprocess.Popen(command, env=postgres_soulspot.environment, stdout=out)
        postgres_soulspot.running.append(process)
        until(lambda: _add_entry(quick, add, "before") and "before" in output.read_text())
        slow.execute("BEGIN")
        slow.execute(add, ["slow"])
        quick.execute(add, ["quick"])
        until(lambda: "quick" in output.read_text())
        slow.execute("COMMIT")

        until(lambda: "slow" in output.read_text())
    actions = [json.loads(line)["action"] for line in output.read_text().splitlines()]
    assert [actions.count(each) for each in ("quick", "slow")] == [1, 1]


def _add_entry(connection: psycopg.Connection[tuple[Any, ...]], add: LiteralString, action: str) -> bool:
    time.sleep(0.1)
    return bool(connection.execute(add, [action]).fetchall())


class Node:
    """The service of one watcher, in this process."""

    def __init__(self, url: str, name: str) -> None:
        self.database = Database(url)
        self.service = IngestService(self.database, run=name)
        self._folder_service = FolderService(self.database, run=name, node=name)

    async def adopt(self) -> None:
        folder = await self._folder_service.adopt_folder("/music", FileSystem("ext4", "uuid", "/"))
        self.root = Root(folder.id, "/music")

    def found(self, name: str, size: int = 1) -> FoundFile:
        return FoundFile(self.root, name, Signature(size, 2, 3, 4))


@pytest.fixture
async def nodes(postgres_server: Server, postgres_catalogue: str) -> AsyncIterator[tuple[Node, Node]]:
    both = (
        Node(postgres_server.socket_url(postgres_catalogue), "one"),
        Node(postgres_server.socket_url(postgres_catalogue), "two"),
    )
    for node in both:
        await node.adopt()
    yield both
    for node in both:
        await node.database.aclose()


def tags(artist: str, **more: object) -> TrackTags:
    return TrackTags(title="T", artist=artist, artists=(artist,), **more)  # type: ignore[arg-type]


async def test_an_artist_that_another_watcher_removed_is_created_again(nodes: tuple[Node, Node]) -> None:
    one, two = nodes
    await two.service.ingest(two.found("a.mp3"), tags("Old"), None)
    await one.service.ingest(one.found("a.mp3"), tags("Old"), None)
    for node in nodes:
        known = await FileRepository(node.database.session).known_at(node.root.id, ["a.mp3"])
        await node.service.ingest(node.found("a.mp3", 2), tags("New"), known["a.mp3"])

    with pytest.raises(StaleError):  # the first node still has it in its cache
        await one.service.ingest(one.found("b.mp3"), tags("Old"), None)
    await one.service.ingest(one.found("b.mp3"), tags("Old"), None)

    found = await FileRepository(one.database.session).known_at(one.root.id, ["b.mp3"])
    assert found["b.mp3"].status == "catalogued"


async def test_two_watchers_removing_the_last_credits_remove_an_artist_once(
    nodes: tuple[Node, Node], postgres_server: Server, postgres_catalogue: str
) -> None:
    for node in nodes:
        await node.service.ingest(node.found("a.mp3"), tags("Old", album="B", album_artist="Old"), None)
        await node.service.ingest(node.found("b.mp3"), tags("New"), None)
    known = [await FileRepository(node.database.session).known_at(node.root.id, ["a.mp3"]) for node in nodes]

    changes = [
        node.service.ingest(node.found("a.mp3", 2), tags("New"), each["a.mp3"])
        for node, each in zip(nodes, known, strict=True)
    ]
    await asyncio.gather(*changes)

    with postgres_server.connect(postgres_catalogue) as connection:
        artists = connection.execute("SELECT name FROM artists").fetchall()
        removed = connection.execute("SELECT count(*) FROM audit_log WHERE action = 'artist_removed'").fetchall()
    assert (artists, removed) == ([("New",)], [(1,)])


async def test_a_failure_with_an_unconfirmed_commit_is_audited_once(nodes: tuple[Node, Node]) -> None:
    one, _two = nodes
    failure = Failure("corrupt", "no audio")
    await one.service.reject(one.found("a.mp3"), failure, None)
    known = (await FileRepository(one.database.session).known_at(one.root.id, ["a.mp3"]))["a.mp3"]
    await one.service.reject(one.found("a.mp3", 2), failure, known)

    with pytest.raises(StaleError):
        await one.service.reject(one.found("a.mp3", 2), failure, known)


async def test_nul_never_reaches_the_server(
    nodes: tuple[Node, Node], postgres_server: Server, postgres_catalogue: str
) -> None:
    one, _two = nodes

    await one.service.ingest(one.found("a.mp3"), tags("N\0ul", comment="a\0b \\u0000"), None)
    await one.service.reject(one.found("b.mp3"), Failure("corrupt", "a\0b"), None)
    known = await FileRepository(one.database.session).known_at(one.root.id, ["b.mp3", "n\0one"])
    await one.service.reject(one.found("b.mp3", 2), Failure("corrupt", "c\0d"), known["b.mp3"])

    with postgres_server.connect(postgres_catalogue) as connection:
        [(artist, more)] = connection.execute("SELECT artist_credit, tags::text FROM tracks").fetchall()
        [(reason,)] = connection.execute("SELECT error_text FROM files WHERE status = 'failed'").fetchall()
    assert (artist, reason) == ("N\ufffdul", "c\ufffdd")
    assert json.loads(more)["comment"] == "a\ufffdb \\u0000"
