"""The probes for a supervisor: liveness and readiness."""

from http import HTTPStatus

from soulspot.daemon.state import DaemonState
from soulspot.daemon.status import current_health
from soulspot.infrastructure.net.http_server import HttpReply


async def livez(state: DaemonState) -> HttpReply:
    """Fail only if work is stuck: the supervisor should then restart the daemon, as systemd does."""
    found = current_health(state)
    if found.state == "failed":
        return HttpReply.of(HTTPStatus.SERVICE_UNAVAILABLE, "\n".join(("failed", *found.reasons)))
    return HttpReply.of(HTTPStatus.OK, "ok")


async def readyz(state: DaemonState) -> HttpReply:
    """Succeed if a file dropped now would be catalogued: the daemon watches, the database answers, work progresses."""
    found = current_health(state)
    is_live = state.watcher is not None and state.watcher.is_live.is_set()
    if state.pipeline is None or not is_live or found.state in {"paused", "failed"}:
        reasons = found.reasons if is_live or state.pipeline is None else ("not watching yet", *found.reasons)
        return HttpReply.of(HTTPStatus.SERVICE_UNAVAILABLE, "\n".join(("not ready", *reasons)))
    return HttpReply.of(HTTPStatus.OK, "\n".join(("ready", *found.reasons)))
