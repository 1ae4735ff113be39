"""Serves the pages until told to stop, or until nobody has asked for a while where others wait at the socket."""

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

CONNECTIONS: Final = 128
"""Connections at once; one more is told to come again."""
LONGEST_HEAD: Final = 16_384
"""Bytes of the lines before a request's body."""
SILENT_FOR: Final = 20.0
"""Seconds after which a connection is cut that has not asked for anything."""
LOOK_EVERY: Final = 2.0
STOP_WITHIN: Final = 3
"""Seconds that answers have to end in when the server does."""


@dataclass(frozen=True, slots=True)
class Ending:
    """When the server ends by itself: after so many seconds without anybody, or when its catalogue is another file."""

    idle: float | None
    is_replaced: Callable[[], bool]


async def serve(app: ASGIApp, sockets: Sequence[socket.socket], activity: Activity, ending: Ending) -> None:
    """Answer requests until told to stop by a signal, or by `ending`."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)  # uvicorn hands a signal on when it has ended, to the one before
    server = uvicorn.Server(
        uvicorn.Config(
            app, http="h11", ws="none", loop="asyncio", lifespan="on", log_config=None, log_level="warning",
            access_log=False, server_header=False, proxy_headers=False,
            limit_concurrency=CONNECTIONS, backlog=BACKLOG,
            h11_max_incomplete_event_size=LONGEST_HEAD, timeout_keep_alive=30,
            timeout_graceful_shutdown=STOP_WITHIN,
        )
    )  # fmt: skip
    looking = asyncio.create_task(_look_after(server, activity, ending))
    try:
        await server.serve(list(sockets))
    finally:
        looking.cancel()


async def _look_after(server: uvicorn.Server, activity: Activity, ending: Ending) -> None:
    """End the server when it is to end, and cut connections that only hold a place."""
    silent: dict[object, float] = {}
    while not server.started:  # noqa: ASYNC110 - uvicorn does not tell
        await asyncio.sleep(0.01)
    notify("READY=1", "STATUS=serving the page")
    while not server.should_exit:
        await asyncio.sleep(min(LOOK_EVERY, (ending.idle or LOOK_EVERY) / 2))
        if ending.idle is not None and activity.idle_for() > ending.idle:
            logger.info("nobody has asked for %g s: ending until somebody does", ending.idle)
            server.should_exit = True
        elif ending.is_replaced():
            logger.warning("the catalogue was replaced by another file: ending; start the page again")
            server.should_exit = True
        silent = _cut_silent(server, silent)


def _cut_silent(server: uvicorn.Server, before: dict[object, float]) -> dict[object, float]:
    """Cut who has asked nothing for long, or takes nothing of what ends; return since when each has been silent."""
    silent: dict[object, float] = {}
    now = time.monotonic()
    for each in list(server.server_state.connections):
        transport = getattr(each, "transport", None)
        is_asking = getattr(each, "cycle", None) is not None
        if transport is not None and (transport.is_closing() or not is_asking):
            silent[each] = before.get(each, now)
            if now - silent[each] > SILENT_FOR:
                transport.abort()
    return silent
