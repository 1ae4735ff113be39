"""Publishes the outcome of each file to all subscribers; a slow subscriber never blocks ingest.

Each subscriber has its own buffer. One that falls behind loses the oldest events and learns how many; the audit
log in the catalogue has them all.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from soulspot.ingest.outcome import Outcome

SUBSCRIBER_BUFFER: Final = 2000
"""Events kept for a busy subscriber."""
RECENT_EVENTS: Final = 40
"""Events kept for later subscribers."""
BATCH_INTERVAL: Final = 0.1
"""Seconds between two batches, so that a subscriber's cost does not grow with the number of events."""


@dataclass(frozen=True, slots=True)
class FileEvent:
    """An outcome and the time of its commit."""

    at: datetime
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class EventBatch:
    """The events since the last batch, in order; `lost` older events did not fit into the buffer."""

    events: Sequence[FileEvent]
    lost: int = 0


class Subscription:
    """A subscriber's bounded buffer."""

    def __init__(self, buffer: int) -> None:
        self._buffer, self._lost = deque[FileEvent](maxlen=buffer), 0
        self._has_events = asyncio.Event()

    def put(self, event: FileEvent) -> None:
        """Add an event; never waits."""
        self._lost += len(self._buffer) == self._buffer.maxlen
        self._buffer.append(event)
        self._has_events.set()

    async def batches(self, interval: float = BATCH_INTERVAL) -> AsyncIterator[EventBatch]:
        """Yield the first events at once, later events together every `interval` seconds."""
        while True:
            await self._has_events.wait()
            if (batch := self.take()) is not None:
                yield batch
                await asyncio.sleep(interval)

    async def next_batch(self, timeout: float) -> EventBatch | None:  # noqa: ASYNC109 - returns None instead of raising
        """Return the next events as soon as they come, None if none come within `timeout` seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._has_events.wait()
        return self.take()

    def take(self) -> EventBatch | None:
        """Remove and return the buffered events, None without any."""
        self._has_events.clear()
        if not self._buffer:
            return None
        batch, self._lost = EventBatch(tuple(self._buffer), self._lost), 0
        self._buffer.clear()
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
