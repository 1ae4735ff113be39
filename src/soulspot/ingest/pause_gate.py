"""Where everything waits while a person has paused the ingest: hints are taken, and nothing is looked at or written."""

import asyncio
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Paused:
    """Who paused the ingest, when, and until when: None is until somebody lets it go on."""

    since: datetime
    by: str
    until: datetime | None = None


class Gate:
    def __init__(self) -> None:
        self.paused: Paused | None = None
        self._open = asyncio.Event()
        self._open.set()

    def close(self, paused: Paused) -> None:
        self.paused = paused
        self._open.clear()

    def open(self) -> None:
        self.paused = None
        self._open.set()

    async def passed(self) -> None:
        """Wait for as long as it is closed."""
        await self._open.wait()
