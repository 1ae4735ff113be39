"""Blocks every ingest stage while ingest is paused; the queue still collects hints."""

import asyncio
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Paused:
    """Who paused ingest, when, and until when; None means until `soulspot resume`."""

    since: datetime
    by: str
    until: datetime | None = None


class PauseGate:
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

    async def wait_until_open(self) -> None:
        await self._open.wait()
