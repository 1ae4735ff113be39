"""Arguments and help of the commands that run the daemon or talk to it."""

from pathlib import Path
from typing import Annotated

import typer

from soulspot.cli import actions
from soulspot.cli.arguments.shared import ConfigOption, Folders, JsonOption
from soulspot.cli.output import time_spans


def watch(folders: Folders = None, config: ConfigOption = None) -> None:
    """Watch the folders and keep the catalogue up to date until stopped. Logs a line for each file."""
    actions.watch_scan.watch(folders or [], config)


def scan(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[PATH]...", help="Folders or files in the music folders, or other music folders."),
    ] = None,
    config: ConfigOption = None,
    *,
    wait: Annotated[bool, typer.Option("--wait", "-w", help="Wait until the running daemon has finished.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be done, but change nothing.")] = False,
    confirm_missing: Annotated[
        bool, typer.Option("--confirm-missing", help="Accept that most files of a folder are gone.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Bring the catalogue up to date with the folders once; a running daemon does it, else this process."""
    actions.watch_scan.scan(
        paths or [], config, dry_run=dry_run, confirm_missing=confirm_missing, wait=wait, as_json=as_json
    )


def status(config: ConfigOption = None, *, as_json: JsonOption = False) -> None:
    """Show each folder with its catalogued, failed and missing files, and the daemon's health."""
    actions.status.status(config, as_json=as_json)


def health(config: ConfigOption = None, *, as_json: JsonOption = False) -> None:
    """Print the daemon's health on one line, for probes; exit 1 if degraded or paused, 2 if failed or not running."""
    actions.health.health(config, as_json=as_json)


def top(config: ConfigOption = None) -> None:
    """Show live what arrives, how fast, and the outcome of each file. Press q to quit."""
    actions.top.top(config)


def reload(config: ConfigOption = None) -> None:
    """Make the running daemon reload its settings; it keeps the old ones if the new ones are invalid."""
    actions.remote.reload(config)


def pause(
    config: ConfigOption = None,
    *,
    span: Annotated[
        str | None, typer.Option("--for", metavar="SPAN", help="Resume automatically after this time: 90m, 2h, 1d.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Pause the running daemon until `soulspot resume`: it reads and writes no files, and loses no changes."""
    actions.remote.pause(config, None if span is None else time_spans.span(span, "--for"), as_json=as_json)


def resume(config: ConfigOption = None, *, as_json: JsonOption = False) -> None:
    """Resume a paused daemon."""
    actions.remote.resume(config, as_json=as_json)


def web(
    config: ConfigOption = None,
    *,
    listen: Annotated[
        str | None,
        typer.Option("--listen", metavar="ADDRESS", help="An address such as 127.0.0.1:8337, or the path of a socket."),
    ] = None,
    idle: Annotated[
        float | None, typer.Option("--idle", metavar="SECONDS", min=1, help="Stop after this long without a request.")
    ] = None,
    show_token: Annotated[
        bool, typer.Option("--show-token", help="Print the token that allows retrying failures on the page.")
    ] = False,
    new_token: Annotated[
        bool, typer.Option("--new-token", help="Make a new token; the old one stops working.")
    ] = False,
) -> None:
    """Serve the web page, by default to this machine only."""
    if show_token or new_token:
        actions.web.print_token(config, replace=new_token)
    else:
        actions.web.serve(config, listen=listen, idle=idle)
