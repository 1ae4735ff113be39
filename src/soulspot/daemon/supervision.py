"""Reports to systemd, and checks that the open database is still the file at its path."""

import asyncio
import logging
import os
from pathlib import Path

from soulspot.config.paths import database_file
from soulspot.daemon import health
from soulspot.daemon.state import DaemonState
from soulspot.daemon.status import current_health
from soulspot.errors import CatalogueError
from soulspot.infrastructure.persistence import backup
from soulspot.infrastructure.persistence.database import Database
from soulspot.infrastructure.systemd import notify, watchdog_interval
from soulspot.ingest.pipeline import Pipeline

logger = logging.getLogger(__name__)

DATABASE_CHECK_INTERVAL = 2.0
STATUS_INTERVAL = 1.0
"""Seconds between two checks whether the status line has changed."""


async def report_to_systemd(state: DaemonState, pipeline: Pipeline) -> None:
    """Send systemd the status line, and feed its watchdog while this loop runs and work is not stuck."""
    interval = watchdog_interval()
    every = STATUS_INTERVAL if interval is None else min(STATUS_INTERVAL, interval / 3)
    sent = ""
    while True:
        await asyncio.sleep(every)
        found = current_health(state)
        if (line := health.status_line(found, pipeline.stats(), state.roots)) != sent:
            notify(f"STATUS={line}")
            sent = line
        if interval is not None and found.state != "failed":
            notify("WATCHDOG=1")


async def watch_database_file(database: Database) -> None:
    """Exit if the open database is no longer the file at its path, as further writes would be lost."""
    if (file := database_file(str(database.url))) is None:
        return
    opened = os.stat(file)
    while (now := _stat(file, opened)) is not None and os.path.samestat(now, opened):  # noqa: ASYNC110 - no event for it
        await asyncio.sleep(DATABASE_CHECK_INTERVAL)
    happened = "was deleted or moved away" if now is None else "was replaced by another file"
    try:
        rescued = await backup.copy(database, backup.rescue_place(file))
        then = f"its content is saved: `soulspot db restore {rescued}` restores it"
    except CatalogueError as error:
        then = f"{error}; `soulspot db restore` restores a backup"
    logger.critical("the catalogue %s %s while it was open; %s", file, happened, then)
    notify("STOPPING=1", f"STATUS=failed: the catalogue {file} {happened}")
    logging.shutdown()
    # Exit at once: closing the database would delete the write-ahead log of the file that is at the path now.
    os._exit(CatalogueError.exit_code)


def _stat(file: Path, opened: os.stat_result) -> os.stat_result | None:
    """Return the stat of a file, None if it is gone, `opened` if that cannot be determined."""
    try:
        return os.stat(file)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError:  # the disk does not answer: the next transaction pauses ingest
        return opened
