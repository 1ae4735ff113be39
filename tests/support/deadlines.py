"""Deadlines that follow the machine's load: generous while it is busy, strict while it is quiet."""

import os
import time


def load_factor() -> float:
    """Return how much longer than on a quiet machine things take: the load average per core, at least 1."""
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


class Deadline:
    """A number of seconds on a quiet machine; while the machine is busy, they pass more slowly."""

    def __init__(self, seconds: float) -> None:
        self._left = seconds
        self._checked_at = time.monotonic()

    def has_passed(self) -> bool:
        """Whether the time is up; call it often, so that it sees how the load changes."""
        now = time.monotonic()
        self._left -= (now - self._checked_at) / load_factor()
        self._checked_at = now
        return self._left <= 0
