"""The command line: one small module a group of commands, and the only place that prints.

Only typer is imported here. What a command needs is imported when it runs, so that `soulspot --version` and the shell's
completion answer at once.
"""

import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, NoReturn

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


class Kinship(StrEnum):
    """By what files are the same."""

    RECORDING = "recording"
    SOUND = "sound"
    BOTH = "both"


def run() -> None:
    """Run the command line; an error that a person can mend is one line, with its own exit code."""
    _hold_standard_streams()
    try:
        app()
    except SoulspotError as error:
        _refuse(error)
    except BaseExceptionGroup as group:
        if (mendable := _mendable(group)) is None:
            raise
        _refuse(mendable)


def _hold_standard_streams() -> None:
    """Open what a careless parent has closed, so that no file of ours gets the number of standard error."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:  # noqa: PLR2004 - standard error
        pass
    os.close(descriptor)
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - for good
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115


def _refuse(error: SoulspotError) -> NoReturn:
    from soulspot.cli import logs

    logs.say_why_it_ends(error)
    sys.exit(error.exit_code)


def _mendable(group: BaseExceptionGroup) -> SoulspotError | None:
    """Return what ended the tasks of a group, where a person can mend it."""
    for error in group.exceptions:
        found = _mendable(error) if isinstance(error, BaseExceptionGroup) else error
        if isinstance(found, SoulspotError):
            return found
    return None


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
    paths: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[PATH]...", help="Folders or files in the music folders, or other music folders."),
    ] = None,
    config: ConfigOption = None,
    *,
    wait: Annotated[bool, typer.Option("--wait", "-w", help="Wait until a running daemon has done it.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what there is to do, and do none of it.")] = False,
    confirm_missing: Annotated[
        bool, typer.Option("--confirm-missing", help="Believe it when most of a folder is gone.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Bring the catalogue up to date with the folders, once: by the daemon where one runs, else here."""
    from soulspot.cli import work

    options = work.ScanOptions(dry_run=dry_run, confirm_missing=confirm_missing, wait=wait, as_json=as_json)
    work.scan(paths or [], config, options)


@app.command()
def status(config: ConfigOption = None, *, as_json: JsonOption = False) -> None:
    """Show each folder, how many files are catalogued, failed and missing, and who is writing."""
    from soulspot.cli import report

    report.status(config, as_json=as_json)


@app.command()
def health(config: ConfigOption = None, *, as_json: JsonOption = False) -> None:
    """Say in one line how the running daemon is; exit 1 for degraded or paused, 2 for failed or none. For probes."""
    from soulspot.cli import probe

    probe.health(config, as_json=as_json)


@app.command()
def top(config: ConfigOption = None) -> None:
    """Show what happens while it happens: what arrives, how fast, what became of it. q quits."""
    from soulspot.cli.top import top

    top(config)


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
def duplicates(
    words: Words = None,
    config: ConfigOption = None,
    limit: Limit = None,
    *,
    by: Annotated[Kinship, typer.Option("--by", help="What has to be the same.")] = Kinship.BOTH,
    below: Annotated[
        str | None, typer.Option("--in", metavar="PATH", help="Only where one of the files is this one, or lies in it.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List the files that hold the same, in groups, with what there is to choose by. Changes nothing.

    By recording: their tags have the same MusicBrainz recording id, whatever they sound like. By sound: the audio data
    are the same, tags aside, which finds copies, and not other encodings of one song. FLAC has the MD5 of all its
    samples; of other formats the length of the audio data and three pieces of it (start, middle, end) are compared, so
    look before you delete. In a group, files of the same letter sound the same.
    """
    from soulspot.cli.duplicates import Question, print_duplicates

    print_duplicates(Question(by.value, words or [], below), config, limit=limit, as_json=as_json)


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


# For the admin.


@app.command()
def reload(config: ConfigOption = None) -> None:
    """Have the running daemon read its settings again; where they are wrong, it keeps those that it has."""
    from soulspot.cli import steer

    steer.reload(config)


@app.command()
def pause(
    config: ConfigOption = None,
    *,
    span: Annotated[
        str | None, typer.Option("--for", metavar="SPAN", help="End it by itself after this: 90m, 2h, 1d.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Have the running daemon read and write nothing until `soulspot resume`; what happens meanwhile is not lost."""
    from soulspot.cli import look, steer

    steer.pause(config, None if span is None else look.span(span, "--for"), as_json=as_json)


@app.command()
def resume(config: ConfigOption = None, *, as_json: JsonOption = False) -> None:
    """Let a paused daemon go on."""
    from soulspot.cli import steer

    steer.resume(config, as_json=as_json)


@app.command()
def web(
    config: ConfigOption = None,
    *,
    listen: Annotated[
        str | None, typer.Option("--listen", metavar="ADDRESS", help="127.0.0.1:8337, or the path of a socket.")
    ] = None,
    idle: Annotated[
        float | None, typer.Option("--idle", metavar="SECONDS", min=1, help="End when nobody has asked for so long.")
    ] = None,
    show_token: Annotated[
        bool, typer.Option("--show-token", help="Print the token that lets a person retry failures on the page.")
    ] = False,
    new_token: Annotated[
        bool, typer.Option("--new-token", help="Make another one; who knew the last is forgotten.")
    ] = False,
) -> None:
    """Serve a page that shows what becomes of the files; to this machine alone, unless told otherwise."""
    from soulspot.cli.web import print_token, serve

    if show_token or new_token:
        print_token(config, anew=new_token)
    else:
        serve(config, listen=listen, idle=idle)


@app.command()
def doctor(config: ConfigOption = None, *, as_json: JsonOption = False) -> None:
    """Look for what is wrong, and say what mends it; exit 1 for a warning, 2 for a fault. Changes nothing."""
    from soulspot.cli import examine

    examine.doctor(config, as_json=as_json)


settings = typer.Typer(help="The settings: what they are, and whether they can be meant.", no_args_is_help=True)
app.add_typer(settings, name="config")


@settings.command("show")
def config_show(config: ConfigOption = None, *, as_json: JsonOption = False) -> None:
    """List every setting, its value and where that comes from; passwords are not shown."""
    from soulspot.cli import configuration

    configuration.show(config, as_json=as_json)


@settings.command("check")
def config_check(config: ConfigOption = None) -> None:
    """Say whether the settings can be meant; exit 78 with the place and what is allowed where they cannot."""
    from soulspot.cli import configuration

    configuration.check(config)


@settings.command("init")
def config_init(
    file: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="Else /etc/soulspot/config.toml for root, or your own.")
    ] = None,
    *,
    force: Annotated[bool, typer.Option("--force", help="Overwrite a file that is there.")] = False,
) -> None:
    """Write a file with every setting, commented, to start from."""
    from soulspot.cli import configuration

    configuration.init(file, overwrite=force)


service = typer.Typer(help="soulspot as a service of systemd.", no_args_is_help=True)
app.add_typer(service, name="service")
UserOption = Annotated[bool, typer.Option("--user", help="For this user alone, and not for the system.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do it without asking.")]


@service.command("install")
def service_install(
    *,
    user: UserOption = False,
    web: Annotated[bool, typer.Option("--web", help="With the page, at 127.0.0.1:8337.")] = False,
    yes: YesOption = False,
) -> None:
    """Write the units and enable them, after showing what will be done."""
    from soulspot.cli import units

    units.install(for_user=user, with_web=web, without_asking=yes)


@service.command("uninstall")
def service_uninstall(*, user: UserOption = False, yes: YesOption = False) -> None:
    """Stop the service and take its units away; the catalogue and the settings stay."""
    from soulspot.cli import units

    units.uninstall(for_user=user, without_asking=yes)


db = typer.Typer(help="The catalogue's database: schema, copies, soundness.", no_args_is_help=True)
app.add_typer(db, name="db")


@db.command("upgrade")
def db_upgrade(config: ConfigOption = None) -> None:
    """Bring the schema up to date; an SQLite file is copied first."""
    from soulspot.cli import database

    database.upgrade(config)


@db.command("downgrade")
def db_downgrade(
    revision: Annotated[str, typer.Argument(metavar="REVISION", help="Or -1 for one step, after a `--`.")] = "-1",
    config: ConfigOption = None,
) -> None:
    """Take the schema back, for an older soulspot; an SQLite file is copied first."""
    from soulspot.cli import database

    database.downgrade(revision, config)


@db.command("copy")
def db_copy(
    source: Annotated[str, typer.Argument(metavar="FROM", help="A database's URL, or the file of one in SQLite.")],
    target: Annotated[str, typer.Argument(metavar="TO", help="The same, of one that is new or empty.")],
) -> None:
    """Copy a catalogue with its history and its ids, between SQLite and PostgreSQL; then compare the two."""
    from soulspot.cli.db_copy import copy

    copy(source, target)


@db.command("current")
def db_current(config: ConfigOption = None, *, as_json: JsonOption = False) -> None:
    """Show the schema's revision, and the one that is needed."""
    from soulspot.cli import database

    database.current(config, as_json=as_json)


@db.command("check")
def db_check(config: ConfigOption = None, *, as_json: JsonOption = False) -> None:
    """Look for damage and for broken promises; exit 1 where there is any. A running daemon is not disturbed."""
    from soulspot.cli import database

    database.check(config, as_json=as_json)


@db.command("backup")
def db_backup(
    config: ConfigOption = None,
    *,
    to: Annotated[
        Path | None, typer.Option("--to", metavar="FOLDER", help="Where to; else `backups` beside the catalogue.")
    ] = None,
    keep: Annotated[int, typer.Option("--keep", min=1, help="Keep so many, and delete older ones.")] = 7,
) -> None:
    """Copy the catalogue while it is in use; the copy is checked, and private."""
    from soulspot.cli import database

    database.back_up(to, keep, config)


@db.command("restore")
def db_restore(
    source: Annotated[Path | None, typer.Argument(metavar="[FILE]", help="A copy; without one, list them.")] = None,
    config: ConfigOption = None,
) -> None:
    """Put a copy in the place of the catalogue, which is kept beside it. Stop the daemon first."""
    from soulspot.cli import database

    database.restore(source, config)


@db.command("trim")
def db_trim(
    config: ConfigOption = None,
    *,
    older_than: Annotated[
        str | None, typer.Option("--older-than", metavar="SPAN", help="90d, 52w; else what audit.keep_days says.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say how many entries that would be.")] = False,
) -> None:
    """Remove old entries of the history; of all that is there, the first and the latest stay. Stop the daemon first."""
    from soulspot.cli import database, look

    span = look.span(older_than, "--older-than") if older_than is not None else None
    database.trim(config, older_than=span, dry_run=dry_run)


@db.command("vacuum")
def db_vacuum(config: ConfigOption = None) -> None:
    """Write the database anew, without the room that deleted rows have left. Stop the daemon first."""
    from soulspot.cli import database

    database.vacuum(config)


@db.command("partition")
def db_partition(
    config: ConfigOption = None,
    *,
    rows: Annotated[int, typer.Option("--rows", min=1, help="Entries of a part.")] = 10_000_000,
    undo: Annotated[bool, typer.Option("--undo", help="Make it one table again.")] = False,
) -> None:
    """Part a large history by its numbers, on PostgreSQL; again, to make more parts ahead. Watchers may run."""
    from soulspot.cli import database

    database.partition(rows, config, undo=undo)
