"""Arguments and help of `soulspot db`."""

from pathlib import Path
from typing import Annotated

import typer

from soulspot.cli import actions
from soulspot.cli.arguments.shared import ConfigOption, JsonOption
from soulspot.cli.output import time_spans


def db_upgrade(config: ConfigOption = None) -> None:
    """Upgrade the schema to this version of soulspot; an SQLite file is backed up first."""
    actions.database.upgrade(config)


def db_downgrade(
    revision: Annotated[
        str, typer.Argument(metavar="REVISION", help="The target revision; -1 is one step back (write it after `--`).")
    ] = "-1",
    config: ConfigOption = None,
) -> None:
    """Downgrade the schema for an older soulspot; an SQLite file is backed up first."""
    actions.database.downgrade(revision, config)


def db_copy(
    source: Annotated[str, typer.Argument(metavar="FROM", help="The URL of a database, or an SQLite file.")],
    target: Annotated[str, typer.Argument(metavar="TO", help="The same, for a new or empty database.")],
) -> None:
    """Copy a catalogue with history and ids between SQLite and PostgreSQL, then compare the two."""
    actions.db_copy.copy(source, target)


def db_current(config: ConfigOption = None, *, as_json: JsonOption = False) -> None:
    """Show the revision of the schema and the one that this soulspot needs."""
    actions.database.current(config, as_json=as_json)


def db_check(config: ConfigOption = None, *, as_json: JsonOption = False) -> None:
    """Check the database for damage and inconsistencies; exit 1 if there are any. Safe while the daemon runs."""
    actions.database.check(config, as_json=as_json)


def db_backup(
    config: ConfigOption = None,
    *,
    to: Annotated[
        Path | None,
        typer.Option("--to", metavar="FOLDER", help="Where to write; by default `backups` beside the catalogue."),
    ] = None,
    keep: Annotated[int, typer.Option("--keep", min=1, help="Keep this many backups and delete older ones.")] = 7,
) -> None:
    """Back up the catalogue while it is in use; the backup is checked, and only its owner can read it."""
    actions.database.back_up(to, keep, config)


def db_restore(
    source: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="A backup; without it, list the backups.")
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Restore a backup; the current catalogue is kept beside it. Stop the daemon first."""
    actions.database.restore(source, config)


def db_trim(
    config: ConfigOption = None,
    *,
    older_than: Annotated[
        str | None,
        typer.Option("--older-than", metavar="SPAN", help="90d, 52w; by default the setting audit.keep_days."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show how many entries would be removed, but remove none.")
    ] = False,
) -> None:
    """Remove old history; the first and last entry of everything that exists stay. Stop the daemon first."""
    span = time_spans.span(older_than, "--older-than") if older_than is not None else None
    actions.database.trim(config, older_than=span, dry_run=dry_run)


def db_vacuum(config: ConfigOption = None) -> None:
    """Rebuild the database file to reclaim free space (VACUUM). Stop the daemon first."""
    actions.database.vacuum(config)


def db_partition(
    config: ConfigOption = None,
    *,
    rows: Annotated[int, typer.Option("--rows", min=1, help="Entries in each partition.")] = 10_000_000,
    undo: Annotated[bool, typer.Option("--undo", help="Merge the partitions back into one table.")] = False,
) -> None:
    """Partition a large history on PostgreSQL by entry number; repeat to add partitions. Safe while daemons run."""
    actions.database.partition(rows, config, undo=undo)
