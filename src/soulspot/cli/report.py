"""`soulspot status`: how the daemon is, in its own words, and what the catalogue holds; of each as much as answers."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from sqlalchemy.exc import DBAPIError

from soulspot import sockets
from soulspot.cli.look import catalogue, whole_path
from soulspot.cli.text import local_time, print_json, printable
from soulspot.config import database_file, find_catalogue, get_settings
from soulspot.errors import CatalogueError, UnreachableError
from soulspot.infrastructure.persistence.database import Place
from soulspot.infrastructure.persistence.lock import holder_of
from soulspot.infrastructure.persistence.models import MOUNT_STATES
from soulspot.infrastructure.persistence.owner import Writer
from soulspot.infrastructure.persistence.repositories import FileRepository, FolderRepository, KnownFolder

Told = dict[str, Any]

_OF_THE_DAEMON: Final = ("health", "reasons", "pid", "since", "paused", "queue", "watcher", "hooks")
_OF_A_FOLDER: Final = (
    "watched", "last_event", "last_reconcile", "missed_by_watcher", "unwatched_folders", "unreadable",
)  # fmt: skip
SHOWN: Final = 10
"""Failures that are listed with their reasons."""


def status(config: Path | None, *, as_json: bool) -> None:
    settings = get_settings(config_file=config)
    daemon = sockets.ask(settings, find_catalogue(settings), "status")
    try:
        report, failures = asyncio.run(_with_catalogue(config, daemon))
    except (CatalogueError, UnreachableError, DBAPIError) as error:
        if daemon is None:
            raise
        report, failures = _without_catalogue(daemon, error), ()
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
    by_state = Counter[tuple[str, str]]()
    failures = Counter[str]()
    for (folder_id, state, code), count in counts.items():
        by_state[folder_id, state] += count
        if state == "failed":
            failures[code or ""] += count
    report = {
        **_of_the_daemon(daemon, holder, folders),
        "database": database.url.render_as_string(hide_password=True) if file is None else str(file),
        "writer": holder,
        "writers": [_of_a_writer(each) for each in writers],
        "tracks": sum(count for (_folder, state), count in by_state.items() if state == "catalogued"),
        "failures": dict(failures.most_common()),
        "folders": [_of_a_folder(folder, daemon, by_state) for folder in folders],
    }
    return report, [f"{whole_path(each)}: {each.error_text or ''}" for each in failed]


def _without_catalogue(daemon: Told, error: Exception) -> Told:
    """Tell what the daemon says of itself where its database does not answer, which is when somebody asks."""
    folders = [{"path": path, **told} for path, told in daemon["folders"].items()]
    return _of_the_daemon(daemon, None, ()) | {"database": None, "database_error": str(error), "folders": folders}


def _of_the_daemon(daemon: Told | None, holder: str | None, folders: Sequence[KnownFolder]) -> Told:
    """Return what the daemon says of itself; without one, what the catalogue shows."""
    if daemon is not None:
        return {name: daemon.get(name) for name in _OF_THE_DAEMON}
    reasons = [] if holder else ["no soulspot is watching"]
    reasons += [f"folder {each.path} was offline: {each.status_reason}" for each in folders if each.status == "offline"]
    return dict.fromkeys(_OF_THE_DAEMON) | {"health": "degraded" if reasons else "ok", "reasons": reasons}


def _of_a_folder(folder: KnownFolder, daemon: Told | None, by_state: Counter[tuple[str, str]]) -> Told:
    told = (daemon or {}).get("folders", {}).get(folder.path, {})
    return {
        **{name: getattr(folder, name) for name in ("node", "path", "id", "status")},
        "reason": folder.status_reason,
        **{name: told.get(name) for name in _OF_A_FOLDER},
        **{state: by_state[folder.id, state] for state in ("catalogued", "failed", "missing", "ignored")},
    }


def _of_a_writer(writer: Writer) -> Told:
    named = ("name", "pid", "address", "since")
    folders = [place._asdict() for place in writer.folders]
    return {**{name: getattr(writer, name) for name in named}, "folders": folders}


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
