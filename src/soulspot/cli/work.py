"""The commands that write: watch and scan."""

import asyncio
import faulthandler
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import typer

from soulspot import daemon, sockets
from soulspot.cli import logs
from soulspot.cli.progress import listed, log_outcome, shown_progress
from soulspot.cli.text import print_json, printable
from soulspot.config import Settings, find_catalogue, get_settings
from soulspot.errors import CatalogueError, ConfigError
from soulspot.ingest.service import Outcome
from soulspot.tally import KINDS

RELOAD_LIMIT: Final = 60.0
"""Seconds that new settings may take: the files in hand are ended first."""


def watch(folders: Sequence[Path], config: Path | None) -> None:
    def read() -> Settings:
        settings = get_settings(config_file=config, folders=folders)
        logs.set_up(settings.log.level, settings.log.format)
        return settings

    faulthandler.enable()  # the watchdog ends a process that is stuck by SIGABRT: the journal then has the place
    asyncio.run(daemon.watch(read, report=log_outcome))


def reload(config: Path | None) -> None:
    settings = get_settings(config_file=config)
    answer = sockets.ask(settings, find_catalogue(settings), "reload", within=RELOAD_LIMIT)
    if answer is None:
        msg = "no soulspot answers that could reload: `soulspot status` tells more"
        raise CatalogueError(msg)
    if "error" in answer:
        raise ConfigError(answer["error"])
    print("the new settings are in force" if answer["changed"] else "the settings are as they were")


def scan(folders: Sequence[Path], config: Path | None, *, dry_run: bool, confirm_missing: bool, as_json: bool) -> None:
    settings = get_settings(config_file=config, folders=folders)
    logs.set_up(settings.log.level, settings.log.format)
    began = time.monotonic()
    if dry_run:
        result = asyncio.run(daemon.dry_run(settings, report=_print_plan if not as_json else _say_nothing))
    else:
        with shown_progress() as progress:
            result = asyncio.run(daemon.scan(settings, progress=progress, confirm_missing=confirm_missing))
    _print_summary(result, time.monotonic() - began, dry_run=dry_run, as_json=as_json)
    if result.offline or result.held:
        raise typer.Exit(1)


def _print_plan(outcome: Outcome) -> None:
    print(f"{outcome.kind}\t{printable(outcome.path)}")


def _say_nothing(_outcome: Outcome) -> None:
    """For a dry run whose only output is its summary."""


def _print_summary(result: daemon.ScanResult, seconds: float, *, dry_run: bool, as_json: bool) -> None:
    counts = {kind: result.counts[kind] for kind in KINDS}
    if as_json:
        left = {"still_written": result.still_written, "offline": result.offline, "held": result.held}
        print_json({"dry_run": dry_run, **counts, **left, "seconds": round(seconds, 3)})
        return
    verb = "would do" if dry_run else "done"
    print(f"{verb}: {listed(Counter(counts))} in {seconds:.1f} s")
    for path in result.still_written:
        print(f"still being written, left for later: {printable(path)}")
    for path, reason in result.offline.items():
        print(f"offline, left as it was: {printable(path)}: {reason}")
    for path, count in result.held.items():
        print(f"held: {count} files of {printable(path)} are not there; if they are gone for good: --confirm-missing")
