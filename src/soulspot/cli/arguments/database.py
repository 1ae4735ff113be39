"""Arguments and help of `soulspot db`."""

from pathlib import Path
from typing import Annotated

import typer

from soulspot.cli.arguments.shared import ConfigOption, JsonOption


def db_upgrade(config: ConfigOption = None) -> None:
    """Bring the schema up to date; an SQLite file is copied first."""
    from soulspot.cli.actions import database

    database.upgrade(config)


def db_downgrade(
    revision: Annotated[str, typer.Argument(metavar="REVISION", help="Or -1 for one step, after a `--`.")] = "-1",
    config: ConfigOption = None,
) -> None:
    """Take the schema back, for an older soulspot; an SQLite file is copied first."""
    from soulspot.cli.actions import database

    database.downgrade(revision, config)


def db_copy(
    source: Annotated[str, typer.Argument(metavar="FROM", help="A database's URL, or the file of one in SQLite.")],
    target: Annotated[str, typer.Argument(metavar="TO", help="The same, of one that is new or empty.")],
) -> None:
    """Copy a catalogue with its history and its ids, between SQLite and PostgreSQL; then compare the two."""
    from soulspot.cli.actions.db_copy import copy

    copy(source, target)


def db_current(config: ConfigOption = None, *, as_json: JsonOption = False) -> None:
    """Show the schema's revision, and the one that is needed."""
    from soulspot.cli.actions import database

    database.current(config, as_json=as_json)


def db_check(config: ConfigOption = None, *, as_json: JsonOption = False) -> None:
    """Look for damage and for broken promises; exit 1 where there is any. A running daemon is not disturbed."""
    from soulspot.cli.actions import database

    database.check(config, as_json=as_json)


def db_backup(
    config: ConfigOption = None,
    *,
    to: Annotated[
        Path | None, typer.Option("--to", metavar="FOLDER", help="Where to; else `backups` beside the catalogue.")
    ] = None,
    keep: Annotated[int, typer.Option("--keep", min=1, help="Keep so many, and delete older ones.")] = 7,
) -> None:
    """Copy the catalogue while it is in use; the copy is checked, and private."""
    from soulspot.cli.actions import database

    database.back_up(to, keep, config)


def db_restore(
    source: Annotated[Path | None, typer.Argument(metavar="[FILE]", help="A copy; without one, list them.")] = None,
    config: ConfigOption = None,
) -> None:
    """Put a copy in the place of the catalogue, which is kept beside it. Stop the daemon first."""
    from soulspot.cli.actions import database

    database.restore(source, config)


def db_trim(
    config: ConfigOption = None,
    *,
    older_than: Annotated[
        str | None, typer.Option("--older-than", metavar="SPAN", help="90d, 52w; else what audit.keep_days says.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say how many entries that would be.")] = False,
) -> None:
    """Remove old entries of the history; of all that is there, the first and the latest stay. Stop the daemon first."""
    from soulspot.cli.actions import database
    from soulspot.cli.output import time_spans

    span = time_spans.span(older_than, "--older-than") if older_than is not None else None
    database.trim(config, older_than=span, dry_run=dry_run)


def db_vacuum(config: ConfigOption = None) -> None:
    """Write the database anew, without the room that deleted rows have left. Stop the daemon first."""
    from soulspot.cli.actions import database

    database.vacuum(config)


def db_partition(
    config: ConfigOption = None,
    *,
    rows: Annotated[int, typer.Option("--rows", min=1, help="Entries of a part.")] = 10_000_000,
    undo: Annotated[bool, typer.Option("--undo", help="Make it one table again.")] = False,
) -> None:
    """Part a large history by its numbers, on PostgreSQL; again, to make more parts ahead. Watchers may run."""
    from soulspot.cli.actions import database

    database.partition(rows, config, undo=undo)
