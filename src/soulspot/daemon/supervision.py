"""Reports to systemd, and checks that the database is still the file at its path."""

import asyncio
import logging
import os
from pathlib import Path

from soulspot.config.paths import database_file
from soulspot.daemon import health
from soulspot.daemon.state import DaemonState
from soulspot.daemon.status import judge
from soulspot.errors import CatalogueError
from soulspot.infrastructure.persistence import backup
from soulspot.infrastructure.persistence.database import Database
from soulspot.infrastructure.systemd import notify, watchdog_interval
from soulspot.ingest.pipeline import Pipeline

logger = logging.getLogger(__name__)

DATABASE_CHECK_INTERVAL = 2.0
STATUS_INTERVAL = 1.0
"""Seconds between two status lines, if the line has changed."""


async def report_to_systemd(state: DaemonState, pipeline: Pipeline) -> None:
    """Send systemd the status line, and keep its watchdog quiet while this loop runs and files get done."""
    interval = watchdog_interval()
    every = STATUS_INTERVAL if interval is None else min(STATUS_INTERVAL, interval / 3)
    sent = ""
    while True:
        await asyncio.sleep(every)
        vitals = pipeline.stats()
        found = judge(state, pipeline, vitals)
        line = health.in_a_line(found, vitals, state.roots)
        if line != sent:
            notify(f"STATUS={line}")
            sent = line
        if interval is not None and found.state != "failed":
            notify("WATCHDOG=1")


async def watch_database_file(database: Database) -> None:
    """End the process if the open database is no longer the file at its path: what is written would be lost."""
    file = database_file(str(database.url))
    if file is None:
        return
    opened = os.stat(file)
    while (now := _status(file, opened)) is not None and os.path.samestat(now, opened):  # noqa: ASYNC110 - nothing signals it
        await asyncio.sleep(DATABASE_CHECK_INTERVAL)
    happened = "was deleted or moved away" if now is None else "was replaced by another file"
    try:
        rescued = await backup.copy(database, backup.rescue_place(file))
        then = f"what it held is in {rescued}: `soulspot db restore {rescued}` puts it back"
    except CatalogueError as error:
        then = f"{error}; `soulspot db restore` puts a backup in its place"
    logger.critical("the catalogue %s %s while it was open; %s", file, happened, then)
    notify("STOPPING=1", f"STATUS=failed: the catalogue {file} {happened}")
    logging.shutdown()
    # Do not shut down in order: closing the database would delete the write-ahead log of the file that is there now.
    os._exit(CatalogueError.exit_code)


def _status(file: Path, opened: os.stat_result) -> os.stat_result | None:
    """Return the status of a file, None if it is gone, and the one before if that cannot be known."""
    try:
        return os.stat(file)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError:  # its disk does not answer: the next transaction pauses because of that
        return opened
