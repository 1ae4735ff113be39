"""The wire form of what the daemon answers, in one place."""

from typing import Any

from soulspot.daemon.events import News
from soulspot.infrastructure.net.control_socket import Answer
from soulspot.ingest.pause_gate import Paused


def told(news: News) -> Answer:
    """Return what happened as the control socket tells it."""
    return {
        "lost": news.lost,
        "happened": [
            {
                "at": each.at.isoformat(),
                "kind": each.outcome.kind,
                "path": each.outcome.path,
                "track_id": each.outcome.track_id,
                "code": each.outcome.code,
                "detail": each.outcome.detail,
            }
            for each in news.happened
        ],
    }


def paused_told(paused: Paused | None) -> dict[str, Any] | None:
    """Return a pause as the control socket tells it."""
    if paused is None:
        return None
    until = paused.until.isoformat() if paused.until else None
    return {"since": paused.since.isoformat(), "by": paused.by, "until": until}
