"""Is this file complete? The kernel knows: ask it first, and wait for quiet where it does not say.

A read lease is granted only while nobody has the file open for writing, so a file with a lease is complete as far as
anyone can know. Where no lease can be had (another owner without CAP_LEASE, a network file system) a file is complete
when its size, times and inode have not changed for the quiet period. An empty file waits for quiet in any case: it is
most often one that somebody is about to fill.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass

from soulspot.infrastructure.filesystem import NotRegularFileError, Signature, has_writer

FIRST_WAIT = 0.01
LONGEST_WAIT = 0.25
CAP = 30
"""Quiet periods after which a file that never settles is reported, and looked at more rarely."""
_HURRY = 1 / 50  # of the time that it has been written for: a file of a second is looked at every 20 ms, and so on


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was seen of a file: None for a file that is gone, `wait` the seconds until it is worth looking again."""

    signature: Signature | None
    wait: float = 0.0

    @property
    def is_complete(self) -> bool:
        return self.signature is not None and self.wait == 0


@dataclass(slots=True)
class _Waiting:
    signature: Signature
    unchanged_since: float
    wait: float
    since: float


class Stability:
    """Judges files; remembers those that it found incomplete.

    Args:
        quiet_period: seconds without a change after which a file counts as complete where no lease can be had.
        leases: whether to ask for leases at all.
        clock: seconds that never go back; `wall_clock`: nanoseconds since 1970.

    """

    def __init__(
        self,
        quiet_period: float,
        *,
        leases: bool = True,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._quiet_period = quiet_period
        self._leases = leases
        self._clock = clock
        self._wall_clock = wall_clock
        self._waiting: dict[str, _Waiting] = {}

    def judge(self, full_path: str) -> Verdict:
        """Look at a file; blocks. One that cannot be opened is judged by its quiet: reading it tells why it cannot."""
        try:
            signature = Signature.of(os.lstat(full_path))
            writer = self._has_writer(full_path, signature)
        except (
            OSError
        ):  # it is gone or no file any more; or nothing can be known of it now, as the disk does not answer
            self.forget(full_path)
            return Verdict(None)
        wait = 0.0 if writer is False else self._wait(full_path, signature, being_written=writer is True)
        if wait == 0:
            self.forget(full_path)
        return Verdict(signature, wait)

    def hurry(self, full_path: str) -> float:
        """Return the wait after which to look again at a file that somebody has just touched."""
        waiting = self._waiting.get(full_path)
        if waiting is None:
            return FIRST_WAIT
        waiting.wait = min(max((self._clock() - waiting.since) * _HURRY, FIRST_WAIT), LONGEST_WAIT)
        return waiting.wait

    @property
    def cap(self) -> float:
        """Seconds after which a file that is still being written is worth a word."""
        return self._quiet_period * CAP

    def rest_of_quiet(self, signature: Signature) -> float:
        """Return for how many seconds a file has yet to stay as it is to have been quiet, whatever a lease says."""
        return max(self._quiet_period - self._age(signature), 0.0)

    def forget(self, full_path: str) -> None:
        self._waiting.pop(full_path, None)

    def _has_writer(self, full_path: str, signature: Signature) -> bool | None:
        if not self._leases:
            return None
        try:
            writer = has_writer(full_path)
        except (FileNotFoundError, NotADirectoryError, NotRegularFileError):
            raise
        except OSError:
            return None
        return None if signature.size == 0 and writer is False else writer

    def _wait(self, full_path: str, signature: Signature, *, being_written: bool) -> float:
        now = self._clock()
        waiting = self._waiting.get(full_path)
        if waiting is None or waiting.signature != signature:
            since = now if waiting is None else waiting.since
            waiting = self._waiting[full_path] = _Waiting(signature, now - self._age(signature), FIRST_WAIT, since)
        if being_written:
            waiting.unchanged_since = now  # it has a writer, so the quiet begins when that one ends
            longest = LONGEST_WAIT if now - waiting.since < self.cap else max(self._quiet_period, LONGEST_WAIT)
            waiting.wait = min(waiting.wait * 2, longest)
            return waiting.wait
        return max(waiting.unchanged_since + self._quiet_period - now, 0.0)

    def _age(self, signature: Signature) -> float:
        """Return for how many seconds a file that we see for the first time has been as it is.

        The ctime cannot be set by a copy tool; one in the future says only that a clock was changed.
        """
        age = (self._wall_clock() - signature.ctime_ns) / 1e9
        return max(age, 0.0)
