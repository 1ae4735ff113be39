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


# What the catalogue holds, closely: albums, one track, failures.


@app.command()
def albums(
    words: Words = None,
    config: ConfigOption = None,
    limit: Limit = None,
    *,
    incomplete: Annotated[bool, typer.Option("--incomplete", help="Only those of which something is missing.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List the albums whose title or artist hold every word, with the tracks of each that are not there."""
    from soulspot.cli.albums import print_albums

    print_albums(words or [], config, incomplete=incomplete, limit=limit, as_json=as_json)


@app.command()
def track(
    asked: Annotated[str, typer.Argument(metavar="PATH|ID", help="A file, or the id of a track or file.")],
    config: ConfigOption = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Show everything that is known of one file: tags, credits, album, sound, history."""
    from soulspot.cli.track import show

    show(asked, config, as_json=as_json)


failures = typer.Typer(help="The files that could not be read: why, and what to do.", no_args_is_help=True)
app.add_typer(failures, name="failures")

Failed = Annotated[str | None, typer.Argument(metavar="[PATH]", help="A file, or a folder and all in it.")]
Code = Annotated[str | None, typer.Option("--code", metavar="CODE", help="Such as corrupt, empty or timeout.")]
OlderThan = Annotated[str | None, typer.Option("--older-than", metavar="WHEN", help="Last tried before: 7d, a date.")]
NewerThan = Annotated[str | None, typer.Option("--newer-than", metavar="WHEN", help="Last tried since: 24h, a date.")]
Ignored = Annotated[bool, typer.Option("--ignored", help="Of those that are ignored, instead of the others.")]
All = Annotated[bool, typer.Option("--all", help="All of them.")]


@failures.command("list")
def failures_list(  # noqa: PLR0917 - typer's, by name
    path: Failed = None,
    code: Code = None,
    older_than: OlderThan = None,
    newer_than: NewerThan = None,
    config: ConfigOption = None,
    limit: Limit = None,
    *,
    ignored: Ignored = False,
    as_json: JsonOption = False,
) -> None:
    """List the files that could not be read, with the reasons."""
    from soulspot.cli.failures import Asked, print_list

    asked = Asked(path, code, older_than, newer_than, ignored)
    print_list(asked, config, limit=limit, as_json=as_json)


@failures.command("show")
def failures_show(
    asked: Annotated[str, typer.Argument(metavar="PATH|ID", help="A file, or its id.")],
    config: ConfigOption = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Show why a file could not be read, what to do, and what happened to it."""
    from soulspot.cli.failures import show

    show(asked, config, as_json=as_json)


@failures.command("retry")
def failures_retry(
    path: Failed = None,
    code: Code = None,
    older_than: OlderThan = None,
    newer_than: NewerThan = None,
    config: ConfigOption = None,
    *,
    ignored: Ignored = False,
    of_all: All = False,
    as_json: JsonOption = False,
) -> None:
    """Have files read again by the next scan, although they have not changed. Stop the daemon first."""
    from soulspot.cli.failures import Asked, decide

    asked = Asked(path, code, older_than, newer_than, ignored)
    decide("retry", asked, config, of_all=of_all, as_json=as_json)


@failures.command("ignore")
def failures_ignore(
    path: Failed = None,
    code: Code = None,
    older_than: OlderThan = None,
    newer_than: NewerThan = None,
    config: ConfigOption = None,
    *,
    of_all: All = False,
    as_json: JsonOption = False,
) -> None:
    """Count files as failures no more, until they change. Stop the daemon first."""
    from soulspot.cli.failures import Asked, decide

    asked = Asked(path, code, older_than, newer_than)
    decide("ignore", asked, config, of_all=of_all, as_json=as_json)


# What is on disk and what the catalogue holds.


@app.command()
def explain(
    path: Annotated[Path, typer.Argument(help="A file, there or not.")],
    config: ConfigOption = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Say what soulspot makes of a file: catalogued, failed, ignored, still being written, and why."""
    from soulspot.cli import compare

    compare.explain(path, config, as_json=as_json)


@app.command()
def verify(config: ConfigOption = None, *, as_json: JsonOption = False) -> None:
    """Hold the catalogue against the folders; list where they differ, and exit 1. Changes nothing."""
    from soulspot.cli import compare

    compare.verify(config, as_json=as_json)


@app.command()
def purge(
    config: ConfigOption = None,
    *,
    older_than: Annotated[
        str, typer.Option("--older-than", metavar="SPAN", help="How long a file has to be missing: 24h, 30d, 8w.")
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List what would be removed.")] = False,
    yes: Annotated[
        int | None, typer.Option("--yes", metavar="N", min=0, help="Remove, if it is exactly so many.")
    ] = None,
) -> None:
    """Remove files that have been missing for long from the catalogue, with their tracks. Nothing else removes any."""
    from soulspot.cli import forget, look

    forget.purge(config, older_than=look.span(older_than, "--older-than"), dry_run=dry_run, confirmed=yes)
