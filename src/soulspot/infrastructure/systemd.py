"""The notification protocol of sd_notify(3), and the log priorities of sd-daemon(3).

Own code, as systemd's manual recommends: the protocol is one datagram, and stable.
"""

import asyncio
import logging
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

EXTEND_AFTER = 1.0
EXTEND_INTERVAL = 10.0
EXTENSION = 60
"""Seconds until the first request for more time, between two requests, and requested by each."""
_PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}


def notify(*assignments: str) -> None:
    """Send assignments such as "READY=1" to the service manager, if one started this process."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    message = "\n".join(assignment.replace("\n", " ") for assignment in assignments)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as connection:
        try:
            connection.sendto(message.encode(), "\0" + address[1:] if address.startswith("@") else address)
        except OSError:
            logging.getLogger(__name__).debug("the service manager does not answer at %s", address)


@asynccontextmanager
async def given_time(status: str) -> AsyncIterator[None]:
    """Extend systemd's start timeout while the block and the event loop run."""

    async def ask() -> None:
        await asyncio.sleep(EXTEND_AFTER)
        while True:
            notify(f"EXTEND_TIMEOUT_USEC={EXTENSION * 1_000_000}", f"STATUS={status}")
            await asyncio.sleep(EXTEND_INTERVAL)

    asking = asyncio.create_task(ask(), name="ask systemd for more time")
    try:
        yield
    finally:
        asking.cancel()


def watchdog_interval() -> float | None:
    """Return the seconds within which systemd expects WATCHDOG=1 from this process, None if it expects none."""
    microseconds, process = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID", str(os.getpid()))
    return int(microseconds) / 1e6 if microseconds.isdecimal() and process == str(os.getpid()) else None


def stderr_is_the_journal() -> bool:
    """Whether standard error goes to the journal, by $JOURNAL_STREAM (systemd.exec(5))."""
    try:
        status = os.fstat(2)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def priority(level: int) -> int:
    """Return the syslog priority of a logging level."""
    return next((value for lowest, value in sorted(_PRIORITIES.items(), reverse=True) if level >= lowest), 7)
