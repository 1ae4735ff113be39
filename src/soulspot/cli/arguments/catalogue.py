"""Arguments and help of the commands that ask the catalogue."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from soulspot.cli.arguments.shared import ConfigOption, JsonOption, Limit, Words


class Kinship(StrEnum):
    """By what files are the same."""

    RECORDING = "recording"
    SOUND = "sound"
    BOTH = "both"


def tracks(
    words: Words = None, config: ConfigOption = None, limit: Limit = None, *, as_json: JsonOption = False
) -> None:
    """List the tracks whose title, artist or album hold every word."""
    from soulspot.cli.actions import tracks

    tracks.tracks(words or [], config, limit=limit, as_json=as_json)


def artists(
    words: Words = None, config: ConfigOption = None, limit: Limit = None, *, as_json: JsonOption = False
) -> None:
    """List the artists whose name holds every word, with the number of their tracks."""
    from soulspot.cli.actions import tracks

    tracks.artists(words or [], config, limit=limit, as_json=as_json)


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
    from soulspot.cli.actions.audit import AuditQuestion, print_audit

    question = AuditQuestion(file=file, artist=artist, action=action, since=since, limit=limit)
    print_audit(question, config, follow=follow, as_json=as_json)


def albums(
    words: Words = None,
    config: ConfigOption = None,
    limit: Limit = None,
    *,
    incomplete: Annotated[bool, typer.Option("--incomplete", help="Only those of which something is missing.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List the albums whose title or artist hold every word, with the tracks of each that are not there."""
    from soulspot.cli.actions.albums import print_albums

    print_albums(words or [], config, incomplete=incomplete, limit=limit, as_json=as_json)


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
    from soulspot.cli.actions.duplicates import Question, print_duplicates

    print_duplicates(Question(by.value, words or [], below), config, limit=limit, as_json=as_json)


def track(
    asked: Annotated[str, typer.Argument(metavar="PATH|ID", help="A file, or the id of a track or file.")],
    config: ConfigOption = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Show everything that is known of one file: tags, credits, album, sound, history."""
    from soulspot.cli.actions.track import show

    show(asked, config, as_json=as_json)


def explain(
    path: Annotated[Path, typer.Argument(help="A file, there or not.")],
    config: ConfigOption = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Say what soulspot makes of a file: catalogued, failed, ignored, still being written, and why."""
    from soulspot.cli.actions import verify

    verify.explain(path, config, as_json=as_json)


def verify(config: ConfigOption = None, *, as_json: JsonOption = False) -> None:
    """Hold the catalogue against the folders; list where they differ, and exit 1. Changes nothing."""
    from soulspot.cli.actions import verify

    verify.verify(config, as_json=as_json)


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
    from soulspot.cli.actions import purge
    from soulspot.cli.output import time_spans

    purge.purge(config, older_than=time_spans.span(older_than, "--older-than"), dry_run=dry_run, confirmed=yes)
