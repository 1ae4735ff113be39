"""Counts the added, changed and removed files per day and per hour from the audit log, and lays them out for SVG.

Counting a large log takes seconds, so a page does not wait for it: a task counts window by window, the newest first,
and keeps the counts. The log only grows, so each entry is counted once.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Literal

from sqlalchemy.exc import SQLAlchemyError

from soulspot.errors import SoulspotError
from soulspot.infrastructure.persistence.queries.browse import WINDOW, BrowseQueries
from soulspot.web.event_kinds import FILES, KINDS, kind_of

Unit = Literal["day", "hour"]

DAYS: Final = 30
HOURS: Final = 48
_PAGE_WAIT: Final = 0.03
"""Seconds that a page waits for new counts."""
_TEN_MINUTES: Final = "%Y-%m-%d %H:%M"


@dataclass(frozen=True, slots=True)
class Bar:
    """One day or hour: its name, and the number of files by kind."""

    name: str
    counts: Mapping[str, int]

    @property
    def total(self) -> int:
        return sum(self.counts.values())


class ActivityCounts:
    """Counts the audit entries of the last days in the background; `is_complete` once all of them are counted."""

    def __init__(self, browsing: BrowseQueries) -> None:
        self._browsing = browsing
        self._counts: Counter[tuple[str, str]] = Counter()
        self._lowest: int | None = None
        self._highest = 0
        self._task: asyncio.Task[None] | None = None
        self.is_complete = False

    async def bars(self, unit: Unit) -> Sequence[Bar]:
        """Return the bars of the last 30 days or 48 hours, as far as they are counted."""
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._count(), name="count the activity of the chart")
        await asyncio.wait([self._task], timeout=_PAGE_WAIT)
        return _bars(self._counts, unit)

    async def _count(self) -> None:
        with suppress(SQLAlchemyError, SoulspotError):  # the page itself reports that the database is unreachable
            last = await self._browsing.last_sequence()
            if self._lowest is None:
                self._lowest = self._highest = last
            while self._highest < last:
                upto = min(self._highest + WINDOW, last)
                await self._count_between(self._highest, upto)
                self._highest = upto
            first_day = (datetime.now(UTC) - timedelta(days=DAYS + 1)).strftime(_TEN_MINUTES)[:15]
            while self._lowest > 0 and not self.is_complete:
                began, after = time.monotonic(), max(0, self._lowest - WINDOW)
                oldest = await self._count_between(after, self._lowest)
                self._lowest = after
                self.is_complete = oldest is not None and oldest < first_day
                await asyncio.sleep(time.monotonic() - began)  # count at most half of the time
            self.is_complete = True

    async def _count_between(self, after: int, upto: int) -> str | None:
        counts, oldest = await self._browsing.arrivals(after, upto, FILES)
        for (when, action), count in counts.items():
            self._counts[when, kind_of(action)] += count
        return oldest

    def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()


def _bars(counts: Mapping[tuple[str, str], int], unit: Unit) -> Sequence[Bar]:
    """Return bars that end now, in the server's time zone."""
    now = datetime.now(UTC)
    if unit == "day":
        name, key = "%a %d %b", "%Y-%m-%d"
        noon = now.astimezone().replace(hour=12)  # a clock change then neither doubles nor skips a day
        moments = [noon - timedelta(days=back) for back in reversed(range(DAYS))]
    else:
        name, key = "%a %H:00", "%Y-%m-%d %H"
        moments = [(now - timedelta(hours=back)).astimezone() for back in reversed(range(HOURS))]
    by_key: dict[str, Counter[str]] = {}
    for (when, kind), count in counts.items():
        moment = datetime.strptime(f"{when}0", _TEN_MINUTES).replace(tzinfo=UTC).astimezone()
        by_key.setdefault(moment.strftime(key), Counter())[kind] += count
    return [Bar(each.strftime(name), by_key.get(each.strftime(key), {})) for each in moments]


HEIGHT: Final = 120
WIDTH: Final = 720
_GAP: Final = 0.22


@dataclass(frozen=True, slots=True)
class Piece:
    """A rectangle of the chart, in the chart's units."""

    kind: str
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Chart:
    """The bars, the rectangles that draw them, and the kinds that occur."""

    bars: Sequence[Bar]
    pieces: Sequence[Piece]
    kinds: Sequence[str]

    @property
    def total(self) -> int:
        return sum(bar.total for bar in self.bars)


def draw_chart(bars: Sequence[Bar]) -> Chart:
    """Stack the kinds of each bar; every kind that occurs gets a visible height."""
    top = max((bar.total for bar in bars), default=0)
    pieces, step = [], WIDTH / max(1, len(bars))
    for number, bar in enumerate(bars):
        y = float(HEIGHT)
        for kind in KINDS:
            if count := bar.counts.get(kind, 0):
                height = max(1.5, (HEIGHT - 4) * count / top)
                y -= height
                pieces.append(Piece(kind, number * step + step * _GAP / 2, max(0.0, y), step * (1 - _GAP), height))
    return Chart(bars, pieces, [kind for kind in KINDS if any(bar.counts.get(kind) for bar in bars)])
