"""Shows the progress of a scan: a bar on a terminal, otherwise a log line every ten seconds."""

import logging
import sys
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING

from soulspot.cli.output import logs
from soulspot.ingest.outcome import KINDS, Outcome

if TYPE_CHECKING:
    from rich.progress import Progress

logger = logging.getLogger("soulspot")

_LOG_EVERY = 10.0
_LEVELS = {"failed": logging.WARNING, "missing": logging.WARNING, "unchanged": logging.DEBUG}


def log_outcome(outcome: Outcome) -> None:
    """Log the outcome of one file."""
    detail = f"{outcome.code}: {outcome.detail}" if outcome.code else outcome.detail
    path = f"{outcome.path} ({detail})" if detail else outcome.path
    level = _LEVELS.get(outcome.kind, logging.INFO)
    logger.log(level, "%s %s", outcome.kind, path, extra={"fields": asdict(outcome)})


def listed(counts: Counter[str]) -> str:
    return ", ".join(f"{counts[kind]} {kind}" for kind in KINDS)


class ShownProgress(ABC):
    """The progress of a scan, shown to the user."""

    @abstractmethod
    def count(self, counts: Mapping[str, int]) -> None:
        """Add these numbers of files by outcome."""

    @abstractmethod
    def expect(self, total: int) -> None:
        """Set the number of files in all."""

    def report(self, outcome: Outcome) -> None:
        self.count({outcome.kind: 1})
        if outcome.kind == "failed":
            log_outcome(outcome)

    def pass_over(self, count: int) -> None:
        self.count({"unchanged": count})

    def warn(self, line: str) -> None:
        """Show a line that must not be overlooked."""
        logger.warning("%s", line)


@contextmanager
def shown_progress() -> Iterator[ShownProgress]:
    """Show the progress of a scan on standard error, with each failure."""
    if not sys.stderr.isatty():
        yield LoggedProgress()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    from rich.text import Text

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    rate, left = TextColumn("{task.fields[rate]:,.0f} files/s"), TimeRemainingColumn()
    with (
        Progress(*columns, rate, left, transient=True, console=console) as bar,
        logs.written_by(lambda line: console.print(Text.from_ansi(line), soft_wrap=True)),
    ):
        yield _BarProgress(bar)


class LoggedProgress(ShownProgress):
    """Logs failures at once and the progress every ten seconds."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began = self._last = clock()
        self._counts: Counter[str] = Counter()
        self._total: int | None = None

    def count(self, counts: Mapping[str, int]) -> None:
        self._counts.update(counts)
        now = self._clock()
        if now - self._last < _LOG_EVERY:
            return
        self._last, done = now, self._counts.total()
        rate = done / (now - self._began)
        of_all = f" of {self._total:,}" if self._total else ""
        left = f", {max(self._total - done, 0) / rate:.0f} s left" if self._total and rate else ""
        logger.info("%s%s files, %s a second%s: %s", f"{done:,}", of_all, f"{rate:,.0f}", left, listed(self._counts))

    def expect(self, total: int) -> None:
        self._total = total


class _BarProgress(ShownProgress):
    def __init__(self, bar: "Progress") -> None:
        self._bar, self._task = bar, bar.add_task("scanning", total=None, rate=0.0)
        self._began, self._done = time.monotonic(), 0

    def count(self, counts: Mapping[str, int]) -> None:
        self._done += sum(counts.values())
        rate = self._done / max(time.monotonic() - self._began, 0.001)
        self._bar.update(self._task, completed=self._done, rate=rate)

    def expect(self, total: int) -> None:
        self._bar.update(self._task, total=total)
