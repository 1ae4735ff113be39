"""Serves the page until a signal stops it or, if it was started on demand, until it is idle."""

import asyncio
import logging
import signal
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import uvicorn
from starlette.types import ASGIApp

from soulspot.infrastructure.net.sockets import BACKLOG
from soulspot.infrastructure.systemd import notify
from soulspot.web.middleware import Activity

logger = logging.getLogger(__name__)

MAX_CONNECTIONS: Final = 128
"""Connections at the same time; one more gets status 503."""
MAX_HEAD_BYTES: Final = 16_384
"""The longest request head."""
SILENT_SECONDS: Final = 20.0
"""Seconds after which a connection without a request is closed."""
CHECK_INTERVAL: Final = 2.0
STOP_TIMEOUT: Final = 3
"""Seconds to wait for open responses when the server stops."""


@dataclass(frozen=True, slots=True)
class StopConditions:
    """Conditions that stop the server: `idle` seconds without a request, or a replaced catalogue."""

    idle: float | None
    is_replaced: Callable[[], bool]


async def serve(app: ASGIApp, sockets: Sequence[socket.socket], activity: Activity, conditions: StopConditions) -> None:
    """Serve until a signal or a stop condition."""
    for number in (signal.SIGTERM, signal.SIGINT):
        # uvicorn stops on the signal, then raises it again for the previous handler, which ignores it.
        signal.signal(number, lambda *_: None)
    server = uvicorn.Server(
        uvicorn.Config(
            app, http="h11", ws="none", loop="asyncio", lifespan="on", log_config=None, log_level="warning",
            access_log=False, server_header=False, proxy_headers=False,
            limit_concurrency=MAX_CONNECTIONS, backlog=BACKLOG,
            h11_max_incomplete_event_size=MAX_HEAD_BYTES, timeout_keep_alive=30,
            timeout_graceful_shutdown=STOP_TIMEOUT,
        )
    )  # fmt: skip
    supervising = asyncio.create_task(_supervise(server, activity, conditions), name="supervise the web server")
    try:
        await server.serve(list(sockets))
    finally:
        supervising.cancel()


async def _supervise(server: uvicorn.Server, activity: Activity, conditions: StopConditions) -> None:
    """Stop the server on a stop condition, and close connections that stay without a request."""
    silent: dict[object, float] = {}
    while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.01)
    notify("READY=1", "STATUS=serving the page")
    while not server.should_exit:
        await asyncio.sleep(min(CHECK_INTERVAL, (conditions.idle or CHECK_INTERVAL) / 2))
        if conditions.idle is not None and activity.idle_for() > conditions.idle:
            logger.info("no request for %g s: exiting until the next one", conditions.idle)
            server.should_exit = True
        elif conditions.is_replaced():
            logger.warning("the catalogue was replaced by another file: exiting; start the page again")
            server.should_exit = True
        silent = _close_silent(server, silent)


def _close_silent(server: uvicorn.Server, before: dict[object, float]) -> dict[object, float]:
    """Abort connections without a request, or stuck in closing; return since when each one is silent."""
    silent, now = dict[object, float](), time.monotonic()
    for each in list(server.server_state.connections):
        transport = getattr(each, "transport", None)
        if transport is not None and (transport.is_closing() or getattr(each, "cycle", None) is None):
            silent[each] = before.get(each, now)
            if now - silent[each] > SILENT_SECONDS:
                transport.abort()
    return silent
