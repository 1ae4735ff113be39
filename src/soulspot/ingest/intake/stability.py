"""Judges whether a file is complete: by a lease if the kernel grants one, else by a quiet period.

The kernel grants a read lease only while no process has the file open for writing, so a file with a lease is complete.
Where it grants none (another owner without CAP_LEASE, a network file system) a file is complete when its size, times
and inode have not changed for the quiet period. An empty file waits for the quiet period in any case: most often a
program is about to fill it.
"""

import os
import time
from dataclasses import dataclass

from soulspot.infrastructure.filesystem import NotRegularFileError, Signature, has_writer

FIRST_WAIT = 0.01
LONGEST_WAIT = 0.25
CAP = 30
"""Quiet periods after which a file that is still being written is reported, and checked more rarely."""
_CHECK_SHARE = 1 / 50  # of the time for which it has been written: a file of one second is checked every 20 ms


@dataclass(frozen=True, slots=True)
class Verdict:
    """The state of a file: its signature, None if it is gone; the seconds until the next check, 0 if it is complete."""

    signature: Signature | None
    wait: float = 0.0


@dataclass(slots=True)
class _Waiting:
    signature: Signature
    unchanged_since: float
    wait: float
    since: float


class Stability:
    """Judges files; remembers those that it found incomplete.

    Args:
        quiet_period: seconds without a change after which a file counts as complete if the kernel grants no lease.
        leases: whether to request leases at all.

    """

    def __init__(self, quiet_period: float, *, leases: bool) -> None:
        self._quiet_period = quiet_period
        self._leases = leases
        self._waiting: dict[str, _Waiting] = {}

    def judge(self, full_path: str) -> Verdict:
        """Check a file. Blocks. One that cannot be opened is judged by its quiet period: a reader reports the error."""
        try:
            signature = Signature.of(os.lstat(full_path))
            writer = self._has_writer(full_path, signature)
        except OSError:  # gone, not a regular file any more, or on a disk that does not answer
            self.forget(full_path)
            return Verdict(None)
        wait = 0.0 if writer is False else self._wait(full_path, signature, being_written=writer is True)
        if wait == 0:
            self.forget(full_path)
        return Verdict(signature, wait)

    def hurry(self, full_path: str) -> float:
        """Return the seconds until the next check of a file that has just been touched."""
        waiting = self._waiting.get(full_path)
        if waiting is None:
            return FIRST_WAIT
        waiting.wait = min(max((time.monotonic() - waiting.since) * _CHECK_SHARE, FIRST_WAIT), LONGEST_WAIT)
        return waiting.wait

    @property
    def cap(self) -> float:
        """Seconds after which a file that is still being written is reported."""
        return self._quiet_period * CAP

    def rest_of_quiet(self, signature: Signature) -> float:
        """Return the seconds that a file has left of its quiet period, even if the kernel grants a lease."""
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
        now = time.monotonic()
        waiting = self._waiting.get(full_path)
        if waiting is None or waiting.signature != signature:
            since = now if waiting is None else waiting.since
            waiting = self._waiting[full_path] = _Waiting(signature, now - self._age(signature), FIRST_WAIT, since)
        if being_written:
            waiting.unchanged_since = now  # its quiet period begins when the writer ends
            longest = LONGEST_WAIT if now - waiting.since < self.cap else max(self._quiet_period, LONGEST_WAIT)
            waiting.wait = min(waiting.wait * 2, longest)
            return waiting.wait
        return max(waiting.unchanged_since + self._quiet_period - now, 0.0)

    def _age(self, signature: Signature) -> float:
        """Return the seconds since a file's last change.

        A copy tool cannot set the ctime; one in the future means only that a clock was changed.
        """
        return max((time.time_ns() - signature.ctime_ns) / 1e9, 0.0)
