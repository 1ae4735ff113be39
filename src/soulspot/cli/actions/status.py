"""`soulspot status`: the daemon's health and the catalogue's counts, or whichever of the two answers."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from sqlalchemy.exc import DBAPIError

from soulspot.cli.actions.open_catalogue import configure, open_catalogue
from soulspot.cli.output.text import local_time, print_json, printable
from soulspot.cli.output.time_spans import ago
from soulspot.cli.rights import find_catalogue
from soulspot.config import Settings, daemon_address, database_file
from soulspot.errors import CatalogueError, UnreachableError
from soulspot.infrastructure.net.control_socket import Answer
from soulspot.infrastructure.persistence.models import MOUNT_STATES
from soulspot.infrastructure.persistence.records import FolderKey
from soulspot.infrastructure.persistence.repositories import FileRepository, FolderRepository
from soulspot.infrastructure.persistence.sqlite.lock_file import holder_of
from soulspot.reports.status import report_without_catalogue, status_report

SHOWN: Final = 10
"""Failures listed with their reasons."""


def status(config: Path | None, *, as_json: bool) -> None:
    settings = configure(config)
    daemon = daemon_address.ask(settings, find_catalogue(settings), "status")
    try:
        report, failures = asyncio.run(_with_catalogue(settings, daemon))
    except (CatalogueError, UnreachableError, DBAPIError) as error:
        if daemon is None:
            raise
        report, failures = report_without_catalogue(daemon, error), ()
    if as_json:
        print_json(report)
    else:
        _print(report, failures)


async def _with_catalogue(settings: Settings, daemon: Answer | None) -> tuple[Answer, Sequence[str]]:
    async with open_catalogue(settings) as database:
        folders, files = await FolderRepository(database.session).all(), FileRepository(database.session)
        counts, failed = await files.counts(), await files.failures(SHOWN)
        writers = await database.writers([FolderKey(each.node, each.path) for each in folders])
    file = database_file(find_catalogue(settings))
    holder = holder_of(file) if file else "; ".join(map(str, writers)) or None
    report = status_report(daemon, holder, folders, counts, database=str(file or database.name), writers=writers)
    return report, [f"{each.full_path}: {each.error_text or ''}" for each in failed]


def _print(report: Answer, failures: Sequence[str]) -> None:
    print(f"health    {report['health']}" + "".join(f"\n          {printable(each)}" for each in report["reasons"]))
    if (error := report.get("database_error")) is None:
        print(f"database  {report['database']}")
        if not report["writers"]:
            print(f"writer    {report['writer'] or 'none: no soulspot is watching'}")
        for each in report["writers"]:
            _print_writer(each)
        print(f"tracks    {report['tracks']}")
    else:
        print(f"database  cannot be read: {printable(error)}")
    for each in report["folders"]:
        _print_folder(each)
    if queue := report["queue"]:
        oldest = f", the oldest for {queue['oldest_seconds']} s" if queue["in_hand"] or queue["settling"] else ""
        print(f"queue     {queue['in_hand']} in progress, {queue['settling']} still being written{oldest}")
    if watcher := report["watcher"]:
        polling = ", currently polling" if watcher["is_deaf"] else ""
        print(f"watcher   {watcher['overflows']} overflows, {watcher['restarts']} restarts{polling}")
    for hook in report["hooks"] or ():
        print(f"hook      {printable(hook['place'])}: {_state_of(hook)}")
    for code, count in report.get("failures", {}).items():
        print(f"failed    {count} {code}")
    for line in failures:
        print(f"          {printable(line)}")


def _print_writer(writer: Answer) -> None:
    address = f", from {writer['address']}" if writer["address"] else ""
    since = f", since {local_time(writer['since'])}" if writer["since"] else ""
    print(f"writer    {printable(writer['name'])}{address}{since}")
    for place in writer["folders"]:
        print(f"          {printable(place['path'])} of {printable(place['node'])}")


def _print_folder(folder: Answer) -> None:
    reason = f" ({folder['reason']})" if folder.get("reason") else ""
    print(f"folder    {printable(folder['path'])}: {folder.get('status', 'watched')}{reason}")
    if folder.get("status") in MOUNT_STATES:
        return  # a file system mounted in a folder: its files count there
    if folder["watched"]:
        print(f"          watched by {folder['watched']}; last event {ago(folder['last_event'])},", end=" ")
        print(f"last reconcile {ago(folder['last_reconcile'])}")
    if folder["missed_by_watcher"]:
        print(f"          {folder['missed_by_watcher']} changes found without an event")
    if folder["unwatched_folders"]:
        print(f"          {folder['unwatched_folders']} folders cannot be watched and are polled every second")
    if "catalogued" in folder:
        ignored = f", {folder['ignored']} ignored" if folder["ignored"] else ""
        counts = f"{folder['catalogued']} catalogued, {folder['failed']} failed, {folder['missing']} missing"
        print(f"          {counts}{ignored}")


def _state_of(hook: Answer) -> str:
    if hook["error"]:
        return f"failing ({printable(hook['error'])}), {hook['waiting']} changes not delivered yet"
    return f"{hook['delivered']} batches delivered, the last {ago(hook['last_delivery'])}"
