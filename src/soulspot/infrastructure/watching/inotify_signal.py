"""Rings when the kernel has events for an inotify instance, so that nobody has to look two hundred times a second.

watchfiles looks every few milliseconds whether its own thread has read something, which is most of what an idle daemon
costs. To wait for its descriptor does not work: that thread has read it empty before anybody else looks. The kernel's
signal for it (O_ASYNC, fcntl(2)) is sent with the event, whoever reads it. The signal is SIGIO, which also comes when
somebody opens a file that we hold a lease on: then it rings for nothing.
"""

import asyncio
import atexit
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
        self._loop: asyncio.AbstractEventLoop | None = None
        self._told = False

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._loop = asyncio.get_running_loop()
            # Not the loop's own handler, and not taken down again while the process lives: between two handlers
            # Python complains of a signal that came a moment ago, and the default kills.
            if signal.signal(signal.SIGIO, self._heard) in (signal.SIG_DFL, signal.SIG_IGN):
                atexit.register(ignore_lease_signals)
            signal.siginterrupt(signal.SIGIO, False)  # noqa: FBT003 - its only form
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._loop = None

    def _heard(self, *_signal: object) -> None:
        # The next signal interrupts this one, and the one after it that one: in a storm each that did any work would
        # lie above the last, until the stack is full. So only the first works.
        if self._loop is not None and not self._told:
            self._told = True
            self._loop.call_soon_threadsafe(self._ring)

    def _ring(self) -> None:
        self._told = False
        self._rung.set()

    def arm(self, descriptors: Iterable[int]) -> None:
        """Ring at the next event of these inotify instances."""
        self._rung.clear()
        for descriptor in descriptors if self._loop else ():
            owner = struct.pack("ii", _OWNER_IS_THREAD, threading.get_native_id())
            fcntl.fcntl(descriptor, _SET_OWNER, owner)
            fcntl.fcntl(descriptor, fcntl.F_SETFL, fcntl.fcntl(descriptor, fcntl.F_GETFL) | os.O_ASYNC)

    def disarm(self, descriptors: Iterable[int]) -> None:
        """Ring no more: in a storm each event would."""
        for descriptor in descriptors if self._loop else ():
            fcntl.fcntl(descriptor, fcntl.F_SETFL, fcntl.fcntl(descriptor, fcntl.F_GETFL) & ~os.O_ASYNC)

    async def wait(self, seconds: float) -> None:
        """Wait until it rings, or for so long."""
        if self._loop is None:
            return
        try:
            async with asyncio.timeout(seconds):
                await self._rung.wait()
        except TimeoutError:
            return
