"""How a running daemon is looked after: what it tells systemd, what it answers on its control socket, and whether the
file of its catalogue is still there.
"""

import logging
import os
from datetime import datetime
from typing import TYPE_CHECKING, Any

from soulspot.daemon import health
from soulspot.daemon.messages import paused_told
from soulspot.daemon.state import State
from soulspot.infrastructure.filesystem import path_to_text
from soulspot.ingest.outcome import PipelineStats
from soulspot.ingest.pipeline import Pipeline

if TYPE_CHECKING:
    from soulspot.daemon.hooks.hook import Hook
    from soulspot.infrastructure.watching.watcher import Watcher

logger = logging.getLogger(__name__)


def report(state: State) -> dict[str, Any]:
    """Return how the daemon is, for `soulspot status`."""
    paused = paused_told(state.pauses.gate.paused)
    described: dict[str, Any] = {"pid": os.getpid(), "since": state.since.isoformat(), "paused": paused}
    found = current_health(state)
    if (pipeline := state.pipeline) is None:
        return described | {"health": found.state, "reasons": found.reasons, "folders": {}}
    vitals = pipeline.stats()
    folders = {
        path_to_text(root.path): {
            "id": root.id,
            "watched": "inotify" if root.trusts_inodes else "inotify and reconcile",
            "last_event": _moment(state.last_event.get(root)),
            "last_reconcile": _moment(pipeline.reconciled.get(root)),
            "missed_by_watcher": 0 if state.rounds is None else state.rounds.missed[root],
            "unwatched_folders": len(pipeline.unwatched.get(root, ())),
            "unreadable": len(pipeline.folders.unreadable.get(root, ())),
        }
        for root in state.roots
    }
    return described | {
        "health": found.state,
        "reasons": found.reasons,
        "queue": {"in_hand": vitals.in_hand, "settling": vitals.settling, "oldest_seconds": round(vitals.oldest)},
        "finished": vitals.finished,
        "watcher": None if state.watcher is None else _described(state.watcher),
        "folders": folders,
        "hooks": [_told_of(hook) for hook in state.hooks],
    }


def _described(watcher: "Watcher") -> dict[str, Any]:
    return {"is_deaf": watcher.is_deaf, "overflows": watcher.overflows, "restarts": watcher.restarts}


def _told_of(hook: "Hook") -> dict[str, Any]:
    return {
        "hook": hook.kind,
        "place": hook.place,
        "error": hook.error,
        "waiting": hook.waiting,
        "delivered": hook.delivered,
        "failed": hook.failed,
        "last_delivery": _moment(hook.last_delivery),
    }


def current_health(state: State) -> health.Health:
    """Return how the daemon is at this moment."""
    if (pipeline := state.pipeline) is None:
        return health.Health("degraded", ("it is starting",))
    return judge(state, pipeline, pipeline.stats())


def judge(state: State, pipeline: Pipeline, vitals: PipelineStats) -> health.Health:
    is_stuck = state.watchdog.is_stuck(vitals)
    unreadable = pipeline.folders.unreadable
    return health.judge(vitals, pipeline.faults, pipeline.held, is_stuck=is_stuck, unreadable=unreadable)


def _moment(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
