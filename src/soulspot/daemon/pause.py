"""Pauses and resumes ingest; a pause may have an end time.

The pause is kept in a file beside the catalogue and survives a restart: "do not touch my files" does not mean "until
you crash". Only `soulspot resume` and the end time end it.
"""

import asyncio
import json
import logging
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from soulspot.config.paths import private_file
from soulspot.infrastructure.private_files import read_private, write_private
from soulspot.ingest.pause_gate import Paused, PauseGate

logger = logging.getLogger(__name__)

CLOCK_CHECK_SECONDS: Final = 60.0
"""The wall clock is read at least so often: timers stand still while the machine sleeps."""


def pause_file(url: str) -> Path:
    """Return the file that keeps the pause of a catalogue's daemon."""
    return private_file(url, "paused")


class Pauses:
    """Closes and opens the gate.

    Args:
        file: keeps the pause.

    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._changed = asyncio.Event()
        self.gate = PauseGate()
        saved = read_pause(file)
        if saved is not None:
            self.gate.close(saved)
            logger.warning("the ingest is still paused, as %s wanted: `soulspot resume` lets it go on", saved.by)

    def pause(self, by: str, span: timedelta | None) -> Paused:
        """Pause from now; a pause in progress continues with the new end time.

        Raises OSError if the pause could not be saved; ingest is paused all the same.
        """
        now, before = datetime.now(UTC), self.gate.paused
        paused = Paused(before.since if before else now, by, None if span is None else now + span)
        self.gate.close(paused)
        self._changed.set()
        logger.warning("the ingest was paused by %s", by)
        saved = {"since": paused.since.isoformat(), "by": by, "until": paused.until and paused.until.isoformat()}
        self._file.parent.mkdir(parents=True, exist_ok=True)
        write_private(self._file, json.dumps(saved).encode(), 0o640)
        return paused

    def resume(self, why: str) -> Paused | None:
        """Resume ingest; return the pause that has ended, None if there was none."""
        before = self.gate.paused
        remove_pause(self._file)
        self.gate.open()
        self._changed.set()
        if before is not None:
            logger.warning("the ingest goes on: %s", why)
        return before

    async def run(self) -> None:
        """End a pause at its end time."""
        while True:
            paused = self.gate.paused
            rest = None
            if paused is not None and paused.until is not None:
                rest = min((paused.until - datetime.now(UTC)).total_seconds(), CLOCK_CHECK_SECONDS)
                if rest <= 0:
                    self.resume("the time of the pause is up")
                    continue
            self._changed.clear()
            try:
                async with asyncio.timeout(rest):
                    await self._changed.wait()
            except TimeoutError:
                continue


def read_pause(file: Path) -> Paused | None:
    """Return the saved pause, None if there is none or its time is up."""
    try:
        saved: dict[str, Any] = json.loads(read_private(file))
        until = None if saved["until"] is None else datetime.fromisoformat(saved["until"])
        paused = Paused(datetime.fromisoformat(saved["since"]), str(saved["by"]), until)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        logger.warning("whether the ingest is paused cannot be read in %s (%s): it is not", file, error)
        return None
    return None if until is not None and until <= datetime.now(UTC) else paused


def remove_pause(file: Path) -> bool:
    """Remove a saved pause; return whether there was one."""
    try:
        os.unlink(file)
    except FileNotFoundError:
        return False
    return True
