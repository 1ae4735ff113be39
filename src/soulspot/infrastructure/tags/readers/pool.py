"""The pool of reader processes: distributes files, limits the time of each, and isolates files that crash a reader.

A hang, a bomb or a crash costs one file: the pool kills the process and reads its unanswered files again, one at a
time. A file that crashes a reader then is a failure. A file that crashes the daemon too is found in the crash journal
at the next start and read alone; after the third crash it is a failure.
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
from soulspot.infrastructure.tags.readers.crash_journal import MAX_CRASHES, Journal
from soulspot.infrastructure.tags.readers.frames import LENGTH, decode_readings, frame

logger = logging.getLogger(__name__)

IN_FLIGHT = 16
"""Maximum of files sent to one reader, enough that it never waits for the next."""
MIN_BATCH = 6
"""Minimum of files sent to a busy reader: each write to its pipe costs as much as a transaction."""
BATCH_INTERVAL = 0.005
"""Seconds between two smaller batches: files requested one by one in between go together."""
EXIT_TIMEOUT = 1.0
"""Seconds that a reader gets to exit before it is killed."""
RECYCLE_AFTER = 5_000
"""Files after which a reader is replaced: a parser may leak memory."""


@dataclass(slots=True, eq=False)
class _Request:
    path: str
    answer: "asyncio.Future[Reading]"
    is_suspect: bool = False  # a reader crashed that had it, maybe on another file


@dataclass(slots=True, eq=False)
class _Reader:
    process: asyncio.subprocess.Process
    sent: deque[_Request] = field(default_factory=deque)
    files: int = 0
    timer: asyncio.TimerHandle | None = None
    timed_out: bool = False
    was_blocked: bool = False

    def share(self, waiting: int, readers: int) -> int:
        """Return how many of the waiting files this one of several readers gets now."""
        if self.files >= RECYCLE_AFTER or (self.sent and self.sent[0].is_suspect):
            return 0
        if not self.sent:
            return min(IN_FLIGHT, -(-waiting // readers))
        share = min(IN_FLIGHT - len(self.sent), waiting)
        return share if share >= MIN_BATCH else 0

    def send(self, requests: list[_Request]) -> None:
        assert self.process.stdin is not None
        self.sent.extend(requests)
        self.files += len(requests)
        self.process.stdin.write(frame([os.fsencode(request.path) for request in requests]))
        if self.files >= RECYCLE_AFTER:
            self.process.stdin.close()

    def set_timer(self, seconds: float) -> None:
        """Restart the time limit for the file that is being read."""
        if self.timer is not None:
            self.timer.cancel()
        self.timer = asyncio.get_running_loop().call_later(seconds, self._time_out) if self.sent else None

    def _time_out(self) -> None:
        self.timed_out = True
        self.was_blocked = _is_blocked(self.process.pid)
        self.kill()

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()


class TagReaders:
    """Reads files in processes; any number of tasks may call `read`.

    Args:
        number: how many processes to run.
        memory_limit: address space of each, in bytes.
        time_limit: for one file, in seconds.
        journal: path of the crash journal, None for no journal.

    """

    def __init__(
        self, number: int, *, memory_limit: int = 512 << 20, time_limit: float = 20.0, journal: str | None = None
    ) -> None:
        self._number = number
        self._journal_file = journal
        self._journal: Journal | None = None
        self._memory_limit = memory_limit
        self._time_limit = time_limit
        self._waiting: deque[_Request] = deque()
        self._urgent: deque[_Request] = deque()
        self._suspects: deque[_Request] = deque()
        self._readers: list[_Reader] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._dispatching: asyncio.TimerHandle | None = None
        self._dispatched_at = 0.0

    async def __aenter__(self) -> Self:
        return self

    def start(self) -> None:
        """Start the processes unless they run; `read` does so too."""
        if not self._tasks:
            self._open_journal()
            self._tasks = [
                asyncio.create_task(self._keep_reader(slot), name=f"tag reader {slot}") for slot in range(self._number)
            ]

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Stop the processes and cancel the requests in progress."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for request in [*self._urgent, *self._waiting, *self._suspects]:
            request.answer.cancel()
        if self._journal is not None:
            self._journal.close()
            self._journal = None

    async def read(self, path: str, *, is_urgent: bool = False) -> Reading:
        """Read a file, before all others if urgent; raises only if the readers themselves cannot run."""
        self.start()
        request = _Request(path, asyncio.get_running_loop().create_future())
        if self._journal is not None and path in self._journal.crashes:
            return await self._read_suspect(request, self._journal)
        (self._urgent if is_urgent else self._waiting).append(request)
        self._schedule_dispatch()
        return await request.answer

    async def _read_suspect(self, request: _Request, journal: Journal) -> Reading:
        crashes = journal.crashes[request.path]
        if crashes >= MAX_CRASHES:
            reading = Reading(failure=Failure("crashed-parser", f"soulspot crashed {crashes} times while reading it"))
        else:
            request.is_suspect = True
            self._suspects.append(request)
            self._schedule_dispatch()
            reading = await request.answer
        journal.forget(request.path)
        return reading

    def _open_journal(self) -> None:
        if self._journal_file is not None:
            try:
                self._journal = Journal(self._journal_file)
            except OSError as error:
                logger.warning("cannot keep the crash journal, continuing without it: %s", error)

    def _schedule_dispatch(self) -> None:
        """Schedule the next batches: at once for a single file, for many files and for suspects, else a moment later.

        Each write to a pipe costs a wake-up, so a few files that follow each other closely go together. Suspects are
        sent one at a time and gain nothing from waiting.
        """
        is_now = bool(self._suspects) or self._number_waiting >= MIN_BATCH * self._number
        moment = 0.0 if is_now else self._dispatched_at + BATCH_INTERVAL
        if self._dispatching is None or moment < self._dispatching.when():
            if self._dispatching is not None:
                self._dispatching.cancel()
            self._dispatching = asyncio.get_running_loop().call_at(moment, self._dispatch)

    @property
    def _number_waiting(self) -> int:
        return len(self._urgent) + len(self._waiting)

    def _dispatch(self) -> None:
        self._dispatching, self._dispatched_at = None, asyncio.get_running_loop().time()
        for reader in sorted(self._readers, key=lambda reader: len(reader.sent)):
            if self._suspects:
                requests = [] if reader.sent else [self._suspects.popleft()]
            else:
                share = reader.share(self._number_waiting, self._number)
                requests = [(self._urgent or self._waiting).popleft() for _number in range(share)]
            if requests:
                was_idle = not reader.sent
                reader.send(requests)
                if was_idle:
                    reader.set_timer(self._time_limit)

    async def _keep_reader(self, slot: int) -> None:
        journal = [self._journal.file, str(slot)] if self._journal is not None else []
        user, owner = reader_user()
        while True:
            reader = _Reader(
                await asyncio.create_subprocess_exec(
                    sys.executable, "-m", "soulspot.infrastructure.tags.readers.reader_process",
                    str(self._memory_limit), owner, *journal,
                    stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
                    env=reader_environment(), **user,
                )
            )  # fmt: skip
            try:
                await self._collect(reader)
                with contextlib.suppress(TimeoutError):  # let asyncio see the exit before `kill`
                    await asyncio.wait_for(reader.process.wait(), EXIT_TIMEOUT)
            finally:
                reader.kill()
                await reader.process.wait()
                if self._journal is not None:
                    self._journal.clear(slot)
                self._requeue(reader)

    async def _collect(self, reader: _Reader) -> None:
        """Pass the readings of a reader on to their requests until it ends."""
        stdout = reader.process.stdout
        assert stdout is not None
        self._readers.append(reader)
        self._schedule_dispatch()
        try:
            while True:
                (length,) = LENGTH.unpack(await stdout.readexactly(LENGTH.size))
                for reading in decode_readings(await stdout.readexactly(length)):
                    request = reader.sent.popleft()
                    if not request.answer.done():
                        request.answer.set_result(reading)
                reader.set_timer(self._time_limit)
                self._schedule_dispatch()
        except (asyncio.IncompleteReadError, ConnectionResetError):
            pass
        finally:
            self._readers.remove(reader)

    def _requeue(self, reader: _Reader) -> None:
        """Queue the unanswered files of a reader that ended, as suspects; a suspect itself fails."""
        failure = Failure("crashed-parser", "the reader crashed twice on this file")
        if reader.timed_out:
            failure = Failure("timeout", f"reading the tags took longer than {self._time_limit:g} s")
        if reader.was_blocked:
            failure = Failure("unreadable", f"the disk did not respond for {self._time_limit:g} s")
        if reader.timer is not None:
            reader.timer.cancel()
        for request in reader.sent:
            if request.answer.done():
                continue
            if request.is_suspect or (reader.timed_out and len(reader.sent) == 1):
                request.answer.set_result(Reading(failure=failure))
            else:
                request.is_suspect = True
                self._suspects.append(request)


def _is_blocked(pid: int) -> bool:
    """Whether a process sleeps instead of using the CPU, see proc(5); a reader that does so waits for the disk."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            return stat.read().rpartition(b")")[2].split()[0] in {b"D", b"S"}
    except OSError:
        return False


def reader_environment() -> dict[str, str]:
    """Return the environment without the variables of systemd, which address the daemon only."""
    of_systemd = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID")
    return {name: value for name, value in os.environ.items() if name not in of_systemd}
