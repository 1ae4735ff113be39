"""Owns watchfiles: a fast source of hints, never of truth.

It passes on paths. The kind and the order of events do not matter, because the scan checks the disk. The watcher or a
walk detects and repairs what watchfiles loses (each case measured):

- files in folders that are being created: the walk compares the folders with those that the kernel really `watched`;
- an overflow of the kernel's queue, which watchfiles hides: the queue's length is checked while hints arrive, and all
  folders are rescanned if it came close to the limit;
- a name that is not UTF-8 ends the watch: it is restarted, and if that keeps happening the watcher `is_falling_back`
  for a while, and the folders are polled instead;
- folders that watchfiles gave up on: `add_watches` adds them, in a new watch that starts before the old one ends.
"""

import asyncio
import ctypes
import errno
import fcntl
import logging
import os
import re
import struct
import termios
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from watchfiles import awatch

from soulspot.infrastructure.backoff import Backoff
from soulspot.infrastructure.filesystem import folder_identity
from soulspot.infrastructure.watching.inotify_signal import InotifyWakeup

logger = logging.getLogger(__name__)

STEP_MS = 2
DEBOUNCE_MS = 20
AWAKE_MS = 300
"""Milliseconds without an event, after which the watcher waits for SIGIO instead of polling."""
LONGEST_SLEEP = 5.0
"""Seconds without a signal, after which the watcher checks for events."""
QUEUE_CHECK_INTERVAL = 0.01
"""Seconds between two checks of the kernel's queue while hints arrive."""
STORM_QUIET = 0.3
"""Seconds without a hint after which a storm is over."""
STORM_LIMIT = 5.0
"""Seconds after which a storm that lost events causes a scan although it continues."""
CHECK_STALL = 0.5
"""Seconds without a check of the queue, after which it may have overflowed."""
MAX_SHORT_WATCHES = 3
"""Short-lived watches in a row, after which the watcher falls back to polling for a while."""
SHORT_WATCH_SECONDS = 10.0
FIRST_RESTARTS_AFTER = 0.05
FIRST_FALLBACK = 15.0
LONGEST_FALLBACK = 300.0
"""Seconds until a watch restarts: at first, and while the watcher falls back to polling."""
_ADDED_RECENTLY = 60.0
_PROOF_LIMIT = 3.0
_WATCH = re.compile(rb"ino:([0-9a-f]+) sdev:([0-9a-f]+)")
_MINOR_BITS = 20  # of the kernel's own device numbers
_IN_ONLYDIR, _IN_ATTRIB, _IN_CLOEXEC = 0x01000000, 0x4, 0o2000000


@dataclass(frozen=True, slots=True)
class _Watch:
    """One watch: the task it runs in, and the inotify descriptors it created."""

    task: asyncio.Task[None]
    descriptors: frozenset[int]


class Watcher:
    """Watches folders and everything below them while `run` runs.

    Args:
        folders: absolute paths; a missing one is skipped until the next `restart`.
        on_hint: called with the paths of each batch.
        on_events_lost: called when events may have been missed: when watching begins, and after an overflow.

    """

    def __init__(
        self, folders: Sequence[str], on_hint: Callable[[Iterable[str]], None], on_events_lost: Callable[[], None]
    ) -> None:
        self._folders = folders
        self._on_hint = on_hint
        self._on_events_lost = on_events_lost
        self._restart = asyncio.Event()
        self._has_hints = asyncio.Event()
        self._wakeup = InotifyWakeup()
        self._added: dict[str, float] = {}
        self._watches: list[_Watch] = []
        self._burst = limit("max_queued_events", 16_384) // 8
        self._burst_seen = False
        self.is_live = asyncio.Event()
        self.is_falling_back = False
        self.restarts = 0
        self.overflows = 0
        logging.getLogger("watchfiles").setLevel(logging.WARNING)

    def restart(self) -> None:
        """Restart the watch, because a folder was replaced or is back."""
        self._restart.set()

    def add_watches(self, folders: Iterable[str]) -> list[str]:
        """Watch these unwatched folders too; return those for which this has just failed."""
        now = time.monotonic()
        again = [folder for folder in folders if self._added.get(folder, -_ADDED_RECENTLY) + _ADDED_RECENTLY > now]
        new = set(folders).difference(again)
        if new:
            self._added.update(dict.fromkeys(new, now))
            self._restart.set()
        return again

    async def run(self) -> None:
        """Watch until cancelled; restart a watch that ends, with backoff if watches keep ending."""
        queue = asyncio.create_task(self._check_queue(), name="watcher: check the kernel's queue")
        try:
            with self._wakeup:
                await self._watch_and_restart()
        finally:
            queue.cancel()
            await self._end(self._watches)

    async def _watch_and_restart(self) -> None:
        fallback, short_watches = Backoff(FIRST_FALLBACK, LONGEST_FALLBACK), 0
        while True:
            began = time.monotonic()
            try:
                await self._watch_until_it_ends()
            except OSError as error:  # no descriptor is left for a new watch; the old one, if any, continues
                logger.warning("the watch ended (%s): restarting it", error.strerror)
            if time.monotonic() - began > SHORT_WATCH_SECONDS:
                short_watches = 0
                fallback.reset()
            short_watches += 1
            if short_watches < MAX_SHORT_WATCHES:
                await asyncio.sleep(FIRST_RESTARTS_AFTER)
            else:
                if short_watches == MAX_SHORT_WATCHES:
                    logger.error(
                        "the watch ended %d times in a row, mostly because of a name that is not UTF-8 (`soulspot"
                        " explain` shows such names, rename them): polling all folders until a watch holds",
                        short_watches,
                    )
                self.is_falling_back = True
                self.is_live.set()
                self._on_events_lost()
                await asyncio.sleep(next(fallback))

    def watched(self) -> frozenset[tuple[int, int]]:
        """Return device and inode of every folder that the kernel watches for this watcher. Blocks.

        /proc/self/fdinfo lists the marks of an inotify instance (proc(5)).
        """
        return _marks(self._descriptors())

    async def _watch_until_it_ends(self) -> None:
        """Keep one watch alive; on a restart, start the new one before the old one ends."""
        while True:
            self._restart.clear()
            folders = await asyncio.to_thread(self._present_folders)
            old, watch = self._watches, await self._begin(folders)
            self._watches = [*old, watch]
            if await self._is_proven(watch, folders):
                await self._end(old)
                self._watches = [watch]
                self.is_falling_back = False
                self.is_live.set()
                self._on_events_lost()
                restarting = asyncio.create_task(self._restart.wait(), name="watcher: wait for a restart")
                try:
                    await asyncio.wait([watch.task, restarting], return_when=asyncio.FIRST_COMPLETED)
                finally:
                    restarting.cancel()
            if watch.task.done():
                await self._end(self._watches)
                self._watches = []
                return
            self.restarts += 1

    def _present_folders(self) -> list[str]:
        return [folder for folder in [*self._folders, *self._added] if os.path.isdir(folder)]

    async def _begin(self, folders: Sequence[str]) -> _Watch:
        before = _inotify_descriptors()
        task = asyncio.create_task(self._watch(folders), name="watcher: watch")
        await asyncio.sleep(0)  # watchfiles sets up its watches in the first step of its task
        return _Watch(task, _inotify_descriptors() - before)

    async def _watch(self, folders: Sequence[str]) -> None:
        if not folders:
            await asyncio.Event().wait()
        # An unreadable folder must not prevent the watch of the others; the walk finds the unwatched ones.
        hints = awatch(
            *folders,
            watch_filter=None,
            step=STEP_MS,
            debounce=DEBOUNCE_MS,
            rust_timeout=AWAKE_MS,
            yield_on_timeout=True,
            ignore_permission_denied=True,
        )
        is_armed = False
        async for changes in hints:
            if changes:
                self._burst_seen = self._burst_seen or len(changes) > self._burst
                self._has_hints.set()
                self._on_hint([path for _change, path in changes])
            elif is_armed:
                await self._wakeup.wait(LONGEST_SLEEP)
            else:
                self._wakeup.arm(self._descriptors())  # and check again: an event may have come just before
                is_armed = True
                continue
            if is_armed:
                self._wakeup.disarm(self._descriptors())
                is_armed = False

    async def _is_proven(self, watch: _Watch, folders: Sequence[str]) -> bool:
        """Wait until the kernel watches the folders themselves; return False if the watch ends before."""
        wanted = {folder_identity(folder) for folder in folders if folder in self._folders} - {None}
        deadline = time.monotonic() + _PROOF_LIMIT
        while not watch.task.done():
            marks = await asyncio.to_thread(_marks, watch.descriptors)
            if marks.issuperset(wanted) or time.monotonic() > deadline:
                return True  # the walk finds folders that are still unwatched
            await asyncio.sleep(0.005)
        return False

    async def _end(self, watches: Iterable[_Watch]) -> None:
        for watch in watches:
            watch.task.cancel()
            (ended,) = await asyncio.gather(watch.task, return_exceptions=True)
            if isinstance(ended, Exception):
                logger.warning("the watch ended (%s): restarting it", _first_line(ended))

    async def _check_queue(self) -> None:
        """Check whether the kernel's queue comes close to its limit, from the first hint of a storm until its end."""
        threshold = limit("max_queued_events", 16_384) * 8  # bytes: a quarter of a queue of the shortest events
        while True:
            await self._has_hints.wait()
            last = quiet_since = began = time.monotonic()
            overflowed = False
            while time.monotonic() - quiet_since < STORM_QUIET and not (overflowed and last - began > STORM_LIMIT):
                queued, now = self._queued(), time.monotonic()
                overflowed = overflowed or queued > threshold or self._burst_seen or now - last > CHECK_STALL
                self._burst_seen = False
                if queued or self._has_hints.is_set():
                    quiet_since = now
                self._has_hints.clear()
                last = now
                await asyncio.sleep(QUEUE_CHECK_INTERVAL)
            if overflowed:
                self.overflows += 1
                logger.info("the inotify queue may have overflowed: scanning all folders")
                self._on_events_lost()

    def _descriptors(self) -> set[int]:
        return {number for watch in self._watches for number in watch.descriptors}

    def _queued(self) -> int:
        """Return the number of bytes of events that the kernel has queued."""
        total = 0
        for number in self._descriptors():
            with suppress(OSError):  # closed meanwhile
                total += struct.unpack("i", fcntl.ioctl(number, termios.FIONREAD, b"\0\0\0\0"))[0]
        return total


def why_unwatchable(folder: str) -> str | None:
    """Return why the kernel refuses to watch a folder ("limit", "gone" or its error message), None if it does not."""
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.inotify_init1(_IN_CLOEXEC)
    if descriptor < 0:
        return "limit" if ctypes.get_errno() in {errno.EMFILE, errno.ENFILE} else os.strerror(ctypes.get_errno())
    try:
        if libc.inotify_add_watch(descriptor, os.fsencode(folder), _IN_ONLYDIR | _IN_ATTRIB) >= 0:
            return None
        number = ctypes.get_errno()
    finally:
        os.close(descriptor)
    if number in {errno.ENOENT, errno.ENOTDIR}:
        return "gone"
    return "limit" if number == errno.ENOSPC else os.strerror(number)


def limit(name: str, otherwise: int) -> int:
    """Return one of the kernel's limits of inotify, such as "max_user_watches"; `otherwise` if it is unreadable."""
    try:
        with open(f"/proc/sys/fs/inotify/{name}", encoding="ascii") as file:
            return int(file.read())
    except (OSError, ValueError):
        return otherwise


def _inotify_descriptors() -> frozenset[int]:
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # closed meanwhile
            if os.readlink(f"/proc/self/fd/{name}") == "anon_inode:inotify":
                found.add(int(name))
    return frozenset(found)


def _marks(descriptors: Iterable[int]) -> frozenset[tuple[int, int]]:
    watched: set[tuple[int, int]] = set()
    for number in descriptors:
        # The descriptor may be closed meanwhile, or none is left to open the file: then the folder counts as unwatched.
        with suppress(OSError), open(f"/proc/self/fdinfo/{number}", "rb") as marks:
            watched.update((int(device, 16), int(inode, 16)) for inode, device in _WATCH.findall(marks.read()))
    minor = (1 << _MINOR_BITS) - 1
    return frozenset((os.makedev(device >> _MINOR_BITS, device & minor), inode) for device, inode in watched)


def _first_line(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error).partition("\n")[0] or type(error).__name__
