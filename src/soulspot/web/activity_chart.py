"""How many files came, changed and went, by the day and by the hour: counted from the audit log, and drawn as SVG.

A large log takes seconds to count, so that a page does not wait for it: it is counted piece by piece, the newest first,
and what is counted is kept. The log only grows, so each entry is counted once.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from sqlalchemy.exc import SQLAlchemyError

from soulspot.errors import SoulspotError
from soulspot.infrastructure.persistence.queries.browse import WINDOW, BrowseQueries
from soulspot.web.event_kinds import FILES, KINDS, kind_of

DAYS: Final = 30
HOURS: Final = 48
_WAIT: Final = 0.03
"""Seconds that a page waits for the counting."""
_TEN_MINUTES: Final = "%Y-%m-%d %H:%M"


@dataclass(frozen=True, slots=True)
class Bar:
    """One day or hour: its name, and the number of files by kind."""

    name: str
    counts: Mapping[str, int]

    @property
    def total(self) -> int:
        return sum(self.counts.values())


class Arrivals:
    """Counts what happened in the last days."""

    def __init__(self, browsing: BrowseQueries) -> None:
        self._browsing = browsing
        self._counts: Counter[tuple[str, str]] = Counter()
        self._lowest: int | None = None
        self._highest = 0
        self._task: asyncio.Task[None] | None = None
        self.is_complete = False

    async def days(self) -> Sequence[Bar]:
        await self._count_for_a_moment()
        return _bars(self._counts, DAYS, timedelta(days=1), "%a %d %b", "%Y-%m-%d")

    async def hours(self) -> Sequence[Bar]:
        await self._count_for_a_moment()
        return _bars(self._counts, HOURS, timedelta(hours=1), "%a %H:00", "%Y-%m-%d %H")

    async def _count_for_a_moment(self) -> None:
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._count(), name="count the activity of the chart")
        await asyncio.wait([self._task], timeout=_WAIT)

    async def _count(self) -> None:
        with suppress(SQLAlchemyError, SoulspotError):  # the page says on its own that the database is away
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
                await asyncio.sleep(time.monotonic() - began)  # at most half of the time is spent on this
            self.is_complete = True

    async def _count_between(self, after: int, upto: int) -> str | None:
        counts, oldest = await self._browsing.arrivals(after, upto, FILES)
        for (when, action), count in counts.items():
            self._counts[when, kind_of(action)] += count
        return oldest

    def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()


def _bars(counts: Mapping[tuple[str, str], int], number: int, step: timedelta, name: str, key: str) -> Sequence[Bar]:
    """Return bars that end now, in the server's time zone; `key` is what one moment has in common with its bar."""
    found: dict[str, Counter[str]] = {}
    for (when, kind), count in counts.items():
        moment = datetime.strptime(f"{when}0", _TEN_MINUTES).replace(tzinfo=UTC).astimezone()
        found.setdefault(moment.strftime(key), Counter())[kind] += count
    now = datetime.now(UTC)
    # By the middle of a day, so that a change of the clock neither doubles nor skips one.
    last = now.astimezone().replace(hour=12) if step.days else now
    bars = [last - step * back for back in reversed(range(number))]
    bars = [each if step.days else each.astimezone() for each in bars]
    return [Bar(each.strftime(name), found.get(each.strftime(key), Counter())) for each in bars]


HEIGHT: Final = 120
WIDTH: Final = 720
_GAP: Final = 0.22


@dataclass(frozen=True, slots=True)
class Piece:
    """A rectangle of the chart, in its own units."""

    kind: str
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Chart:
    """What there is to draw: pieces of bars, the place of each bar, and the largest total."""

    bars: Sequence[Bar]
    pieces: Sequence[Piece]
    top: int
    kinds: Sequence[str]

    @property
    def total(self) -> int:
        return sum(bar.total for bar in self.bars)


def drawn(bars: Sequence[Bar]) -> Chart:
    """Lay out bars, each kind upon the one before; a kind that is there at all can be seen."""
    top = max((bar.total for bar in bars), default=0)
    pieces, step = [], WIDTH / max(1, len(bars))
    for number, bar in enumerate(bars):
        y = float(HEIGHT)
        for kind in KINDS:
            if count := bar.counts.get(kind, 0):
                height = max(1.5, (HEIGHT - 4) * count / top)
                y -= height
                pieces.append(Piece(kind, number * step + step * _GAP / 2, max(0.0, y), step * (1 - _GAP), height))
    kinds = [kind for kind in KINDS if any(bar.counts.get(kind) for bar in bars)]
    return Chart(bars, pieces, top, kinds)
