"""The daemon's health, and its answer to `status`."""

from typing import Any

from soulspot.daemon import health
from soulspot.daemon.answers import folder_message, hook_message, queue_message, status_message, watcher_message
from soulspot.daemon.state import DaemonState
from soulspot.infrastructure.filesystem import path_to_text
from soulspot.ingest.disk.walker import Root
from soulspot.ingest.pipeline import Pipeline


def daemon_status(state: DaemonState) -> dict[str, Any]:
    """Return the reply to `status`."""
    status = status_message(state.since, current_health(state), state.pauses.gate.paused)
    if (pipeline := state.pipeline) is None:
        return status | {"folders": {}}
    stats = pipeline.stats()
    return status | {
        "queue": queue_message(stats),
        "finished": stats.finished,
        "watcher": watcher_message(state.watcher),
        "folders": {path_to_text(root.path): _folder(state, pipeline, root) for root in state.roots},
        "hooks": [hook_message(hook) for hook in state.hooks],
    }


def _folder(state: DaemonState, pipeline: Pipeline, root: Root) -> dict[str, Any]:
    return folder_message(
        root,
        last_event=state.last_event.get(root),
        last_reconcile=pipeline.reconciled.get(root),
        missed=0 if state.polling is None else state.polling.missed[root],
        unwatched=len(pipeline.unwatched.get(root, ())),
        unreadable=len(pipeline.folders.unreadable.get(root, ())),
    )


def current_health(state: DaemonState) -> health.Health:
    if (pipeline := state.pipeline) is None:
        return health.Health("degraded", ("the daemon is starting",))
    stats, unreadable = pipeline.stats(), pipeline.folders.unreadable
    is_stuck = state.watchdog.is_stuck(stats)
    return health.judge(stats, pipeline.faults, pipeline.held, is_stuck=is_stuck, unreadable=unreadable)
