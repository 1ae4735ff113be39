"""Arguments and help of the commands that run the daemon, or ask it."""

from pathlib import Path
from typing import Annotated

import typer

from soulspot.cli.arguments.shared import ConfigOption, Folders, JsonOption


def watch(folders: Folders = None, config: ConfigOption = None) -> None:
    """Keep the catalogue true to the folders, from now until stopped. A line for each file."""
    from soulspot.cli.actions import watch_scan

    watch_scan.watch(folders or [], config)


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
    from soulspot.cli.actions import watch_scan

    options = watch_scan.ScanOptions(dry_run=dry_run, confirm_missing=confirm_missing, wait=wait, as_json=as_json)
    watch_scan.scan(paths or [], config, options)


def status(config: ConfigOption = None, *, as_json: JsonOption = False) -> None:
    """Show each folder, how many files are catalogued, failed and missing, and who is writing."""
    from soulspot.cli.actions import status

    status.status(config, as_json=as_json)


def health(config: ConfigOption = None, *, as_json: JsonOption = False) -> None:
    """Say in one line how the running daemon is; exit 1 for degraded or paused, 2 for failed or none. For probes."""
    from soulspot.cli.actions import health

    health.health(config, as_json=as_json)


def top(config: ConfigOption = None) -> None:
    """Show what happens while it happens: what arrives, how fast, what became of it. q quits."""
    from soulspot.cli.actions.top import top

    top(config)


def reload(config: ConfigOption = None) -> None:
    """Have the running daemon read its settings again; where they are wrong, it keeps those that it has."""
    from soulspot.cli.actions import remote

    remote.reload(config)


def pause(
    config: ConfigOption = None,
    *,
    span: Annotated[
        str | None, typer.Option("--for", metavar="SPAN", help="End it by itself after this: 90m, 2h, 1d.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Have the running daemon read and write nothing until `soulspot resume`; what happens meanwhile is not lost."""
    from soulspot.cli.actions import remote
    from soulspot.cli.output import time_spans

    remote.pause(config, None if span is None else time_spans.span(span, "--for"), as_json=as_json)


def resume(config: ConfigOption = None, *, as_json: JsonOption = False) -> None:
    """Let a paused daemon go on."""
    from soulspot.cli.actions import remote

    remote.resume(config, as_json=as_json)


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
    from soulspot.cli.actions.web import print_token, serve

    if show_token or new_token:
        print_token(config, anew=new_token)
    else:
        serve(config, listen=listen, idle=idle)
