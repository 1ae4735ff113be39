"""Tells systemd how the daemon is, and looks after its database."""

import asyncio
import logging
import os
from pathlib import Path

from soulspot.config.paths import database_file
from soulspot.daemon import health
from soulspot.daemon.state import State
from soulspot.daemon.status import judge, logger
from soulspot.errors import CatalogueError
from soulspot.infrastructure.persistence import backup
from soulspot.infrastructure.persistence.database import Database
from soulspot.infrastructure.systemd import notify, watchdog_interval
from soulspot.ingest.pipeline import Pipeline

DATABASE_LOOK = 2.0
"""Seconds between two looks at whether the database is still the file at its path."""
STATUS_EVERY = 1.0
"""Seconds between two lines of status, where it has changed."""


async def tell_systemd(state: State, pipeline: Pipeline) -> None:
    """Keep the line of status true, and the watchdog quiet for as long as this loop turns and files get done."""
    interval = watchdog_interval()
    every = STATUS_EVERY if interval is None else min(STATUS_EVERY, interval / 3)
    told = ""
    while True:
        await asyncio.sleep(every)
        vitals = pipeline.stats()
        found = judge(state, pipeline, vitals)
        line = health.in_a_line(found, vitals, state.roots)
        if line != told:
            notify(f"STATUS={line}")
            told = line
        if interval is not None and found.state != "failed":
            notify("WATCHDOG=1")


async def look_at_the_database(database: Database) -> None:
    """End the process when the file that is written is not at its path any more: what is written would be lost."""
    file = database_file(str(database.url))
    if file is None:
        return
    opened = os.stat(file)
    while (now := _status(file, opened)) is not None and os.path.samestat(now, opened):  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(DATABASE_LOOK)
    happened = "was deleted or moved away" if now is None else "was replaced by another file"
    try:
        rescued = await backup.copy(database, backup.rescue_place(file))
        then = f"what it held is in {rescued}: `soulspot db restore {rescued}` puts it back"
    except CatalogueError as error:
        then = f"{error}; `soulspot db restore` puts a backup in its place"
    logger.critical("the catalogue %s %s while it was open; %s", file, happened, then)
    notify("STOPPING=1", f"STATUS=failed: the catalogue {file} {happened}")
    logging.shutdown()
    # Not an orderly end: to close the database would delete the write-ahead log of the file that is there now.
    os._exit(CatalogueError.exit_code)


def _status(file: Path, opened: os.stat_result) -> os.stat_result | None:
    """Return the status of a file, None where there is none, and the one before where nothing can be known."""
    try:
        return os.stat(file)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError:  # its disk does not answer: the next transaction pauses for that
        return opened
