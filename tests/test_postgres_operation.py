"""Runs the commands of docs/scaling.md verbatim: roles and their grants, backup and restore."""

import os
import re
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.conftest import write_song
from tests.support.postgres_server import PostgresSoulspot, Server, server_programs
from tests.test_documents import HERE, marked

pytestmark = pytest.mark.postgresql

PAGE = "docs/scaling.md"
TABLES = ("artists", "albums", "tracks", "track_artists", "folders", "files", "audit_log", "alembic_version")


def sql(name: str) -> str:
    found = re.search(r"```sql\n(.*?)```", marked(PAGE, name), re.DOTALL)
    assert found is not None
    return found[1]


def backup_commands() -> list[str]:
    section = (HERE / PAGE).read_text().partition("## Backup")[2]
    return re.findall(r"```sh\n(.*?)\n```", section)[:2]


@pytest.fixture
def shared(tmp_path: Path, postgres_server: Server) -> Iterator[PostgresSoulspot]:
    """Yield a catalogue created as the page describes, with one role for each kind of user."""
    name = f"test_{uuid.uuid4().hex}"
    for statement in sql("roles").replace("DATABASE soulspot ", f"DATABASE {name} ").split(";\n")[:-1]:
        postgres_server.run(statement)
    with postgres_server.connect(name, "soulspot_owner") as connection:
        connection.execute(sql("grants").encode())
    yield PostgresSoulspot(tmp_path, postgres_server, name)
    postgres_server.run(f"DROP DATABASE {name} WITH (FORCE)")
    for role in ("owner", "watcher", "reader"):
        postgres_server.run(f"DROP ROLE soulspot_{role}")


def as_role(soulspot: PostgresSoulspot, role: str) -> None:
    url = soulspot.server.socket_url(soulspot.name)
    soulspot.environment["SOULSPOT_DATABASE__URL"] = url.replace("soulspot@", f"soulspot_{role}@")


def test_a_watcher_needs_only_its_grants_and_not_the_schema_role(shared: PostgresSoulspot) -> None:
    as_role(shared, "watcher")
    shared.environment["SOULSPOT_DATABASE__UPGRADE"] = "false"
    song = write_song(shared.music / "a.mp3", title="A", artist="One", album="Album")
    write_song(shared.music / "b.mp3", title="B", artist="Two")
    (shared.music / "broken.mp3").write_bytes(b"no audio at all" * 100)

    too_early = shared.run("scan", str(shared.music))
    as_role(shared, "owner")
    upgraded = shared.run("db", "upgrade")
    as_role(shared, "watcher")
    shared.scan()
    song.rename(shared.music / "c.mp3")
    (shared.music / "b.mp3").unlink()
    shared.scan("--confirm-missing")
    forbidden = shared.run("db", "partition")
    as_role(shared, "owner")
    parted = shared.run("db", "partition")
    as_role(shared, "watcher")
    write_song(shared.music / "d.mp3", title="D", artist="Three")
    shared.scan()

    assert too_early.returncode == 78
    assert upgraded.returncode == 0, upgraded.stderr
    assert shared.tracks() == {("c.mp3", "A"), ("d.mp3", "D")}
    assert shared.actions("track_missing") == 1
    assert forbidden.returncode == 78
    assert "must be owner" in forbidden.stderr
    assert parted.returncode == 0, parted.stderr
    assert shared.run("db", "check").returncode == 0


def test_a_reader_role_can_read_but_not_write(shared: PostgresSoulspot) -> None:
    as_role(shared, "owner")
    write_song(shared.music / "a.mp3", title="A", artist="One", album="Album")
    shared.scan()
    as_role(shared, "reader")

    answers = [shared.run(question) for question in ("status", "tracks", "artists", "albums", "audit")]
    write_song(shared.music / "b.mp3", title="B")
    written = shared.run("scan", str(shared.music))

    assert [answer.args for answer in answers if answer.returncode] == []
    assert "One" in answers[1].stdout
    assert written.returncode != 0
    assert len(shared.tracks()) == 1


@pytest.mark.parametrize("in_parts", [False, True])
def test_a_restored_dump_is_the_same_catalogue_and_works(
    postgres_soulspot: PostgresSoulspot, tmp_path: Path, in_parts: bool
) -> None:
    for number in range(5):
        write_song(postgres_soulspot.music / f"{number}.mp3", title=f"T{number}", artist=f"A{number}", album="Ä")
    postgres_soulspot.scan()
    if in_parts:
        assert postgres_soulspot.run("db", "partition", "--rows", "5").returncode == 0
    dump, restore = (line.replace(" soulspot ", f" {postgres_soulspot.name} ") for line in backup_commands())
    server = {"PGHOST": str(postgres_soulspot.server.place), "PGPORT": str(postgres_soulspot.server.port)}
    path = f"{server_programs()}:{os.environ['PATH']}"
    environment = os.environ | server | {"PATH": path}

    def run(line: str, user: str) -> None:
        subprocess.run(["bash", "-euc", line], env=environment | {"PGUSER": user}, cwd=tmp_path, check=True)

    def everything() -> dict[str, set[str]]:
        return {table: {str(row) for row in postgres_soulspot.rows(f"SELECT * FROM {table}")} for table in TABLES}

    before = everything()
    run(dump, "soulspot")
    write_song(postgres_soulspot.music / "late.mp3", title="Late")
    postgres_soulspot.scan()
    run(restore, postgres_soulspot.server.superuser)

    assert everything() == before
    assert postgres_soulspot.run("db", "check").returncode == 0
    postgres_soulspot.scan()
    assert len(postgres_soulspot.tracks()) == 6
