"""Waits for news of a catalogue in SQLite: its daemon tells of them, and where none does, somebody has to look."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, aclosing, suppress
from functools import partial
from pathlib import Path
from typing import Final

from soulspot.infrastructure.net import control_socket
from soulspot.infrastructure.persistence.backend import Wait
from soulspot.infrastructure.persistence.postgresql.notifications import woken

LOOK_ANYWAY: Final = 1.0
"""Seconds after which it is looked all the same: what becomes of a folder is written down, and told nobody."""
AGAIN_AFTER: Final = 1.0

Place = Callable[[], Path | None]
"""Returns the control socket of the daemon, None where there is none."""


def told_by_the_daemon(place: Place) -> AbstractAsyncContextManager[Wait]:
    """Yield what waits until there may be something new."""
    return woken(partial(_listen, place), LOOK_ANYWAY)


async def _listen(place: Place, rung: asyncio.Event, is_told: asyncio.Event) -> None:
    while True:
        where = place()
        if where is not None:
            with suppress(OSError):
                async with aclosing(control_socket.listen(where, "follow")) as answers:
                    async for told in answers:
                        if "error" in told:
                            break
                        is_told.set()
                        rung.set()
        is_told.clear()
        rung.set()
        await asyncio.sleep(AGAIN_AFTER)
