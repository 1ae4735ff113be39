"""Rings when the kernel has events for an inotify instance, so that nobody has to look two hundred times a second.

watchfiles looks every few milliseconds whether its own thread has read something, which is most of what an idle daemon
costs. To wait for its descriptor does not work: that thread has read it empty before anybody else looks. The kernel's
signal for it (O_ASYNC, fcntl(2)) is sent with the event, whoever reads it. The signal is SIGIO, which also comes when
somebody opens a file that we hold a lease on: then it rings for nothing.
"""

import asyncio
import fcntl
import os
import signal
import struct
import threading
from collections.abc import Iterable
from typing import Self

from soulspot.infrastructure.filesystem import ignore_lease_signals

_SET_OWNER, _OWNER_IS_THREAD = 15, 0  # F_SETOWN_EX and F_OWNER_TID, which the fcntl module lacks


class Doorbell:
    """One bell for the process, in the main thread, to which signals come; elsewhere nobody ever waits for it."""

    def __init__(self) -> None:
        self._rung = asyncio.Event()
        self._hangs = False

    def __enter__(self) -> Self:
        self._hangs = threading.current_thread() is threading.main_thread()
        if self._hangs:
            loop = asyncio.get_running_loop()
            # Not the loop's own handler: to remove that one leaves the default for a moment, and the default kills.
            signal.signal(signal.SIGIO, lambda *_signal: loop.call_soon_threadsafe(self._rung.set))
            signal.siginterrupt(signal.SIGIO, False)  # noqa: FBT003 - its only form
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._hangs:
            ignore_lease_signals()

    def arm(self, descriptors: Iterable[int]) -> None:
        """Ring at the next event of these inotify instances."""
        self._rung.clear()
        for descriptor in descriptors if self._hangs else ():
            owner = struct.pack("ii", _OWNER_IS_THREAD, threading.get_native_id())
            fcntl.fcntl(descriptor, _SET_OWNER, owner)
            fcntl.fcntl(descriptor, fcntl.F_SETFL, fcntl.fcntl(descriptor, fcntl.F_GETFL) | os.O_ASYNC)

    def disarm(self, descriptors: Iterable[int]) -> None:
        """Ring no more: in a storm each event would."""
        for descriptor in descriptors if self._hangs else ():
            fcntl.fcntl(descriptor, fcntl.F_SETFL, fcntl.fcntl(descriptor, fcntl.F_GETFL) & ~os.O_ASYNC)

    async def wait(self, seconds: float) -> None:
        """Wait until it rings, or for so long."""
        if not self._hangs:
            return
        try:
            async with asyncio.timeout(seconds):
                await self._rung.wait()
        except TimeoutError:
            return
