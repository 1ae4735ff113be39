"""Which watchers may write a shared catalogue, and whom a refusal names."""

import asyncio
import json
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack

import pytest
from tests.conftest import until, write_song
from tests.support.postgres_server import PostgresSoulspot, Server, migrate
from tests.support.tcp_proxy import TcpProxy

from soulspot.errors import LockHeldError
from soulspot.infrastructure.persistence import schema
from soulspot.infrastructure.persistence.database import Database
from soulspot.infrastructure.persistence.records import FolderKey

pytestmark = pytest.mark.postgresql


@pytest.fixture
def url(postgres_server: Server, postgres_catalogue: str) -> str:
    return postgres_server.socket_url(postgres_catalogue)


def owning(database: Database, *paths: str, node: str = "one") -> AbstractAsyncContextManager[None]:
    return database.backend.lock_folders([FolderKey(node, path) for path in paths], "watch", node=node, run="run")


async def until_true(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - the server and the log send no notification
            await asyncio.sleep(0.05)


async def try_lock(url: str, *paths: str, node: str = "one") -> str:
    """Try to lock these folders; return the message of the refusal, or "" if they are free."""
    async with Database(url) as database, AsyncExitStack() as stack:
        try:
            await stack.enter_async_context(owning(database, *paths, node=node))
        except LockHeldError as error:
            return str(error)
    return ""


async def test_a_folder_its_parent_and_its_child_have_one_watcher(url: str) -> None:
    async with Database(url) as database, AsyncExitStack() as stack:
        await stack.enter_async_context(owning(database, "/srv/music", "/srv/talks"))

        refused = [await try_lock(url, path) for path in ("/srv/music", "/srv/music/jazz", "/srv", "/")]
        free = [await try_lock(url, path) for path in ("/srv/musical", "/srv/films/music", "/home")]
        on_other_node = await try_lock(url, "/srv/music", node="two")
    afterwards = await try_lock(url, "/srv/music")

    expected = ("/srv/music is", "/srv/music is", "a folder in /srv is", "a folder in / is")
    watcher = f"being watched by `soulspot watch (pid {os.getpid()}) on one`"
    assert all(refusal.startswith(f"{what} {watcher}") for refusal, what in zip(refused, expected, strict=True))
    assert [*free, on_other_node, afterwards] == [""] * 5


async def test_a_schema_change_excludes_all_other_writers(url: str) -> None:
    async with Database(url) as one, Database(url) as two, Database(url) as admin, AsyncExitStack() as stack:
        await stack.enter_async_context(owning(one, "/a", node="one"))
        await stack.enter_async_context(owning(two, "/b", node="two"))

        with pytest.raises(LockHeldError, match=r"on one`.*on two`: stop that first"):
            await schema.downgrade(admin, "-1")

        assert await schema.current_revision(admin) == schema.REVISION


async def test_a_watcher_that_starts_during_an_upgrade_waits_for_its_end(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with Database(url) as admin, Database(url) as database:
        async with admin.backend.lock_catalogue("db upgrade"):
            starting = asyncio.create_task(owning(database, "/a").__aenter__())
            await until_true(lambda: "waiting for `soulspot db upgrade (pid" in caplog.text)
            was_waiting = not starting.done()
        await asyncio.wait_for(starting, 10)

    assert was_waiting


async def test_of_ten_migrating_processes_one_runs_and_the_rest_wait(
    postgres_server: Server, empty_database: str
) -> None:
    url = postgres_server.socket_url(empty_database)

    async def start() -> str | None:
        async with Database(url) as database:
            await schema.bring_up_to_date(database)
            return await schema.current_revision(database)

    assert await asyncio.gather(*(start() for _number in range(10))) == [schema.REVISION] * 10


async def test_one_database_holds_several_catalogues_one_in_each_schema(
    postgres_server: Server, empty_database: str
) -> None:
    urls = []
    for name in ("first", "second"):
        role = f"{name}_{empty_database}"
        postgres_server.run(f"CREATE ROLE {role} LOGIN")
        postgres_server.run(f"CREATE SCHEMA {name} AUTHORIZATION {role}", empty_database)
        postgres_server.run(f"ALTER ROLE {role} SET search_path = {name}")
        urls.append(postgres_server.socket_url(empty_database).replace("soulspot@", f"{role}@"))
        migrate(urls[-1])

    async with Database(urls[0]) as database, AsyncExitStack() as stack:
        await stack.enter_async_context(owning(database, "/srv/music"))
        refused = [bool(await try_lock(url, "/srv/music")) for url in urls]
        async with Database(urls[1]) as other:
            writers = [await each.writers([]) for each in (database, other)]
            async with other.backend.lock_catalogue("db upgrade"):
                pass

    assert refused == [True, False]
    assert [len(each) for each in writers] == [1, 0]


async def test_a_folder_lock_is_regained_after_its_connection_broke(
    postgres_server: Server, postgres_catalogue: str, proxy: TcpProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("soulspot.infrastructure.persistence.postgresql.advisory_locks.CHECK_INTERVAL", 0.05)
    held = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ExclusiveLock' AND granted"
    async with Database(postgres_server.tcp_url(postgres_catalogue, proxy.port)) as database, AsyncExitStack() as stack:
        await stack.enter_async_context(owning(database, "/srv/music"))
        with postgres_server.connect(postgres_catalogue) as connection:
            [before] = connection.execute(held).fetchall()

            proxy.break_client_side()

            await until_true(lambda: connection.execute(held).fetchall() not in ([before], []))
            backends = "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'soulspot watch%'"
            assert before not in connection.execute(backends).fetchall()


def test_status_names_each_writer_and_its_folders(postgres_soulspot: PostgresSoulspot) -> None:
    daemon = postgres_soulspot.watch()

    status = json.loads(postgres_soulspot.run("status", "--json").stdout)
    shown = postgres_soulspot.run("status").stdout

    [writer] = status["writers"]
    location = {"node": socket.gethostname(), "path": str(postgres_soulspot.music)}
    assert (writer["pid"], writer["folders"]) == (daemon.pid, [location])
    assert writer["since"] is not None
    assert status["health"] == "ok"
    assert f"writer    soulspot watch (pid {daemon.pid}) on {location['node']}, since " in shown
    assert f"\n          {location['path']} of {location['node']}\n" in shown


def test_commands_that_change_a_watched_folder_are_refused(
    postgres_soulspot: PostgresSoulspot,
) -> None:
    watched = postgres_soulspot.music
    (watched / "broken.mp3").write_bytes(b"no audio at all" * 100)
    write_song(watched / "song.mp3")
    other = watched.with_name("other")
    other.mkdir()
    (other / "broken.mp3").write_bytes(b"no audio at all" * 200)
    assert postgres_soulspot.run("scan", str(other)).returncode == 0
    daemon = postgres_soulspot.watch()
    until(lambda: postgres_soulspot.actions("track_added") and postgres_soulspot.actions("file_failed") == 2)
    (watched / "song.mp3").unlink()
    postgres_soulspot.change("UPDATE files SET status = 'missing', missing_since = now() - interval '9 days'"
                             " WHERE path = 'song.mp3'")  # fmt: skip

    by_daemon = postgres_soulspot.run("failures", "retry", "--all")
    commands = [("db", "downgrade"), ("purge", "--older-than", "7d", "--yes", "1")]
    refused = [postgres_soulspot.run(*each) for each in commands]
    allowed = postgres_soulspot.run("failures", "retry", str(other))

    assert [each.returncode for each in refused] == [75] * 2, [each.stderr for each in refused]
    assert all(f"(pid {daemon.pid})" in each.stderr for each in refused)
    assert allowed.returncode == 0, allowed.stderr
    assert "the daemon reads them again now" in by_daemon.stdout, by_daemon.stderr
    assert postgres_soulspot.actions("file_retried") == 2
    assert postgres_soulspot.actions("track_purged") == 0


@pytest.fixture
def proxy(postgres_server: Server) -> Iterator[TcpProxy]:
    new_proxy = TcpProxy(postgres_server.port)
    yield new_proxy
    new_proxy.close()
