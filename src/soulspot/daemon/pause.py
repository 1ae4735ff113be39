"""A person pauses the ingest, and takes that back, or it ends when its time is up.

It is remembered beside the catalogue, and outlives the process: who says "do not touch my files" does not mean "until
you crash". Only `soulspot resume` and the time that was named end it.
"""

import asyncio
import json
import logging
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from soulspot.config.paths import beside
from soulspot.infrastructure.private_files import read_private, write_private
from soulspot.ingest.pause_gate import Gate, Paused

logger = logging.getLogger(__name__)

LOOK_EVERY: Final = 60.0
"""Seconds after which the clock is asked again: a machine that slept has not counted."""


def place_of(url: str) -> Path:
    """Return the file that remembers a pause of the daemon that keeps this catalogue."""
    return beside(url, "paused")


class Pauses:
    """Closes and opens the gate.

    Args:
        place: the file in which a pause is remembered.

    """

    def __init__(self, place: Path) -> None:
        self._place = place
        self._changed = asyncio.Event()
        self.gate = Gate()
        remembered = remembered_in(place)
        if remembered is not None:
            self.gate.close(remembered)
            logger.warning("the ingest is still paused, as %s wanted: `soulspot resume` lets it go on", remembered.by)

    def pause(self, by: str, span: timedelta | None) -> Paused:
        """Pause from now; a pause that there is goes on, with the end that is named now.

        Raises OSError where it could not be remembered; it is paused all the same.
        """
        now, before = datetime.now(UTC), self.gate.paused
        paused = Paused(before.since if before else now, by, None if span is None else now + span)
        self.gate.close(paused)
        self._changed.set()
        logger.warning("the ingest was paused by %s", by)
        told = {"since": paused.since.isoformat(), "by": by, "until": paused.until and paused.until.isoformat()}
        self._place.parent.mkdir(parents=True, exist_ok=True)
        write_private(self._place, json.dumps(told).encode(), 0o640)
        return paused

    def resume(self, why: str) -> Paused | None:
        """Let the ingest go on; return the pause that there was."""
        before = self.gate.paused
        forget(self._place)
        self.gate.open()
        self._changed.set()
        if before is not None:
            logger.warning("the ingest goes on: %s", why)
        return before

    async def run(self) -> None:
        """End a pause when its time is up."""
        while True:
            paused = self.gate.paused
            rest = None
            if paused is not None and paused.until is not None:
                rest = min((paused.until - datetime.now(UTC)).total_seconds(), LOOK_EVERY)
                if rest <= 0:
                    self.resume("the time of the pause is up")
                    continue
            self._changed.clear()
            try:
                async with asyncio.timeout(rest):
                    await self._changed.wait()
            except TimeoutError:
                continue


def remembered_in(place: Path) -> Paused | None:
    """Return the pause that is remembered there, None for none and for one whose time is up."""
    try:
        told: dict[str, Any] = json.loads(read_private(place))
        until = None if told["until"] is None else datetime.fromisoformat(told["until"])
        paused = Paused(datetime.fromisoformat(told["since"]), str(told["by"]), until)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        logger.warning("whether the ingest is paused cannot be read in %s (%s): it is not", place, error)
        return None
    return None if until is not None and until <= datetime.now(UTC) else paused


def forget(place: Path) -> bool:
    """Forget a pause that is remembered; return whether there was one."""
    try:
        os.unlink(place)
    except FileNotFoundError:
        return False
    return True
