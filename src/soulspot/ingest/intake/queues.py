"""The queue in which complete files wait for a worker."""

import asyncio
from collections import deque

from soulspot.ingest.activity import Pending


class Ready:
    """Complete files that wait for a worker: those that a hint named first, then those that a scan found.

    Each kind has little room: a caller with more files waits, and decides again what comes first.
    """

    def __init__(self, *, fresh_room: int, bulk_room: int) -> None:
        self._fresh: deque[Pending] = deque()
        self._bulk: deque[Pending] = deque()
        self._fresh_room = asyncio.Semaphore(fresh_room)
        self._bulk_room = asyncio.Semaphore(bulk_room)
        self._idle: deque[asyncio.Future[None]] = deque()  # workers that wait
        self._is_closed = False

    async def put(self, pending: Pending) -> None:
        """Wait for room, and add a file."""
        await (self._fresh_room if pending.is_fresh else self._bulk_room).acquire()
        (self._fresh if pending.is_fresh else self._bulk).append(pending)
        self._wake_one()

    async def take(self) -> Pending | None:
        """Return the next file; None once the queue is closed."""
        while not (self._fresh or self._bulk or self._is_closed):
            self._idle.append(waiting := asyncio.get_running_loop().create_future())
            await waiting
        if self._is_closed:
            return None
        files, room = (self._fresh, self._fresh_room) if self._fresh else (self._bulk, self._bulk_room)
        room.release()
        return files.popleft()

    def close(self) -> None:
        """Hand out no more files."""
        self._is_closed = True
        while self._idle:
            self._wake_one()

    def _wake_one(self) -> None:
        while self._idle:
            waiting = self._idle.popleft()
            if not waiting.done():  # it is done if its worker was cancelled
                waiting.set_result(None)
                return
