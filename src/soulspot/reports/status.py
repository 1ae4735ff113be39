"""Builds the status report of `soulspot status` and the page from the daemon's answer and the catalogue's counts."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

from soulspot.infrastructure.persistence.records import KnownFolder, Writer

Answer = Mapping[str, Any]
Counts = Mapping[tuple[str, str, str | None], int]
"""Files by folder id, status and error code."""

_OF_THE_DAEMON: Final = ("health", "reasons", "pid", "since", "paused", "queue", "watcher", "hooks")
_OF_A_FOLDER: Final = (
    "watched", "last_event", "last_reconcile", "missed_by_watcher", "unwatched_folders", "unreadable",
)  # fmt: skip


def status_report(  # noqa: PLR0913 - one argument for each of its sources
    daemon: Answer | None,
    holder: str | None,
    folders: Sequence[KnownFolder],
    counts: Counts,
    *,
    database: str,
    writers: Sequence[Writer] = (),
) -> dict[str, Any]:
    """Return the report.

    `daemon` is the answer of the running daemon, `holder` the process with the write lock, `writers` on PostgreSQL all
    sessions that may write.
    """
    by_state = Counter[tuple[str, str]]()
    failures = Counter[str]()
    for (folder_id, state, code), count in counts.items():
        by_state[folder_id, state] += count
        if state == "failed":
            failures[code or ""] += count
    return {
        **_of_the_daemon(daemon, holder, folders),
        "database": database,
        "writer": holder,
        "writers": [_of_a_writer(each) for each in writers],
        "tracks": sum(count for (_folder, state), count in by_state.items() if state == "catalogued"),
        "failures": dict(failures.most_common()),
        "folders": [_of_a_folder(folder, daemon, by_state) for folder in folders],
    }


def report_without_catalogue(daemon: Answer, error: Exception) -> dict[str, Any]:
    """Return the daemon's part of the report alone, for when the database does not answer."""
    folders = [{"path": path, **folder} for path, folder in daemon["folders"].items()]
    return _of_the_daemon(daemon, None, ()) | {"database": None, "database_error": str(error), "folders": folders}


def _of_the_daemon(daemon: Answer | None, holder: str | None, folders: Sequence[KnownFolder]) -> dict[str, Any]:
    """Return the daemon's answer; without a daemon, what the catalogue shows."""
    if daemon is not None:
        return {name: daemon.get(name) for name in _OF_THE_DAEMON}
    reasons = [] if holder else ["no soulspot is watching"]
    reasons += [f"folder {each.path} was offline: {each.status_reason}" for each in folders if each.status == "offline"]
    return dict.fromkeys(_OF_THE_DAEMON) | {"health": "degraded" if reasons else "ok", "reasons": reasons}


def _of_a_folder(folder: KnownFolder, daemon: Answer | None, by_state: Counter[tuple[str, str]]) -> dict[str, Any]:
    answer = (daemon or {}).get("folders", {}).get(folder.path, {})
    return {
        **{name: getattr(folder, name) for name in ("node", "path", "id", "status")},
        "reason": folder.status_reason,
        **{name: answer.get(name) for name in _OF_A_FOLDER},
        **{state: by_state[folder.id, state] for state in ("catalogued", "failed", "missing", "ignored")},
    }


def _of_a_writer(writer: Writer) -> dict[str, Any]:
    named = ("name", "pid", "address", "since")
    folders = [place._asdict() for place in writer.folders]
    return {**{name: getattr(writer, name) for name in named}, "folders": folders}
