"""`soulspot watch` and `soulspot scan`: the commands that ingest."""

import asyncio
import faulthandler
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import typer

from soulspot import scan as scan_once
from soulspot.cli.actions.remote import folders_of_the_daemon, scan_by_daemon
from soulspot.cli.output import logs
from soulspot.cli.output.progress import listed, log_outcome, shown_progress
from soulspot.cli.output.text import print_json, printable
from soulspot.cli.rights import act_as_owner_of, get_settings, get_settings_again
from soulspot.config import Settings
from soulspot.config import get_settings as settings_as_they_are
from soulspot.ingest.outcome import KINDS, Outcome


def watch(folders: Sequence[Path], config: Path | None) -> None:
    from soulspot.daemon import main

    reads = [get_settings]

    def read() -> Settings:
        settings = reads.pop()(config_file=config, folders=folders)
        reads.append(get_settings_again)
        logs.set_up(settings.log.level, settings.log.format)
        return settings

    faulthandler.enable()  # the watchdog aborts a stuck process: log where it hung
    asyncio.run(main.watch(read, report=log_outcome))


def scan(
    paths: Sequence[Path], config: Path | None, *, dry_run: bool, confirm_missing: bool, wait: bool, as_json: bool
) -> None:
    """Let the running daemon scan; without one, scan in this process."""
    settings, began = settings_as_they_are(config_file=config), time.monotonic()
    logs.set_up(settings.log.level, settings.log.format)
    if dry_run:
        settings = settings.with_folders(settings.library.folders or folders_of_the_daemon(settings))
        act_as_owner_of(settings.database.url)
        report = (lambda _outcome: None) if as_json else _print_plan
        result = asyncio.run(scan_once.dry_run(settings, paths, report=report))
    else:
        by_daemon = scan_by_daemon(settings, paths, confirm_missing=confirm_missing, wait=wait, as_json=as_json)
        result = by_daemon or _scan_here(settings, paths, confirm_missing=confirm_missing)
    _print_summary(result, time.monotonic() - began, dry_run=dry_run, as_json=as_json)
    if result.offline or result.held:
        raise typer.Exit(1)


def _scan_here(settings: Settings, paths: Sequence[Path], *, confirm_missing: bool) -> scan_once.ScanResult:
    act_as_owner_of(settings.database.url)  # the daemon was queried as the calling user
    with shown_progress() as progress:
        return asyncio.run(scan_once.scan(settings, paths, progress=progress, confirm_missing=confirm_missing))


def _print_plan(outcome: Outcome) -> None:
    print(f"{outcome.kind}\t{printable(outcome.path)}")


def _print_summary(result: scan_once.ScanResult, seconds: float, *, dry_run: bool, as_json: bool) -> None:
    counts = {kind: result.counts[kind] for kind in KINDS}
    if as_json:
        left = {"still_written": result.still_written, "offline": result.offline, "held": result.held}
        print_json({"dry_run": dry_run, **counts, **left, "seconds": round(seconds, 3)})
        return
    verb = "would do" if dry_run else "done"
    print(f"{verb}: {listed(Counter(counts))} in {seconds:.1f} s")
    for path in result.still_written:
        print(f"skipped, still being written: {printable(path)}")
    for path, reason in result.offline.items():
        print(f"skipped, offline: {printable(path)}: {reason}")
    for path, count in result.held.items():
        print(f"held: {count} files are missing from {printable(path)}; if they are really gone, use --confirm-missing")
