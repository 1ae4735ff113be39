"""Shows the progress of a scan: a bar on a terminal, otherwise a log line every ten seconds."""

import logging
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Protocol

from soulspot.cli.output import logs
from soulspot.ingest.outcome import KINDS, Outcome
from soulspot.scan import Progress

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

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


class Shown(Progress, Protocol):
    """The progress of a scan, shown to the user."""

    def count(self, counts: Mapping[str, int]) -> None:
        """Add these numbers of files by outcome."""

    def say(self, line: str) -> None:
        """Show a line that must not be overlooked."""


@contextmanager
def shown_progress() -> Iterator[Shown]:
    """Show the progress of a scan on standard error, with each failure."""
    if not sys.stderr.isatty():
        yield LoggedProgress()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar
    from rich.text import Text

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    rate, left = TextColumn("{task.fields[rate]:,.0f} files/s"), TimeRemainingColumn()
    with (
        Bar(*columns, rate, left, transient=True, console=console) as bar,
        logs.written_by(lambda line: console.print(Text.from_ansi(line), soft_wrap=True)),
    ):
        yield _BarProgress(bar)


class LoggedProgress:
    """Logs failures at once and the progress every ten seconds."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began = self._last = clock()
        self._counts: Counter[str] = Counter()
        self._total: int | None = None

    def report(self, outcome: Outcome) -> None:
        self._counts[outcome.kind] += 1
        if outcome.kind == "failed":
            log_outcome(outcome)
        self._log_now_and_then()

    def pass_over(self, count: int) -> None:
        self.count({"unchanged": count})

    def count(self, counts: Mapping[str, int]) -> None:
        self._counts.update(counts)
        self._log_now_and_then()

    def say(self, line: str) -> None:
        logger.warning("%s", line)

    def expect(self, total: int) -> None:
        self._total = total

    def _log_now_and_then(self) -> None:
        now = self._clock()
        if now - self._last < _LOG_EVERY:
            return
        self._last = now
        done = self._counts.total()
        rate = done / (now - self._began)
        of_all = f" of {self._total:,}" if self._total else ""
        left = f", {max(self._total - done, 0) / rate:.0f} s left" if self._total and rate else ""
        logger.info("%s%s files, %s a second%s: %s", f"{done:,}", of_all, f"{rate:,.0f}", left, listed(self._counts))


class _BarProgress:
    def __init__(self, bar: "Bar") -> None:
        self._bar = bar
        self._task = bar.add_task("scanning", total=None, rate=0.0)
        self._began = time.monotonic()
        self._done = 0

    def report(self, outcome: Outcome) -> None:
        if outcome.kind == "failed":
            log_outcome(outcome)
        self.pass_over(1)

    def count(self, counts: Mapping[str, int]) -> None:
        self.pass_over(sum(counts.values()))

    def say(self, line: str) -> None:
        logger.warning("%s", line)

    def pass_over(self, count: int) -> None:
        self._done += count
        rate = self._done / max(time.monotonic() - self._began, 0.001)
        self._bar.update(self._task, completed=self._done, rate=rate)

    def expect(self, total: int) -> None:
        self._bar.update(self._task, total=total)
