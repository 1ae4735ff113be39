"""A network outage and a failover to another server: ingest pauses, reports it and continues, with nothing lost."""

import os
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.conftest import until, write_song
from tests.support.postgres_server import PostgresSoulspot, Server, new_server, server_programs
from tests.test_postgres_faults import add_songs, assert_whole

from soulspot.infrastructure.persistence.postgresql.engine import CONNECT_LIMIT, LINK_LIMIT

pytestmark = pytest.mark.postgresql


class Island:
    """A network namespace for soulspot, with one link to the namespace of the server."""

    def __init__(self) -> None:
        number = os.getpid() % 16000
        self.name, self._plug = f"soulspot-{number}", f"ss{number}"
        net = f"10.213.{number // 64}.{number % 64 * 4}"
        first, last = net.rpartition(".")[::2]
        self.server, own = f"{first}.{int(last) + 1}", f"{first}.{int(last) + 2}"
        self._ip("netns", "add", self.name)
        self._ip("link", "add", self._plug, "type", "veth", "peer", "name", "cable", "netns", self.name)
        self._ip("address", "add", f"{self.server}/30", "dev", self._plug)
        self._ip("-netns", self.name, "address", "add", f"{own}/30", "dev", "cable")
        self._ip("-netns", self.name, "link", "set", "cable", "up")
        self.mend()

    def cut(self) -> None:
        """Drop every packet silently, in both directions."""
        self._ip("link", "set", self._plug, "down")

    def mend(self) -> None:
        self._ip("link", "set", self._plug, "up")

    def close(self) -> None:
        self._ip("netns", "delete", self.name)

    @staticmethod
    def _ip(*arguments: str) -> None:
        subprocess.run(["ip", *arguments], check=True, capture_output=True)


@pytest.fixture
def island() -> Iterator[Island]:
    if os.geteuid() != 0:
        pytest.skip("a network namespace takes root")
    new_island = Island()
    yield new_island
    new_island.close()


@pytest.fixture(scope="module")
def primary() -> Iterator[Server]:
    server = new_server(listen_addresses="*", synchronous_commit="on")
    yield server
    server.close()


@pytest.fixture
def over_tcp(tmp_path: Path, primary: Server) -> Iterator[PostgresSoulspot]:
    name = f"over_tcp_{uuid.uuid4().hex}"  # dropped only with the server: half-open connections keep it in use
    primary.run(f"CREATE DATABASE {name} OWNER soulspot TEMPLATE catalogue")
    command = PostgresSoulspot(tmp_path, primary, name)
    yield command
    command.kill()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """Yield the socket on which a service manager receives notifications."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "notify"))
        receiver.setblocking(False)
        yield receiver


def has_received(manager: socket.socket, words: str) -> bool:
    while True:
        try:
            if words in manager.recv(4096).decode():
                return True
        except BlockingIOError:
            return False


@pytest.mark.root
def test_a_network_outage_loses_no_file(over_tcp: PostgresSoulspot, island: Island, manager: socket.socket) -> None:
    over_tcp.command = ["ip", "netns", "exec", island.name, *over_tcp.command]
    over_tcp.environment["SOULSPOT_DATABASE__URL"] = over_tcp.server.tcp_url(over_tcp.name, host=island.server)
    add_songs(over_tcp.music, 400)
    daemon = over_tcp.watch(NOTIFY_SOCKET=manager.getsockname())
    until(lambda: over_tcp.rows("SELECT 1 FROM tracks"))

    island.cut()
    began = time.monotonic()
    write_song(over_tcp.music / "late.mp3", title="Late", artist="Artist 0", album="Album 0", albumartist="Artist 0")
    until(lambda: has_received(manager, "STATUS=paused: the database refuses"), LINK_LIMIT + CONNECT_LIMIT + 15)
    noticed = time.monotonic() - began
    locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted AND mode = 'ExclusiveLock'"
    until(lambda: over_tcp.rows(locks) == [(0,)], LINK_LIMIT + 15)  # the server has noticed too
    until(lambda: "the database refuses" in over_tcp.log.read_text())
    island.mend()

    until(lambda: len(over_tcp.tracks()) == 401, 60)
    assert_whole(over_tcp, 401)
    assert noticed < LINK_LIMIT + CONNECT_LIMIT + 5
    assert "the database answers again, after" in over_tcp.log.read_text()
    until(lambda: over_tcp.rows(locks) == [(1,)], CONNECT_LIMIT + 15)
    island.cut()
    daemon.send_signal(signal.SIGTERM)
    assert daemon.wait(timeout=30) == 0  # it can be stopped during the outage
    island.mend()


def test_the_watcher_switches_to_a_promoted_standby(over_tcp: PostgresSoulspot, manager: socket.socket) -> None:
    programs = server_programs()
    assert programs is not None
    first = over_tcp.server
    second = Server(programs, first)
    try:
        second.start()
        first.run("ALTER SYSTEM SET synchronous_standby_names = '*'")  # every commit is on both servers
        first.run("SELECT pg_reload_conf()")
        hosts = f"?host=127.0.0.1:{first.port}&host=127.0.0.1:{second.port}&target_session_attrs=primary"
        both = first.tcp_url(over_tcp.name).replace(f"127.0.0.1:{first.port}", "") + hosts
        over_tcp.environment["SOULSPOT_DATABASE__URL"] = both
        add_songs(over_tcp.music, 300)
        over_tcp.watch(NOTIFY_SOCKET=manager.getsockname())
        until(lambda: over_tcp.rows("SELECT 1 FROM tracks"))

        first.stop("immediate")
        until(lambda: has_received(manager, "STATUS=paused: the database refuses"))
        second.run("SELECT pg_promote()")
        over_tcp.server = second

        until(lambda: len(over_tcp.tracks()) == 300, 60)
        assert_whole(over_tcp, 300)
        assert over_tcp.run("status").returncode == 0
        assert over_tcp.run("db", "downgrade").returncode == 75  # the daemon took the lock on the new primary
    finally:
        over_tcp.kill()
        second.close()
        over_tcp.server = first
        first.start()
        first.run("ALTER SYSTEM RESET synchronous_standby_names")
        first.run("SELECT pg_reload_conf()")


def test_the_watcher_reconnects_when_its_server_becomes_read_only(over_tcp: PostgresSoulspot) -> None:
    add_songs(over_tcp.music, 20)
    over_tcp.server.run("ALTER ROLE soulspot SET default_transaction_read_only = on")
    try:
        over_tcp.start_watching()
        until(lambda: "the database refuses" in over_tcp.log.read_text())
    finally:
        over_tcp.server.run("ALTER ROLE soulspot RESET default_transaction_read_only")

    until(lambda: len(over_tcp.tracks()) == 20)
    assert_whole(over_tcp, 20)
