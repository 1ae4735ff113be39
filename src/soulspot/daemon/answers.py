"""The JSON form of everything that the daemon answers on its control socket."""

import os
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from soulspot.daemon.catalogue_totals import Totals
from soulspot.daemon.events import EventBatch, FileEvent
from soulspot.daemon.health import Health
from soulspot.daemon.hooks.hook import Hook
from soulspot.infrastructure.filesystem import path_to_text
from soulspot.infrastructure.net.control_socket import Answer
from soulspot.infrastructure.persistence.models import File
from soulspot.infrastructure.watching.watcher import Watcher
from soulspot.ingest.disk.walker import Root
from soulspot.ingest.outcome import Outcome, PipelineStats
from soulspot.ingest.pause_gate import Paused
from soulspot.ingest.scan_requests import Request


def error_message(reason: str, **more: Any) -> Answer:  # noqa: ANN401 - JSON
    return {"error": reason, **more}


# Events.


def batch_message(batch: EventBatch) -> Answer:
    return {"lost": batch.lost, "happened": [_event(event) for event in batch.events]}


def _event(event: FileEvent) -> Answer:
    names = ("kind", "path", "track_id", "code", "detail")
    return {"at": event.at.isoformat(), **{name: getattr(event.outcome, name) for name in names}}


def viewer_message(since: datetime, recent: EventBatch, *, is_admin: bool) -> Answer:
    """Return the first line of `live`: the process, what the viewer may do, the last events."""
    return {"pid": os.getpid(), "since": since.isoformat(), "may_steer": is_admin, **batch_message(recent)}


# The status, and what `live` adds to it.


def status_message(since: datetime, health: Health, paused: Paused | None) -> Answer:
    """Return the first part of a status, the same in every phase of the daemon."""
    return {
        "pid": os.getpid(),
        "since": since.isoformat(),
        "paused": pause_message(paused),
        "health": health.state,
        "reasons": health.reasons,
    }


def queue_message(stats: PipelineStats) -> Answer:
    return {"in_hand": stats.in_hand, "settling": stats.settling, "oldest_seconds": round(stats.oldest)}


def watcher_message(watcher: Watcher | None) -> Answer | None:
    if watcher is None:
        return None
    return {"is_deaf": watcher.is_falling_back, "overflows": watcher.overflows, "restarts": watcher.restarts}


def folder_message(  # noqa: PLR0913 - one argument for each of its sources
    root: Root,
    *,
    last_event: datetime | None,
    last_reconcile: datetime | None,
    missed: int,
    unwatched: int,
    unreadable: int,
) -> Answer:
    return {
        "id": root.id,
        "watched": "inotify" if root.trusts_inodes else "inotify and reconcile",
        "last_event": _time(last_event),
        "last_reconcile": _time(last_reconcile),
        "missed_by_watcher": missed,
        "unwatched_folders": unwatched,
        "unreadable": unreadable,
    }


def hook_message(hook: Hook) -> Answer:
    values = {name: getattr(hook, name) for name in ("place", "error", "waiting", "delivered", "failed")}
    return {"hook": hook.kind, **values, "last_delivery": _time(hook.last_delivery)}


def arriving_message(path: str, seconds: float, settles: bool) -> Answer:  # noqa: FBT001 - as the pipeline yields it
    return {"path": path, "seconds": round(seconds, 1), "settles": settles}


def walk_message(root: Root, *, done: int, total: int | None, seconds: float) -> Answer:
    return {"folder": path_to_text(root.path), "done": done, "total": total, "seconds": round(seconds)}


def totals_message(totals: Totals | None) -> Answer | None:
    if totals is None:
        return None
    last = [
        {"path": file.full_path, "code": file.error_code, "detail": file.error_text} for file in totals.last_failures
    ]
    return {"files": dict(totals.by_status), "failures": dict(totals.by_code), "last_failures": last}


# Commands.


def pause_message(paused: Paused | None) -> Answer | None:
    if paused is None:
        return None
    return {"since": paused.since.isoformat(), "by": paused.by, "until": _time(paused.until)}


def scan_accepted_message(paths: Sequence[str], paused: Paused | None) -> Answer:
    return {"pid": os.getpid(), "scanning": list(paths), "paused": pause_message(paused)}


def scan_progress_message(request: Request, new_failures: Sequence[Outcome]) -> Answer:
    return {"counts": dict(request.counts), "total": request.total, "failed": _failures(new_failures)}


def scan_result_message(request: Request, new_failures: Sequence[Outcome]) -> Answer:
    unfinished: Mapping[str, Any] = {name: getattr(request, name) for name in ("still_written", "offline", "held")}
    return {"done": request.is_done, "counts": dict(request.counts), "failed": _failures(new_failures), **unfinished}


def _failures(outcomes: Sequence[Outcome]) -> list[Answer]:
    return [{"path": outcome.path, "detail": outcome.detail} for outcome in outcomes]


def decided_message(files: Sequence[File]) -> Answer:
    return {"decided": [{"id": file.id, "path": file.full_path, "code": file.error_code} for file in files]}


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
