"""The state of the running daemon, which the control socket, systemd and the monitoring read."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from soulspot.config import Settings
from soulspot.daemon import health
from soulspot.daemon.catalogue_totals import CatalogueTotals
from soulspot.daemon.counters import OutcomeCounters, RateCounter
from soulspot.daemon.events import EventFeed
from soulspot.daemon.hooks.hook import Hook
from soulspot.daemon.pause import Pauses
from soulspot.infrastructure.persistence.database import Database
from soulspot.infrastructure.watching.watcher import Watcher
from soulspot.ingest.disk.walker import Root
from soulspot.ingest.outcome import Outcome
from soulspot.ingest.pipeline import Pipeline
from soulspot.ingest.polling import Polling
from soulspot.ingest.scan_requests import Requests


@dataclass(slots=True)
class SettingsChange:
    """Settings to continue with; `done` gets the reply once they are active or refused."""

    settings: Settings
    before: Settings
    done: "asyncio.Future[dict[str, Any]]"


@dataclass(slots=True)
class DaemonState:
    """The daemon's settings, its parts while it watches, and its counters.

    Attributes:
        read_settings: reads the settings again, for a reload.
        changes: reloaded settings, which the daemon takes from this queue.
        requests: the requested scans; None while the daemon starts or applies new settings.

    """

    settings: Settings
    pauses: Pauses
    read_settings: Callable[[], Settings]
    changes: "asyncio.Queue[SettingsChange]" = field(default_factory=asyncio.Queue)
    since: datetime = field(default_factory=lambda: datetime.now(UTC))
    pipeline: Pipeline | None = None
    roots: Sequence[Root] = ()
    watchdog: health.Watchdog = field(default_factory=lambda: health.Watchdog(0))
    last_event: dict[Root, datetime] = field(default_factory=dict)
    feed: EventFeed = field(default_factory=EventFeed)
    counters: OutcomeCounters = field(default_factory=OutcomeCounters)
    rate: RateCounter = field(default_factory=RateCounter)
    totals: CatalogueTotals = field(default_factory=CatalogueTotals)
    database: Database | None = None
    watcher: Watcher | None = None
    polling: Polling | None = None
    hooks: Sequence[Hook] = ()
    is_watching: asyncio.Event = field(default_factory=asyncio.Event)
    requests: Requests | None = None

    def on_outcome(self, outcome: Outcome) -> None:
        """Count and publish a committed outcome."""
        self.counters.add(outcome)
        self.rate.add()
        self.feed.publish(outcome)
        if self.requests is not None:
            self.requests.on_outcome(outcome)
