"""Arguments and help of the commands that query the catalogue."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from soulspot.cli import actions
from soulspot.cli.arguments.shared import ConfigOption, JsonOption, Limit, Words
from soulspot.cli.output import time_spans


class Match(StrEnum):
    """The criterion by which files are duplicates."""

    RECORDING = "recording"
    SOUND = "sound"
    BOTH = "both"


def tracks(
    words: Words = None, config: ConfigOption = None, limit: Limit = None, *, as_json: JsonOption = False
) -> None:
    """List the tracks that have every word in title, artist or album."""
    actions.tracks.tracks(words or [], config, limit=limit, as_json=as_json)


def artists(
    words: Words = None, config: ConfigOption = None, limit: Limit = None, *, as_json: JsonOption = False
) -> None:
    """List the artists that have every word in their name, with their number of tracks."""
    actions.tracks.artists(words or [], config, limit=limit, as_json=as_json)


def audit(
    config: ConfigOption = None,
    *,
    file: Annotated[
        str | None, typer.Option("--file", metavar="PATH", help="Only this file, or everything in this folder.")
    ] = None,
    artist: Annotated[
        str | None, typer.Option("--artist", metavar="NAME", help="Only this artist and its tracks.")
    ] = None,
    action: Annotated[
        str | None, typer.Option("--action", help="Only this action, for example track_added or file_failed.")
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            "--since",
            metavar="WHEN",
            help="Only since this time (2026-11-23 or 2026-11-23T18:00) or for this span (90m, 24h, 7d).",
        ),
    ] = None,
    limit: Limit = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Keep printing new entries until stopped.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show the history, oldest first: all of it, or of one file, artist, action or period."""
    question = actions.audit.AuditQuestion(file=file, artist=artist, action=action, since=since, limit=limit)
    actions.audit.print_audit(question, config, follow=follow, as_json=as_json)


def albums(
    words: Words = None,
    config: ConfigOption = None,
    limit: Limit = None,
    *,
    incomplete: Annotated[bool, typer.Option("--incomplete", help="Only albums with missing tracks.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List the albums that have every word in title or artist, with the tracks that each is missing."""
    actions.albums.print_albums(words or [], config, incomplete=incomplete, limit=limit, as_json=as_json)


def duplicates(
    words: Words = None,
    config: ConfigOption = None,
    limit: Limit = None,
    *,
    by: Annotated[Match, typer.Option("--by", help="What the files must have in common.")] = Match.BOTH,
    below: Annotated[
        str | None,
        typer.Option("--in", metavar="PATH", help="Only groups with this file, or with a file in this folder."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List duplicate files in groups, with what helps to choose between them. Changes nothing.

    By recording: files whose tags have the same MusicBrainz recording id. By sound: files with the same audio data
    whatever their tags, which finds copies but not other encodings of a song. FLAC stores an MD5 of all samples; of
    other formats only the length and three samples of the audio data (start, middle, end) are compared, so check before
    you delete. In a group, files with the same letter have the same audio.
    """
    actions.duplicates.print_duplicates(
        actions.duplicates.Question(by.value, words or [], below), config, limit=limit, as_json=as_json
    )


def track(
    asked: Annotated[str, typer.Argument(metavar="PATH|ID", help="A file, or the id of a track or file.")],
    config: ConfigOption = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Show everything about one file: tags, credits, album, audio, history."""
    actions.track.show(asked, config, as_json=as_json)


def explain(
    path: Annotated[Path, typer.Argument(help="A file, whether it exists or not.")],
    config: ConfigOption = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Explain the state of a file: catalogued, failed, ignored, still being written, and why."""
    actions.verify.explain(path, config, as_json=as_json)


def verify(config: ConfigOption = None, *, as_json: JsonOption = False) -> None:
    """Compare the catalogue with the folders; list the differences and exit 1 if there are any. Changes nothing."""
    actions.verify.verify(config, as_json=as_json)


def purge(
    config: ConfigOption = None,
    *,
    older_than: Annotated[
        str, typer.Option("--older-than", metavar="SPAN", help="Only files missing for longer than this: 24h, 30d, 8w.")
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list what would be removed.")] = False,
    yes: Annotated[
        int | None, typer.Option("--yes", metavar="N", min=0, help="Confirm: remove only if it is exactly N files.")
    ] = None,
) -> None:
    """Remove long-missing files and their tracks from the catalogue. No other command removes any."""
    actions.purge.purge(config, older_than=time_spans.span(older_than, "--older-than"), dry_run=dry_run, confirmed=yes)
