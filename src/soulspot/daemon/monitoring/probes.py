"""What a supervisor asks for: whether the daemon is alive, and whether it does its work."""

from http import HTTPStatus

from soulspot.daemon.state import State
from soulspot.daemon.status import current_health
from soulspot.infrastructure.net.http_server import Reply


async def livez(state: State) -> Reply:
    """Say whether to leave it alone: only one whose work stands still is to be started again, as systemd does."""
    found = current_health(state)
    if found.state == "failed":
        return Reply.of(HTTPStatus.SERVICE_UNAVAILABLE, "\n".join(("failed", *found.reasons)))
    return Reply.of(HTTPStatus.OK, "ok")


async def readyz(state: State) -> Reply:
    """Say whether what is dropped now gets into the catalogue: it watches, the database answers, work goes on."""
    found = current_health(state)
    is_live = state.watcher is not None and state.watcher.is_live.is_set()
    if state.pipeline is None or not is_live or found.state in {"paused", "failed"}:
        reasons = found.reasons if is_live or state.pipeline is None else ("it does not watch yet", *found.reasons)
        return Reply.of(HTTPStatus.SERVICE_UNAVAILABLE, "\n".join(("not ready", *reasons)))
    return Reply.of(HTTPStatus.OK, "\n".join(("ready", *found.reasons)))
