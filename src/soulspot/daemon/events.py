"""Publishes the outcome of each file to all subscribers; a slow subscriber never blocks ingest.

Each subscriber has a buffer of its own. One that falls behind loses the oldest events and learns how many; the audit
log in the catalogue has all of them.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from soulspot.ingest.outcome import Outcome

SUBSCRIBER_BUFFER: Final = 2000
"""Events kept for a subscriber that is busy."""
RECENT_EVENTS: Final = 40
"""Events kept for a subscriber that comes later."""
BATCH_INTERVAL: Final = 0.1
"""Seconds between two batches of a subscriber: its cost does not grow with the number of events."""


@dataclass(frozen=True, slots=True)
class FileEvent:
    """An outcome, and when its transaction was committed."""

    at: datetime
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class EventBatch:
    """The events since the last batch, in order; `lost` older ones did not fit into the buffer."""

    events: Sequence[FileEvent]
    lost: int = 0


class Subscription:
    """A subscriber's bounded buffer."""

    def __init__(self, buffer: int) -> None:
        self._buffer: deque[FileEvent] = deque(maxlen=buffer)
        self._lost = 0
        self._has_events = asyncio.Event()

    def put(self, event: FileEvent) -> None:
        """Add an event; never waits."""
        self._lost += len(self._buffer) == self._buffer.maxlen
        self._buffer.append(event)
        self._has_events.set()

    async def batches(self, interval: float = BATCH_INTERVAL) -> AsyncIterator[EventBatch]:
        """Yield the first events at once, and later ones together every `interval` seconds."""
        while True:
            await self._has_events.wait()
            if (batch := self.take()) is not None:
                yield batch
                await asyncio.sleep(interval)

    async def next_batch(self, timeout: float) -> EventBatch | None:  # noqa: ASYNC109 - None is an answer here
        """Return the next events as soon as there are any, None if there are none for `timeout` seconds."""
        try:
            async with asyncio.timeout(timeout):
                await self._has_events.wait()
        except TimeoutError:
            return None
        return self.take()

    def take(self) -> EventBatch | None:
        """Remove and return the buffered events, None if there are none."""
        self._has_events.clear()
        if not self._buffer:
            return None
        batch = EventBatch(tuple(self._buffer), self._lost)
        self._buffer.clear()
        self._lost = 0
        return batch


@dataclass(slots=True)
class EventFeed:
    """Publishes events to the current subscribers; `recent` holds the last ones for later subscribers."""

    recent: deque[FileEvent] = field(default_factory=lambda: deque(maxlen=RECENT_EVENTS))
    _subscriptions: set[Subscription] = field(default_factory=set)

    def publish(self, outcome: Outcome) -> None:
        """Publish a committed outcome; almost free without subscribers."""
        event = FileEvent(datetime.now(UTC), outcome)
        self.recent.append(event)
        for subscription in self._subscriptions:
            subscription.put(event)

    @contextmanager
    def subscribe(self, buffer: int = SUBSCRIBER_BUFFER) -> Iterator[Subscription]:
        """Yield a subscription that receives events until the block ends."""
        subscription = Subscription(buffer)
        self._subscriptions.add(subscription)
        try:
            yield subscription
        finally:
            self._subscriptions.discard(subscription)
