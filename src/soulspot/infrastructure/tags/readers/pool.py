"""The worker processes: who reads what, for how long, and what becomes of a file that takes its reader down.

A hang, a bomb or a crash costs one file: the process is killed, and what it had not answered is read once more, each
file on its own; one that takes a reader down on its own is a failure. One that takes down the daemon as well is found
noted in a journal, read on its own after the next start, and a failure after the third.
"""

import asyncio
import contextlib
import logging
import os
import sys
from collections import deque
from dataclasses import dataclass, field
from typing import Self

from soulspot.infrastructure.privileges import reader_user
from soulspot.infrastructure.tags.model import Failure, Reading
from soulspot.infrastructure.tags.readers.crash_journal import DEATHS_LIMIT, Journal
from soulspot.infrastructure.tags.readers.frames import LENGTH, decode_readings, frame

logger = logging.getLogger(__name__)

IN_FLIGHT = 16
"""Files that one worker has at most, so that it need not wait for the next."""
AT_ONCE = 6
"""Files that a worker gets at least while it has others: each write to its pipe costs as much as a transaction."""
DEAL_EVERY = 0.005
"""Seconds from one to the next time that fewer are handed out: what comes one by one meanwhile goes together."""
END_LIMIT = 1.0
"""Seconds that a worker has to end by itself."""
RECYCLE_AFTER = 5_000
"""Files after which a worker makes room for a fresh one: a parser may leak."""
READER_PROCESS = "soulspot.infrastructure.tags.readers.reader_process"


@dataclass(slots=True, eq=False)
class _Request:
    path: str
    answer: "asyncio.Future[Reading]"
    is_suspect: bool = False  # a reader went down that had it, maybe over another file


@dataclass(slots=True, eq=False)
class _Worker:
    process: asyncio.subprocess.Process
    sent: deque[_Request] = field(default_factory=deque)
    files: int = 0
    alarm: asyncio.TimerHandle | None = None
    ran_out_of_time: bool = False
    waited_for_disk: bool = False

    def share(self, waiting: int, workers: int) -> int:
        """Return how many of the files that wait for so many workers this one is to get now."""
        if self.files >= RECYCLE_AFTER or (self.sent and self.sent[0].is_suspect):
            return 0
        if not self.sent:
            return min(IN_FLIGHT, -(-waiting // workers))
        share = min(IN_FLIGHT - len(self.sent), waiting)
        return share if share >= AT_ONCE else 0

    def send(self, requests: list[_Request]) -> None:
        assert self.process.stdin is not None
        self.sent.extend(requests)
        self.files += len(requests)
        self.process.stdin.write(frame([os.fsencode(request.path) for request in requests]))
        if self.files >= RECYCLE_AFTER:
            self.process.stdin.close()

    def set_alarm(self, seconds: float) -> None:
        """Give the file that is being read so long from now."""
        if self.alarm is not None:
            self.alarm.cancel()
        self.alarm = asyncio.get_running_loop().call_later(seconds, self._give_up) if self.sent else None

    def _give_up(self) -> None:
        self.ran_out_of_time = True
        self.waited_for_disk = _is_waiting(self.process.pid)
        self.kill()

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()


class TagReaders:
    """Reads files in worker processes; call `read` from as many tasks as you like.

    Args:
        workers: the number of processes.
        memory_limit: bytes of address space that each may use.
        time_limit: seconds that one file may take.
        journal: the file that keeps what is in work, in a folder that can be written; None to remember nothing.

    """

    def __init__(
        self, workers: int, *, memory_limit: int = 512 << 20, time_limit: float = 20.0, journal: str | None = None
    ) -> None:
        self._number = workers
        self._journal_file = journal
        self._journal: Journal | None = None
        self._memory_limit = memory_limit
        self._time_limit = time_limit
        self._waiting: deque[_Request] = deque()
        self._urgent: deque[_Request] = deque()
        self._suspects: deque[_Request] = deque()
        self._workers: list[_Worker] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._dealing: asyncio.TimerHandle | None = None
        self._dealt = 0.0

    async def __aenter__(self) -> Self:
        return self

    def start(self) -> None:
        """Start the processes, where they do not run; else the first file that is read does."""
        if not self._tasks:
            self._open_journal()
            self._tasks = [
                asyncio.create_task(self._keep_worker(place), name=f"tag reader {place}")
                for place in range(self._number)
            ]

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End the workers; what is still being read is cancelled."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for request in [*self._urgent, *self._waiting, *self._suspects]:
            request.answer.cancel()
        if self._journal is not None:
            self._journal.close()
            self._journal = None

    async def read(self, path: str, *, is_urgent: bool = False) -> Reading:
        """Return what is in a file, an urgent one first; raises only when the readers themselves cannot run."""
        self.start()
        request = _Request(path, asyncio.get_running_loop().create_future())
        if self._journal is not None and path in self._journal.deaths:
            return await self._read_suspect(request, self._journal)
        (self._urgent if is_urgent else self._waiting).append(request)
        self._deal_soon()
        return await request.answer

    async def _read_suspect(self, request: _Request, journal: Journal) -> Reading:
        deaths = journal.deaths[request.path]
        if deaths >= DEATHS_LIMIT:
            reading = Reading(failure=Failure("crashed-parser", f"soulspot went down {deaths} times while reading it"))
        else:
            request.is_suspect = True
            self._suspects.append(request)
            self._deal_soon()
            reading = await request.answer
        journal.forgive(request.path)
        return reading

    def _open_journal(self) -> None:
        if self._journal_file is not None:
            try:
                self._journal = Journal(self._journal_file)
            except OSError as error:
                logger.warning("no journal of what is being read: %s", error)

    def _deal_soon(self) -> None:
        """Hand out what is waiting, all that is asked for by then at once: a write to a pipe costs a wake-up.

        One that comes alone is handed out at once, many are, and some that follow each other closely a moment later.
        Suspects go one by one, so they have nobody to wait for.
        """
        is_now = bool(self._suspects) or self._number_asked >= AT_ONCE * self._number
        moment = 0.0 if is_now else self._dealt + DEAL_EVERY
        if self._dealing is None or moment < self._dealing.when():
            if self._dealing is not None:
                self._dealing.cancel()
            self._dealing = asyncio.get_running_loop().call_at(moment, self._deal)

    @property
    def _number_asked(self) -> int:
        return len(self._urgent) + len(self._waiting)

    def _deal(self) -> None:
        self._dealing, self._dealt = None, asyncio.get_running_loop().time()
        for worker in sorted(self._workers, key=lambda worker: len(worker.sent)):
            if self._suspects:
                requests = [] if worker.sent else [self._suspects.popleft()]
            else:
                share = worker.share(self._number_asked, self._number)
                requests = [(self._urgent or self._waiting).popleft() for _number in range(share)]
            if requests:
                was_idle = not worker.sent
                worker.send(requests)
                if was_idle:
                    worker.set_alarm(self._time_limit)

    async def _keep_worker(self, place: int) -> None:
        noted = [self._journal.file, str(place)] if self._journal is not None else []
        started, told = reader_user()
        while True:
            worker = _Worker(
                await asyncio.create_subprocess_exec(
                    sys.executable, "-m", READER_PROCESS, str(self._memory_limit), told, *noted,
                    stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
                    env=environment(), **started,
                )
            )  # fmt: skip
            try:
                await self._collect(worker)
                await _ended(worker.process)
            finally:
                worker.kill()
                await worker.process.wait()
                if self._journal is not None:
                    self._journal.clear(place)
                self._take_back(worker)

    async def _collect(self, worker: _Worker) -> None:
        """Give files to a worker, and hand on what it answers, until it ends."""
        stdout = worker.process.stdout
        assert stdout is not None
        self._workers.append(worker)
        self._deal_soon()
        try:
            while True:
                (length,) = LENGTH.unpack(await stdout.readexactly(LENGTH.size))
                for reading in decode_readings(await stdout.readexactly(length)):
                    request = worker.sent.popleft()
                    if not request.answer.done():
                        request.answer.set_result(reading)
                worker.set_alarm(self._time_limit)
                self._deal_soon()
        except (asyncio.IncompleteReadError, ConnectionResetError):
            pass
        finally:
            self._workers.remove(worker)

    def _take_back(self, worker: _Worker) -> None:
        """Have read again what a worker that ended has not answered; tell a file that was alone with it."""
        failure = Failure("crashed-parser", "its tags took the reader down, twice")
        if worker.ran_out_of_time:
            failure = Failure("timeout", f"reading its tags took longer than {self._time_limit:g} s")
        if worker.waited_for_disk:
            failure = Failure("unreadable", f"its disk did not answer for {self._time_limit:g} s")
        if worker.alarm is not None:
            worker.alarm.cancel()
        for request in worker.sent:
            if request.answer.done():
                continue
            if request.is_suspect or (worker.ran_out_of_time and len(worker.sent) == 1):
                request.answer.set_result(Reading(failure=failure))
            else:
                request.is_suspect = True
                self._suspects.append(request)


async def _ended(process: asyncio.subprocess.Process) -> None:
    """Wait for a process that has closed its output: to signal one that has ended takes its end from asyncio."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(END_LIMIT):
            await process.wait()


def _is_waiting(process: int) -> bool:
    """Whether a process waits, which a reader does for the disk and nothing else, and does not work (proc(5))."""
    try:
        with open(f"/proc/{process}/stat", "rb") as stat:
            return stat.read().rpartition(b")")[2].split()[0] in {b"D", b"S"}
    except OSError:
        return False


def environment() -> dict[str, str]:
    """Return the environment of a worker, which is none of the service manager's business."""
    notified = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID")
    return {name: value for name, value in os.environ.items() if name not in notified}
