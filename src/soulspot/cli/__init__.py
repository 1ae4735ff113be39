"""The command line: one small module a group of commands, and the only place that prints.

Only typer is imported here. What a command needs is imported when it runs, so that `soulspot --version` and the shell's
completion answer at once.
"""

import sys
from pathlib import Path
from typing import Annotated

import typer

from soulspot import __version__
from soulspot.errors import SoulspotError

app = typer.Typer(
    name="soulspot",
    help="Watches music folders and keeps a true, accountable catalogue of them.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

ConfigOption = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="Read this TOML file instead of the usual places.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Words = Annotated[list[str] | None, typer.Argument(metavar="[WORD]...", help="Words that all have to occur.")]
Folders = Annotated[
    list[Path] | None, typer.Argument(metavar="[FOLDER]...", help="Music folders, instead of those in the settings.")
]
Limit = Annotated[int | None, typer.Option("--limit", "-n", min=1, help="Print at most so many.")]


def run() -> None:
    """Run the command line; an error that a person can mend is one line, with its own exit code."""
    try:
        app()
    except SoulspotError as error:
        print(f"soulspot: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"soulspot {__version__}")
        raise typer.Exit


@app.callback()
def main(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Watches music folders and keeps a true, accountable catalogue of them."""


@app.command()
def watch(folders: Folders = None, config: ConfigOption = None) -> None:
    """Keep the catalogue true to the folders, from now until stopped. A line for each file."""
    from soulspot.cli import work

    work.watch(folders or [], config)


@app.command()
def scan(
    folders: Folders = None,
    config: ConfigOption = None,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what there is to do, and do none of it.")] = False,
    confirm_missing: Annotated[
        bool, typer.Option("--confirm-missing", help="Believe it when most of a folder is gone.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Bring the catalogue up to date with the folders, once."""
    from soulspot.cli import work

    work.scan(folders or [], config, dry_run=dry_run, confirm_missing=confirm_missing, as_json=as_json)


@app.command()
def status(config: ConfigOption = None, *, as_json: JsonOption = False) -> None:
    """Show each folder, how many files are catalogued, failed and missing, and who is writing."""
    from soulspot.cli import look

    look.status(config, as_json=as_json)


@app.command()
def tracks(
    words: Words = None, config: ConfigOption = None, limit: Limit = None, *, as_json: JsonOption = False
) -> None:
    """List the tracks whose title, artist or album hold every word."""
    from soulspot.cli import look

    look.tracks(words or [], config, limit=limit, as_json=as_json)


@app.command()
def artists(
    words: Words = None, config: ConfigOption = None, limit: Limit = None, *, as_json: JsonOption = False
) -> None:
    """List the artists whose name holds every word, with the number of their tracks."""
    from soulspot.cli import look

    look.artists(words or [], config, limit=limit, as_json=as_json)


@app.command()
def audit(
    config: ConfigOption = None,
    *,
    file: Annotated[
        str | None, typer.Option("--file", metavar="PATH", help="A file, or a folder and all in it.")
    ] = None,
    artist: Annotated[str | None, typer.Option("--artist", metavar="NAME", help="An artist and its tracks.")] = None,
    action: Annotated[str | None, typer.Option("--action", help="Such as track_added or file_failed.")] = None,
    since: Annotated[
        str | None,
        typer.Option("--since", metavar="WHEN", help="A time (2026-11-23 or 2026-11-23T18:00), or 90m, 24h, 7d."),
    ] = None,
    limit: Limit = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what happens from now.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show what happened, oldest first: to a file, to an artist, of a kind, since a time."""
    from soulspot.cli import look

    question = look.AuditQuestion(file=file, artist=artist, action=action, since=since, limit=limit)
    look.audit(question, config, follow=follow, as_json=as_json)


database = typer.Typer(name="db", help="Look after the database.", no_args_is_help=True)
app.add_typer(database)


@database.command("copy")
def db_copy(
    source: Annotated[str, typer.Argument(metavar="FROM", help="A database's URL, or the file of one in SQLite.")],
    target: Annotated[str, typer.Argument(metavar="TO", help="The same, of one that is new or empty.")],
) -> None:
    """Copy a catalogue with its history and its ids, between SQLite and PostgreSQL; then compare the two."""
    from soulspot.cli.db_copy import copy

    copy(source, target)
