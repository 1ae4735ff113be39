"""The worker processes: who reads what, for how long, and what becomes of a file that takes its reader down.

A hang, a bomb or a crash costs one file: the process is killed, the file that it was reading is a failure (after a
second try alone, where the process died by itself), the files behind it are read by another.
"""

import asyncio
import contextlib
import os
import sys
from collections import deque
from dataclasses import dataclass
from typing import Self

import msgspec

from soulspot.infrastructure.tags.model import Failure, Reading

IN_FLIGHT = 8
"""Files that are handed to one worker at a time, so that it need not wait for the pipe."""
RECYCLE_AFTER = 5_000
"""Files after which a worker makes room for a fresh one: a parser may leak."""
_LENGTH_BYTES = 4
_decode = msgspec.msgpack.Decoder(Reading).decode


@dataclass(slots=True, eq=False)
class _Request:
    path: str
    answer: "asyncio.Future[Reading]"
    crashes: int = 0


class TagReaders:
    """Reads files in worker processes; call `read` from as many tasks as you like.

    Args:
        workers: the number of processes.
        memory_limit: bytes of address space that each may use.
        time_limit: seconds that one file may take.

    """

    def __init__(self, workers: int, *, memory_limit: int = 512 << 20, time_limit: float = 20.0) -> None:
        self._workers = workers
        self._memory_limit = memory_limit
        self._time_limit = time_limit
        self._waiting: deque[_Request] = deque()
        self._any = asyncio.Condition()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._keep_worker()) for _number in range(self._workers)]
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End the workers; what is still being read is cancelled."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for request in self._waiting:
            request.answer.cancel()

    async def read(self, path: str) -> Reading:
        """Return what is in a file; raises only when the readers themselves cannot run."""
        request = _Request(path, asyncio.get_running_loop().create_future())
        await self._put(request)
        return await request.answer

    async def _put(self, request: _Request) -> None:
        async with self._any:
            self._waiting.append(request)
            self._any.notify()

    async def _take(self) -> _Request:
        async with self._any:
            await self._any.wait_for(lambda: self._waiting)
            return self._waiting.popleft()

    async def _keep_worker(self) -> None:
        while True:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "soulspot.infrastructure.tags.worker", str(self._memory_limit),
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
                env=_environment(),
            )  # fmt: skip
            try:
                await self._serve(process)
            finally:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()

    async def _serve(self, process: asyncio.subprocess.Process) -> None:
        """Feed one worker until it ends, is killed, or has read enough."""
        sent: deque[_Request] = deque()
        room = asyncio.Semaphore(IN_FLIGHT)
        feeding = asyncio.create_task(self._feed(process, sent, room))
        arrived = asyncio.create_task(self._collect(process, sent, room))
        try:
            await asyncio.wait([feeding, arrived], return_when=asyncio.FIRST_COMPLETED)
            if not arrived.done():
                await arrived  # it has been given enough: what it has is waited for
            failure = arrived.result()
        finally:
            for task in (feeding, arrived):
                task.cancel()
            await asyncio.gather(feeding, arrived, return_exceptions=True)
        if sent and failure is not None:
            await self._blame(sent.popleft(), failure)
        for request in sent:
            if not request.answer.done():
                await self._put(request)

    async def _blame(self, request: _Request, failure: Failure) -> None:
        request.crashes += 1
        if failure.code == "crashed" and request.crashes == 1:
            await self._put(request)  # it may have been the one before, or the kernel short of memory
        elif not request.answer.done():
            request.answer.set_result(Reading(failure=failure))

    async def _feed(self, process: asyncio.subprocess.Process, sent: deque[_Request], room: asyncio.Semaphore) -> None:
        assert process.stdin is not None
        for _number in range(RECYCLE_AFTER):
            await room.acquire()
            request = await self._take()
            sent.append(request)
            path = os.fsencode(request.path)
            process.stdin.write(len(path).to_bytes(_LENGTH_BYTES, "little") + path)
        process.stdin.close()

    async def _collect(
        self, process: asyncio.subprocess.Process, sent: deque[_Request], room: asyncio.Semaphore
    ) -> Failure | None:
        """Hand out answers until the worker ends; return what the file that it was reading is to be told."""
        assert process.stdout is not None
        while True:
            try:
                async with asyncio.timeout(self._time_limit if sent else None) as limit:
                    head = await self._next_head(process.stdout, sent, limit)
                    body = await process.stdout.readexactly(int.from_bytes(head, "little"))
            except TimeoutError:
                return Failure("timeout", f"reading its tags took longer than {self._time_limit:g} s")
            except (asyncio.IncompleteReadError, ConnectionResetError):
                return Failure("crashed", "its tags took the reader down, twice") if sent else None
            request = sent.popleft()
            room.release()
            if not request.answer.done():
                request.answer.set_result(_decode(body))

    async def _next_head(self, stdout: asyncio.StreamReader, sent: deque[_Request], limit: asyncio.Timeout) -> bytes:
        """Wait for an answer; the time of a file begins when it is sent to an idle worker."""
        reading = asyncio.ensure_future(stdout.readexactly(_LENGTH_BYTES))
        try:
            while not (await asyncio.wait([reading], timeout=0.5))[0]:
                if sent and limit.when() is None:
                    limit.reschedule(asyncio.get_running_loop().time() + self._time_limit)
            return reading.result()
        finally:
            reading.cancel()


def _environment() -> dict[str, str]:
    """Return the environment of a worker, which is none of the service manager's business."""
    notified = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID")
    return {name: value for name, value in os.environ.items() if name not in notified}
