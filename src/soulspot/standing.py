"""How things stand: the daemon's own word and the catalogue's numbers, for `soulspot status` and the page."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from soulspot.infrastructure.persistence.owner import Writer
from soulspot.infrastructure.persistence.repositories import KnownFolder

Counts = Mapping[tuple[str, str, str | None], int]
"""Files by folder id, status and error code."""


def standing(  # noqa: PLR0913 - one argument for each of its sources
    daemon: Mapping[str, Any] | None,
    holder: str | None,
    folders: Sequence[KnownFolder],
    counts: Counts,
    *,
    database: str,
    writers: Sequence[Writer] = (),
) -> dict[str, Any]:
    """Return the report; `daemon` is what a running one answered, `holder` who holds the lock to write.

    `writers` are those that a server knows of, where several may write.
    """
    report: dict[str, Any] = {
        **_health(daemon, holder, folders),
        "database": database,
        "writer": holder,
        "writers": [_writer(each) for each in writers],
        "tracks": sum(count for (_folder, state, _code), count in counts.items() if state == "catalogued"),
        "failures": Counter(),
        "folders": [],
    }
    for (_folder, state, code), count in counts.items():
        if state == "failed":
            report["failures"][code] += count
    for folder in folders:
        by_state = Counter[str]()
        for (folder_id, state, _code), count in counts.items():
            by_state[state] += count if folder_id == folder.id else 0
        told = (daemon or {}).get("folders", {}).get(folder.path, {})
        described = {name: getattr(folder, name) for name in ("node", "path", "id", "status")}
        described["reason"] = folder.status_reason
        described |= {name: told.get(name) for name in ("watched", "last_event", "last_reconcile")}
        counted = {state: by_state[state] for state in ("catalogued", "failed", "missing", "ignored")}
        report["folders"].append(described | counted)
    return report


def _writer(writer: Writer) -> dict[str, Any]:
    return {
        "name": writer.name,
        "pid": writer.pid,
        "address": writer.address,
        "since": writer.since,
        "folders": [place._asdict() for place in writer.folders],
    }


def _health(daemon: Mapping[str, Any] | None, holder: str | None, folders: Sequence[KnownFolder]) -> dict[str, Any]:
    """Return what the daemon says of itself; without one, what the catalogue shows."""
    if daemon is not None:
        return {name: daemon.get(name) for name in ("health", "reasons", "pid", "since", "queue", "hooks")}
    reasons = [] if holder else ["no soulspot is watching"]
    reasons += [f"folder {each.path} was offline: {each.status_reason}" for each in folders if each.status == "offline"]
    told = dict.fromkeys(("pid", "since", "queue", "hooks"))
    return {"health": "degraded" if reasons else "ok", "reasons": reasons} | told
