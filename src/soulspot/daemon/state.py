"""What the running daemon knows of itself."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from soulspot.config import Settings
from soulspot.daemon import health
from soulspot.daemon.counters import Pace, Tally
from soulspot.daemon.events import Feed
from soulspot.daemon.pause import Pauses
from soulspot.infrastructure.persistence.database import Database
from soulspot.ingest.disk.walker import Root
from soulspot.ingest.outcome import Outcome
from soulspot.ingest.pipeline import Pipeline
from soulspot.ingest.scan_requests import Requests

if TYPE_CHECKING:
    from soulspot.daemon.hooks.hook import Hook
    from soulspot.infrastructure.watching.watcher import Watcher
    from soulspot.ingest.polling import Polling


@dataclass(slots=True)
class Change:
    """Settings to go on with; `done` has the answer once they are in force, or are not."""

    settings: Settings
    before: Settings
    done: "asyncio.Future[dict[str, Any]]"


@dataclass(slots=True)
class State:
    """What the control socket and systemd are told of; the daemon keeps it up to date."""

    settings: Settings
    pauses: Pauses
    since: datetime = field(default_factory=lambda: datetime.now(UTC))
    pipeline: Pipeline | None = None
    roots: Sequence[Root] = ()
    watchdog: health.Watchdog = field(default_factory=lambda: health.Watchdog(0))
    last_event: dict[Root, datetime] = field(default_factory=dict)
    feed: Feed = field(default_factory=Feed)
    tally: Tally = field(default_factory=Tally)
    pace: Pace = field(default_factory=Pace)
    database: Database | None = None
    watcher: "Watcher | None" = None
    rounds: "Polling | None" = None
    hooks: "Sequence[Hook]" = ()
    is_watching: asyncio.Event = field(default_factory=asyncio.Event)
    asked: Requests | None = None

    @property
    def requests(self) -> Requests:
        assert self.asked is not None
        return self.asked

    def hear(self, outcome: Outcome) -> None:
        """Hear what became of a file, once that is committed, and tell it on."""
        self.tally.add(outcome)
        self.pace.add()
        self.feed.tell(outcome)
        if self.asked is not None:
            self.asked.hear(outcome)
