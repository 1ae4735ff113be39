"""Partitions of the audit log: created and undone without loss, invisible to writers and readers."""

import pytest
from alembic import command
from tests.conftest import Soulspot, until, write_song
from tests.support.postgres_server import PostgresSoulspot
from tests.test_persistence import alembic_config

pytestmark = pytest.mark.postgresql

LOG = "SELECT sequence, at, action, entity_id, path, changes::text, run FROM audit_log ORDER BY sequence"
TABLES = "SELECT relname, relkind FROM pg_class WHERE relname LIKE 'audit_log%' AND relkind IN ('r', 'p') ORDER BY 1"
INDEXES = "SELECT indexname, regexp_replace(indexdef, 'ON ONLY', 'ON') FROM pg_indexes WHERE tablename = 'audit_log'"


def partition(soulspot: PostgresSoulspot, *arguments: str) -> str:
    result = soulspot.run("db", "partition", *arguments)
    assert result.returncode == 0, result.stderr
    return result.stdout


def add_songs(soulspot: PostgresSoulspot, first: int, count: int) -> None:
    for number in range(first, first + count):
        write_song(soulspot.music / f"{number}.mp3", title=f"T{number}", artist=f"A{number}")


def test_old_entries_stay_and_new_ones_go_to_partitions(postgres_soulspot: PostgresSoulspot) -> None:
    add_songs(postgres_soulspot, 0, 6)
    postgres_soulspot.scan()
    before, indexes = postgres_soulspot.rows(LOG), set(postgres_soulspot.rows(INDEXES))

    output = partition(postgres_soulspot, "--rows", "10")
    kept = postgres_soulspot.rows(LOG)
    add_songs(postgres_soulspot, 6, 20)
    postgres_soulspot.scan()

    assert output.startswith("audit_log_first: before 20, ")
    assert kept == before
    assert postgres_soulspot.actions("track_added") == 26
    numbers = [row[0] for row in postgres_soulspot.rows(LOG)]
    assert len(numbers) == len(set(numbers)) > 50
    assert postgres_soulspot.rows("SELECT count(*) FROM audit_log_first")[0][0] < 20
    assert postgres_soulspot.rows("SELECT count(*) FROM audit_log_from_20") == [(10,)]
    assert set(postgres_soulspot.rows(INDEXES)) == indexes
    assert "track_added" in postgres_soulspot.run("audit", "--file", str(postgres_soulspot.music / "25.mp3")).stdout


def test_entries_beyond_the_last_partition_are_reported_and_moved(postgres_soulspot: PostgresSoulspot) -> None:
    partition(postgres_soulspot, "--rows", "5")
    add_songs(postgres_soulspot, 0, 20)
    postgres_soulspot.scan()
    before = postgres_soulspot.rows(LOG)

    found = postgres_soulspot.run("db", "check")
    partition(postgres_soulspot, "--rows", "5")

    assert found.returncode == 1
    assert "`soulspot db partition` makes more" in found.stdout
    assert postgres_soulspot.run("db", "check").returncode == 0
    assert postgres_soulspot.rows("SELECT count(*) FROM audit_log_rest") == [(0,)]
    assert postgres_soulspot.rows(LOG) == before


def test_partitioning_can_be_undone(postgres_soulspot: PostgresSoulspot) -> None:
    add_songs(postgres_soulspot, 0, 3)
    postgres_soulspot.scan()
    tables, indexes = postgres_soulspot.rows(TABLES), set(postgres_soulspot.rows(INDEXES))
    partition(postgres_soulspot, "--rows", "5")
    add_songs(postgres_soulspot, 3, 10)
    postgres_soulspot.scan()
    before = postgres_soulspot.rows(LOG)

    output = partition(postgres_soulspot, "--undo")
    kept = postgres_soulspot.rows(LOG)
    add_songs(postgres_soulspot, 13, 1)
    postgres_soulspot.scan()

    assert output == "the history is one table again\n"
    assert kept == before
    assert postgres_soulspot.rows(TABLES) == tables
    assert set(postgres_soulspot.rows(INDEXES)) == indexes
    assert postgres_soulspot.actions("track_added") == 14
    assert partition(postgres_soulspot, "--undo") == "the history is one table already\n"


def test_views_grants_and_triggers_cover_later_entries(postgres_soulspot: PostgresSoulspot) -> None:
    postgres_soulspot.server.run(
        "SET ROLE soulspot; CREATE VIEW added AS SELECT entity_id FROM audit_log a WHERE a.action = 'track_added';"
        "CREATE TABLE copied (sequence bigint);"
        "CREATE FUNCTION copy_entry() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN INSERT INTO copied VALUES (NEW.sequence); RETURN NULL; END';"
        "CREATE TRIGGER copy_entry AFTER INSERT ON audit_log FOR EACH ROW EXECUTE FUNCTION copy_entry();"
        "GRANT SELECT ON audit_log TO PUBLIC",
        postgres_soulspot.name,
    )
    grants = "SELECT relacl::text FROM pg_class WHERE relname = 'audit_log'"
    granted = postgres_soulspot.rows(grants)

    for number, how in enumerate([("--rows", "5"), ("--undo",)]):
        partition(postgres_soulspot, *how)
        add_songs(postgres_soulspot, number, 1)
        postgres_soulspot.scan()

        assert len(postgres_soulspot.rows("SELECT * FROM added")) == number + 1
        assert postgres_soulspot.rows("SELECT count(*) FROM copied") == postgres_soulspot.rows(
            "SELECT count(*) FROM audit_log"
        )
        assert postgres_soulspot.rows(grants) == granted


def test_a_watcher_keeps_working_during_the_partitioning(postgres_soulspot: PostgresSoulspot) -> None:
    watcher = postgres_soulspot.watch()
    add_songs(postgres_soulspot, 0, 3)
    until(lambda: len(postgres_soulspot.tracks()) == 3)

    # The first partition ends at least a tenth of the rows ahead: more than the watcher writes meanwhile.
    for first, how in ((3, ("--rows", "1000")), (13, ("--rows", "1000")), (23, ("--undo",))):
        add_songs(postgres_soulspot, first, 10)
        partition(postgres_soulspot, *how)
    until(lambda: len(postgres_soulspot.tracks()) == 33)

    assert watcher.poll() is None
    assert postgres_soulspot.actions("track_added") == 33


def test_migrations_run_both_ways_on_a_partitioned_catalogue(postgres_soulspot: PostgresSoulspot) -> None:
    partition(postgres_soulspot)
    config = alembic_config(postgres_soulspot.server.socket_url(postgres_soulspot.name))

    command.check(config)
    command.downgrade(config, "-1")
    command.upgrade(config, "head")

    command.check(config)
    assert postgres_soulspot.rows("SELECT count(*) FROM pg_inherits WHERE inhparent = 'audit_log'::regclass")[0][0] > 4
    command.downgrade(config, "base")
    assert postgres_soulspot.rows(TABLES) == []


def test_partitioning_is_refused_while_a_materialized_view_reads_the_log(postgres_soulspot: PostgresSoulspot) -> None:
    statement = "SET ROLE soulspot; CREATE MATERIALIZED VIEW busy AS SELECT count(*) FROM audit_log"
    postgres_soulspot.server.run(statement, postgres_soulspot.name)

    result = postgres_soulspot.run("db", "partition")

    assert result.returncode == 78
    assert "busy depends on the audit log: drop it first" in result.stderr
    assert postgres_soulspot.rows(TABLES) == [("audit_log", "r")]


@pytest.mark.usefixtures("postgres_server")
def test_sqlite_gets_an_error_that_names_the_alternative(soulspot: Soulspot) -> None:
    result = soulspot.run("db", "partition")

    assert result.returncode == 78
    assert "`db partition` needs PostgreSQL" in result.stderr
