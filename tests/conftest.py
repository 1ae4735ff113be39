"""What all tests share: songs, catalogues, and the installed command run as a process."""

import asyncio
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import mutagen
import pytest
import pytest_timeout
from tests.support import prefork
from tests.support.deadlines import Deadline, load_factor
from tests.support.tagged_catalogue import DATABASES, Catalogue
from tests.support.tmux_terminal import Terminal

from soulspot.infrastructure.filesystem import FileSystem
from soulspot.infrastructure.persistence.database import Database
from soulspot.infrastructure.persistence.schema import bring_up_to_date
from soulspot.ingest.catalogue.folder_service import FolderService
from soulspot.ingest.catalogue.service import IngestService
from soulspot.ingest.disk.walker import Root

pytest_plugins = [
    "tests.support.browser",
    "tests.support.in_process",
    "tests.support.postgres_server",
    "tests.support.xdist_groups",
]

AUDIO = Path(__file__).parent / "audio"
SHARED = Path(__file__).parents[2] / "shared"


def write_song(path: Path, template: str = "", **tags: str | list[str]) -> Path:
    """Copy a template and tag it, under mutagen's easy names, which are the same in every format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".part")
    shutil.copyfile(AUDIO / f"tone.{template or path.suffix[1:]}", unfinished)
    if tags:
        song = mutagen.File(unfinished, easy=True)
        if song.tags is None:
            song.add_tags()
        for name, value in tags.items():
            song[name] = value
        song.save()
    unfinished.rename(path)
    return path


@pytest.hookimpl(tryfirst=True)
def pytest_timeout_set_timer(item: pytest.Item, settings: Any) -> object:
    """Give each test more time on a busy machine."""
    longer = settings._replace(timeout=settings.timeout * load_factor())
    return pytest_timeout.pytest_timeout_set_timer(item, longer)


class Soulspot:
    """The installed command on a catalogue of its own."""

    def __init__(self, place: Path) -> None:
        self.music = place / "music"
        self.music.mkdir()
        self.database = place / "state" / "soulspot.db"
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("SOULSPOT_")}
        self.environment["SOULSPOT_DATABASE__URL"] = f"sqlite+aiosqlite:///{self.database}"
        self.command = [sys.executable, "-m", "soulspot"]
        self.log = place / "log"
        self.readers: dict[str, str] = {"SOULSPOT_TAGS__WORKERS": "1"}
        """One reader: for the few files of most tests, to start another takes longer than to read them."""
        self.running: list[subprocess.Popen[bytes]] = []

    def run(self, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
        command = [*self.command, *arguments]
        with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
            process = prefork.start(command, self.environment | settings, output, errors)
            try:
                code = process.wait(120)
            finally:
                process.kill()
            texts = [file.read() for file in (output, errors) if not file.seek(0)]
        return subprocess.CompletedProcess(command, code, *texts)

    def scan(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        result = self.run("scan", str(self.music), *arguments, **self.readers)
        assert result.returncode == 0, result.stderr
        return result

    def start_watching(self, *, folders: bool = True, **settings: str) -> subprocess.Popen[bytes]:
        """Start the daemon without waiting until it watches; without `folders`, on those of its settings."""
        command = [*self.command, "watch", *([str(self.music)] if folders else [])]
        with self.log.open("ab") as log:
            process = prefork.start(command, self.environment | self.readers | settings, stderr=log)
        self.running.append(process)
        return process

    def watch(self, **settings: str) -> subprocess.Popen[bytes]:
        already = self.log.read_bytes().count(b"watching") if self.log.exists() else 0
        process = self.start_watching(folders=True, **settings)
        until(lambda: process.poll() is not None or self.log.read_bytes().count(b"watching") > already)
        assert process.poll() is None, self.log.read_text()
        return process

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        if not self.database.exists():
            return []
        with sqlite3.connect(f"file:{self.database}?mode=ro", uri=True) as connection:
            found = connection.execute(query).fetchall()
        connection.close()
        return found

    def change(self, statement: str) -> None:
        """Change the catalogue by SQL."""
        connection = sqlite3.connect(self.database)
        with connection:
            connection.execute(statement)
        connection.close()

    def tracks(self) -> set[tuple[str, str]]:
        """Return path and title of each catalogued file."""
        query = "SELECT f.path, t.title FROM files f JOIN tracks t ON t.id = f.track_id WHERE f.status = 'catalogued'"
        return set(self.rows(query))

    def actions(self, action: str) -> int:
        return int(self.rows(f"SELECT count(*) FROM audit_log WHERE action = '{action}'")[0][0])

    def check(self) -> str:
        """Return "ok" when the database finds no damage in itself."""
        return str(self.rows("PRAGMA integrity_check")[0][0])

    def dump(self) -> list[str]:
        connection = sqlite3.connect(self.database)
        lines = list(connection.iterdump())
        connection.close()
        return lines

    def kill(self) -> None:
        for process in self.running:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
            process.wait()


def until(condition: Callable[[], object], seconds: float = 30.0) -> None:
    """Wait until a condition holds; fail when it does not hold in time. A busy machine gets more time."""
    deadline = Deadline(seconds)
    began = time.monotonic()
    while not condition():
        assert not deadline.has_passed(), "waited in vain"
        # A condition may start a process: leave half of the time to everything else.
        time.sleep(max(0.02, time.monotonic() - began))
        began = time.monotonic()


both = pytest.mark.parametrize("soulspot", DATABASES, indirect=True)
"""Runs a test on SQLite and on PostgreSQL."""
on_sqlite = pytest.mark.parametrize("catalogue_url", ["sqlite"], indirect=True)
"""Runs a test on SQLite only: it is about SQLite, the database does not matter to it, or it takes long."""


@pytest.fixture
def soulspot(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Soulspot]:
    """Return the command with an empty, migrated catalogue: to copy one is faster than to migrate."""
    if getattr(request, "param", "sqlite") == "sqlite":
        command = Soulspot(tmp_path)
        command.database.parent.mkdir()
        shutil.copyfile(request.getfixturevalue("empty_catalogue"), command.database)
    else:
        command = request.getfixturevalue("postgres_soulspot")
    yield command
    command.kill()


@pytest.fixture
def new_soulspot(tmp_path: Path) -> Iterator[Soulspot]:
    """Return the command without a catalogue, as before its first start."""
    command = Soulspot(tmp_path)
    yield command
    command.kill()


@pytest.fixture
def corpus() -> Path:
    if not (SHARED / "corpus").is_dir():
        pytest.skip("the corpus of real files is not beside this checkout")
    return SHARED / "corpus"


@pytest.fixture
def make_library() -> Path:
    tool = SHARED / "tools" / "make_library.py"
    if not tool.exists() or shutil.which("ffmpeg") is None:
        pytest.skip("ffmpeg or the library writer beside this checkout is missing")
    return tool


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    if shutil.which("tmux") is None:
        pytest.skip("tmux is not installed")
    with Terminal.opened(tmp_path) as terminal:
        yield terminal


@pytest.fixture
def monitor() -> None:
    """Skip the test where Prometheus' own programs are not installed."""
    for program in ("promtool", "prometheus", "prometheus-node-exporter"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} (Debian's packages prometheus and prometheus-node-exporter) is not installed")


@pytest.fixture(scope="session")
def empty_catalogue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a SQLite database as a first start leaves it."""
    file = tmp_path_factory.mktemp("empty") / "catalogue.db"

    async def make() -> None:
        async with Database(f"sqlite+aiosqlite:///{file}") as database:
            await bring_up_to_date(database)

    with ThreadPoolExecutor(1) as thread:  # a browser's event loop may be running in this thread
        thread.submit(lambda: asyncio.run(make())).result()
    return file


@pytest.fixture(params=DATABASES)
def catalogue_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the URL of a catalogue as a first start leaves it, on SQLite and on PostgreSQL."""
    if request.param == "postgresql":
        server = request.getfixturevalue("postgres_server")
        return str(server.socket_url(request.getfixturevalue("postgres_catalogue")))
    shutil.copyfile(request.getfixturevalue("empty_catalogue"), tmp_path / "catalogue.db")
    return f"sqlite+aiosqlite:///{tmp_path}/catalogue.db"


@pytest.fixture
async def catalogue(catalogue_url: str) -> AsyncIterator[Catalogue]:
    async with Database(catalogue_url) as database:
        service = IngestService(database, run="run")
        folder = await FolderService(database, run="run", node="node").adopt_folder(
            "/music", FileSystem("ext4", "uuid", "/")
        )
        yield Catalogue(database, service, Root(folder.id, "/music"))
