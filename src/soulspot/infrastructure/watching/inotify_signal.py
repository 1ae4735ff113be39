"""Wakes the watcher by SIGIO when inotify has events, instead of polling 200 times a second.

watchfiles checks every few milliseconds whether its own thread has read something, which is most of what an idle daemon
costs. Waiting for its descriptor does not work: that thread empties it before another can see the events. The kernel's
signal for it (O_ASYNC, fcntl(2)) comes with the event, whichever thread reads it. SIGIO also comes when another process
opens a file that soulspot holds a lease on; that wake-up is spurious and harmless.
"""

import asyncio
import atexit
import fcntl
import os
import signal
import struct
import threading
from collections.abc import Iterable
from contextlib import suppress
from typing import Self

from soulspot.infrastructure.filesystem import ignore_lease_signals

_SET_OWNER, _OWNER_IS_THREAD = 15, 0  # F_SETOWN_EX and F_OWNER_TID, which the fcntl module lacks


class InotifyWakeup:
    """Works in the main thread, which receives signals; in other threads `wait` returns at once."""

    def __init__(self) -> None:
        self._woken = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_waking = False

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._loop = asyncio.get_running_loop()
            # Not the loop's own handler, and never removed while the process lives: between two handlers Python
            # reports a signal that has just come, and the default action kills.
            if signal.signal(signal.SIGIO, self._on_signal) in (signal.SIG_DFL, signal.SIG_IGN):
                atexit.register(ignore_lease_signals)
            signal.siginterrupt(signal.SIGIO, False)  # noqa: FBT003 - its only form
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._loop = None

    def _on_signal(self, *_signal: object) -> None:
        # Each signal may interrupt the previous one's handler. In a storm, handlers that did any work would pile up
        # until the stack is full; so only the first one works.
        if self._loop is not None and not self._is_waking:
            self._is_waking = True
            self._loop.call_soon_threadsafe(self.wake)

    def wake(self) -> None:
        self._is_waking = False
        self._woken.set()

    def arm(self, descriptors: Iterable[int]) -> None:
        """Wake at the next event of these inotify instances."""
        self._woken.clear()
        for descriptor in descriptors if self._loop else ():
            fcntl.fcntl(descriptor, _SET_OWNER, struct.pack("ii", _OWNER_IS_THREAD, threading.get_native_id()))
            fcntl.fcntl(descriptor, fcntl.F_SETFL, fcntl.fcntl(descriptor, fcntl.F_GETFL) | os.O_ASYNC)

    def disarm(self, descriptors: Iterable[int]) -> None:
        """Stop waking, because in a storm every event would wake."""
        for descriptor in descriptors if self._loop else ():
            fcntl.fcntl(descriptor, fcntl.F_SETFL, fcntl.fcntl(descriptor, fcntl.F_GETFL) & ~os.O_ASYNC)

    async def wait(self, seconds: float) -> None:
        """Wait for a wake-up, at most these seconds."""
        if self._loop is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._woken.wait()
