"""Arguments and help of `soulspot failures`."""

from typing import Annotated

import typer

from soulspot.cli import actions
from soulspot.cli.arguments.shared import ConfigOption, JsonOption, Limit

Failed = Annotated[str | None, typer.Argument(metavar="[PATH]", help="Only this file, or everything in this folder.")]
Code = Annotated[
    str | None,
    typer.Option("--code", metavar="CODE", help="Only this failure code, for example corrupt, empty or timeout."),
]
OlderThan = Annotated[
    str | None,
    typer.Option("--older-than", metavar="WHEN", help="Only files last tried before this time: 7d, or a date."),
]
NewerThan = Annotated[
    str | None,
    typer.Option("--newer-than", metavar="WHEN", help="Only files last tried since this time: 24h, or a date."),
]
Ignored = Annotated[bool, typer.Option("--ignored", help="Ignored failures instead of the others.")]
All = Annotated[bool, typer.Option("--all", help="All failures.")]


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
    """List the files that could not be read, with the reason of each."""
    asked = actions.failures.Asked(path, code, older_than, newer_than, ignored)
    actions.failures.print_list(asked, config, limit=limit, as_json=as_json)


def failures_show(
    asked: Annotated[str, typer.Argument(metavar="PATH|ID", help="A file, or its id.")],
    config: ConfigOption = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Show why a file could not be read, what to do about it, and its history."""
    actions.failures.show(asked, config, as_json=as_json)


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
    """Read files again although they have not changed: at once by a running daemon, else by the next scan."""
    asked = actions.failures.Asked(path, code, older_than, newer_than, ignored)
    actions.failures.decide("retry", asked, config, of_all=of_all, as_json=as_json)


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
    """Ignore failures of these files until the files change."""
    asked = actions.failures.Asked(path, code, older_than, newer_than)
    actions.failures.decide("ignore", asked, config, of_all=of_all, as_json=as_json)
