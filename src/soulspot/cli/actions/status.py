"""`soulspot status`: how the daemon is, in its own words, and what the catalogue holds; of each as much as answers."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from sqlalchemy.exc import DBAPIError

from soulspot.cli.actions.open_catalogue import catalogue, whole_path
from soulspot.cli.output.text import local_time, print_json, printable
from soulspot.cli.rights import find_catalogue, get_settings
from soulspot.config import daemon_address
from soulspot.config.paths import database_file
from soulspot.errors import CatalogueError, UnreachableError
from soulspot.infrastructure.persistence.models import MOUNT_STATES
from soulspot.infrastructure.persistence.records import Place
from soulspot.infrastructure.persistence.repositories import FileRepository, FolderRepository
from soulspot.infrastructure.persistence.sqlite.lock_file import holder_of
from soulspot.reports.status import standing, without_catalogue

Told = dict[str, Any]

SHOWN: Final = 10
"""Failures that are listed with their reasons."""


def status(config: Path | None, *, as_json: bool) -> None:
    settings = get_settings(config_file=config)
    daemon = daemon_address.ask(settings, find_catalogue(settings), "status")
    try:
        report, failures = asyncio.run(_with_catalogue(config, daemon))
    except (CatalogueError, UnreachableError, DBAPIError) as error:
        if daemon is None:
            raise
        report, failures = without_catalogue(daemon, error), ()
    if as_json:
        print_json(report)
    else:
        _print(report, failures)


async def _with_catalogue(config: Path | None, daemon: Told | None) -> tuple[Told, Sequence[str]]:
    async with catalogue(config) as (database, url):
        folders = await FolderRepository(database.session).all()
        files = FileRepository(database.session)
        counts, failed = await files.counts(), await files.failures(SHOWN)
        file = database_file(url)
        writers = [] if file else await database.writers([Place(each.node, each.path) for each in folders])
    holder = holder_of(file) if file else "; ".join(map(str, writers)) or None
    name = database.url.render_as_string(hide_password=True) if file is None else str(file)
    report = standing(daemon, holder, folders, counts, database=name, writers=writers)
    return report, [f"{whole_path(each)}: {each.error_text or ''}" for each in failed]


def _print(report: Told, failures: Sequence[str]) -> None:
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
        print(f"queue     {queue['in_hand']} in hand, {queue['settling']} not complete yet{oldest}")
    if watcher := report["watcher"]:
        deaf = ", deaf at present" if watcher["is_deaf"] else ""
        print(f"watcher   ran over {watcher['overflows']} times, began anew {watcher['restarts']} times{deaf}")
    for hook in report["hooks"] or ():
        print(f"hook      {printable(hook['place'])}: {_state_of(hook)}")
    for code, count in report.get("failures", {}).items():
        print(f"failed    {count} {code}")
    for line in failures:
        print(f"          {printable(line)}")


def _print_writer(told: Told) -> None:
    whence = f", from {told['address']}" if told["address"] else ""
    since = f", since {local_time(told['since'])}" if told["since"] else ""
    print(f"writer    {printable(told['name'])}{whence}{since}")
    for place in told["folders"]:
        print(f"          {printable(place['path'])} of {printable(place['node'])}")


def _print_folder(told: Told) -> None:
    reason = f" ({told['reason']})" if told.get("reason") else ""
    print(f"folder    {printable(told['path'])}: {told.get('status', 'watched')}{reason}")
    if told.get("status") in MOUNT_STATES:
        return  # a file system below a folder: its files are counted there
    if told["watched"]:
        print(f"          watched by {told['watched']}; last event {_ago(told['last_event'])},", end=" ")
        print(f"last reconcile {_ago(told['last_reconcile'])}")
    if told["missed_by_watcher"]:
        print(f"          {told['missed_by_watcher']} changes were found that no event told of")
    if told["unwatched_folders"]:
        print(f"          {told['unwatched_folders']} folders cannot be watched and are looked at every second")
    if "catalogued" in told:
        ignored = f", {told['ignored']} ignored" if told["ignored"] else ""
        print(f"          {told['catalogued']} catalogued, {told['failed']} failed, {told['missing']} missing{ignored}")


def _state_of(hook: Told) -> str:
    if hook["error"]:
        return f"fails ({printable(hook['error'])}), {hook['waiting']} changes not told yet"
    return f"told of {hook['delivered']} batches, the last {_ago(hook['last_delivery'])}"


def _ago(moment: str | None) -> str:
    if moment is None:
        return "none yet"
    seconds = round((datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds())
    return f"{seconds} s ago" if seconds < 120 else f"{seconds // 60} min ago"  # noqa: PLR2004 - a minute or two
