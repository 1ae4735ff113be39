"""Waiting times between retries: each twice as long as the one before, up to a limit."""

from collections.abc import Iterator
from typing import Self


class Backoff(Iterator[float]):
    """Yields seconds to wait, from `first` to `longest`, without end; `reset` starts over after a success."""

    def __init__(self, first: float, longest: float) -> None:
        self._first, self._longest = first, longest
        self._following = first

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> float:
        seconds = self._following
        self._following = min(seconds * 2, self._longest)
        return seconds

    def reset(self) -> None:
        self._following = self._first
