"""A real PostgreSQL for the tests: one private server for the session, and a new catalogue in it for each test.

Each of pytest-xdist's workers starts a server when a test first needs it; the server ends with the worker, however that
ends. It listens on a unix socket, and on a port of the loopback interface, where it asks for a password.
"""

import getpass
import glob
import os
import pwd
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
import pytest
from alembic import command
from alembic.config import Config
from tests.conftest import Soulspot, until
from tests.support.deadlines import load_factor
from tests.support.http_endpoints import free_port
from tests.support.tagged_catalogue import plain

PASSWORD = "p%w@rd/:?#[ü]"
_TEMPLATE = "catalogue"
_SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "max_connections": "120",
    "shared_buffers": "64MB",
    "autovacuum": "off",
    "timezone": "Pacific/Auckland",  # no result may depend on it
    "password_encryption": "scram-sha-256",
}
_RULES = (
    "local all all trust\nlocal replication all trust\n"
    "host all all 127.0.0.1/32 scram-sha-256\nhost all all 10.213.0.0/16 scram-sha-256\n"
)


class Server:
    """One PostgreSQL server; `place` is its folder, which `close` removes."""

    def __init__(self, programs: Path, replica_of: "Server | None" = None, **settings: str) -> None:
        self._programs = programs
        self.place = Path(tempfile.mkdtemp(prefix="soulspot-pg-"))
        self._settings = _SETTINGS | settings
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()
        if os.getuid() == 0:  # the server refuses to run as root
            owner = pwd.getpwnam("postgres" if _is_user("postgres") else "nobody")
            os.chown(self.place, owner.pw_uid, owner.pw_gid)
            self._become = [f"--reuid={owner.pw_uid}", f"--regid={owner.pw_gid}", "--clear-groups"]
            self.superuser = owner.pw_name
        else:
            self._become, self.superuser = [], getpass.getuser()
        make = [str(programs / "initdb"), "--no-sync", "--encoding=UTF8", "--locale=C.UTF-8", "--auth=trust"]
        if replica_of is not None:
            where = [f"--host={replica_of.place}", f"--port={replica_of.port}", f"--username={replica_of.superuser}"]
            make = [str(programs / "pg_basebackup"), "--write-recovery-conf", "--checkpoint=fast", "--no-sync", *where]
        subprocess.run(self._as_owner(*make, f"--pgdata={self.place}/data"), check=True, capture_output=True)
        (self.place / "data" / "pg_hba.conf").write_text(_RULES)

    def start(self) -> None:
        settings = self._settings | {"port": str(self.port), "unix_socket_directories": str(self.place)}
        options = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
        with (self.place / "log").open("ab") as log:
            program = [str(self._programs / "postgres"), "-D", f"{self.place}/data", *options]
            self._process = subprocess.Popen(self._as_owner(*program), stdout=log, stderr=log)
        until(self._answers)

    def stop(self, how: str = "fast") -> None:
        """Stop the server as for a restart ("fast"), or as a crash does ("immediate")."""
        assert self._process is not None
        ctl = [str(self._programs / "pg_ctl"), "stop", "-D", f"{self.place}/data", "-m", how, "-w"]
        subprocess.run(self._as_owner(*ctl), check=True, capture_output=True)
        self._process.wait(timeout=30 * load_factor())
        self._process = None

    def close(self) -> None:
        if self._process is not None:
            self.stop("immediate")
        shutil.rmtree(self.place, ignore_errors=True)

    def connect(self, database: str = "postgres", user: str | None = None) -> psycopg.Connection[tuple[Any, ...]]:
        where: dict[str, Any] = {"host": str(self.place), "port": self.port, "dbname": database}
        return psycopg.connect(**where, user=user or self.superuser, autocommit=True)

    def run(self, statement: str, database: str = "postgres") -> None:
        with self.connect(database) as connection:
            connection.execute(statement.encode())

    def clone(self, name: str) -> None:
        """Create a migrated catalogue; to copy the files takes half as long as to log them."""
        with self.connect() as connection:
            quickly = " STRATEGY file_copy" if connection.info.server_version >= 150_000 else ""
            connection.execute(f"CREATE DATABASE {name} OWNER soulspot TEMPLATE {_TEMPLATE}{quickly}".encode())

    def socket_url(self, database: str) -> str:
        return f"postgresql+asyncpg://soulspot@/{database}?host={self.place}&port={self.port}"

    def tcp_url(self, database: str, port: int | None = None, host: str = "127.0.0.1") -> str:
        password = quote(PASSWORD, safe="")
        return f"postgresql+asyncpg://soulspot:{password}@{host}:{port or self.port}/{database}"

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self.place / "log").read_text()
        try:
            self.connect().close()
        except psycopg.OperationalError:
            return False
        return True

    def _as_owner(self, *arguments: str) -> list[str]:
        return ["setpriv", "--pdeathsig=INT", *self._become, *arguments]


class PostgresSoulspot(Soulspot):
    """The installed command on a catalogue in PostgreSQL."""

    def __init__(self, place: Path, server: Server, name: str) -> None:
        super().__init__(place)
        self.server, self.name = server, name
        self.environment["SOULSPOT_DATABASE__URL"] = server.socket_url(name)
        self.environment["STATE_DIRECTORY"] = str(place / "state")

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        with self.server.connect(self.name) as connection:
            return [tuple(map(plain, row)) for row in connection.execute(query.encode())]

    def change(self, statement: str) -> None:
        self.server.run(statement, self.name)

    def check(self) -> str:
        return "ok"  # a killed client cannot damage the server's files

    def dump(self) -> list[str]:
        tables = ("artists", "albums", "tracks", "track_artists", "folders", "files", "audit_log")
        return [str(row) for table in tables for row in self.rows(f"SELECT xmin::text, * FROM {table} ORDER BY 1, 2")]


def server_programs() -> Path | None:
    """Return the folder of PostgreSQL's newest server programs; on Debian they are not on the PATH."""
    found = [os.path.dirname(os.path.realpath(path)) for path in filter(None, [shutil.which("initdb")])]
    found += sorted(glob.glob("/usr/lib/postgresql/*/bin"), key=lambda path: float(path.split("/")[4]), reverse=True)
    return next((Path(path) for path in found if os.path.exists(f"{path}/initdb")), None)


def migrate(url: str) -> None:
    config = Config(Path(__file__).parents[2] / "alembic.ini")
    config.attributes.update(url=url, embedded=True)
    command.upgrade(config, "head")


def new_server(**settings: str) -> Server:
    """Start a server with an ordinary role `soulspot`, and a migrated catalogue that `clone` copies."""
    programs = server_programs()
    if programs is None:
        pytest.skip("PostgreSQL's server programs are not on this machine")
    server = Server(programs, None, **settings)
    try:
        server.start()
        server.run(f"CREATE ROLE soulspot LOGIN PASSWORD '{PASSWORD}'")
        server.run(f"CREATE DATABASE {_TEMPLATE} OWNER soulspot")
        migrate(server.socket_url(_TEMPLATE))
    except BaseException:
        server.close()
        raise
    return server


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Server]:
    server = new_server()
    yield server
    server.close()


@pytest.fixture
def empty_database(postgres_server: Server) -> str:
    """Return the name of a new, empty database."""
    name = f"test_{uuid.uuid4().hex}"
    postgres_server.run(f"CREATE DATABASE {name} OWNER soulspot")
    return name


@pytest.fixture
def postgres_catalogue(postgres_server: Server) -> Iterator[str]:
    """Return the name of a new, migrated catalogue."""
    name = f"test_{uuid.uuid4().hex}"
    postgres_server.clone(name)
    yield name
    postgres_server.run(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


@pytest.fixture
def postgres_soulspot(tmp_path: Path, postgres_server: Server, postgres_catalogue: str) -> Iterator[PostgresSoulspot]:
    place = tmp_path / "postgresql"
    place.mkdir()
    command = PostgresSoulspot(place, postgres_server, postgres_catalogue)
    yield command
    command.kill()


def _is_user(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True
