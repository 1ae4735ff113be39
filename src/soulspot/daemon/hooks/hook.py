"""Delivers batches of changes to another program: runs a command, or sends a POST to a server.

A hook is an ordinary subscriber; ingest never waits for it. It delivers one batch at a time; changes in the meantime
make the next batch. A failed delivery is retried with backoff, together with the changes since; the log has one line
when deliveries begin to fail and one when they work again. Each batch is delivered at least once.
"""

import asyncio
import json
import logging
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, Literal
from urllib.parse import urlsplit

from soulspot.daemon.events import EventBatch, Subscription
from soulspot.daemon.hooks.batch import Batch
from soulspot.infrastructure.backoff import Backoff
from soulspot.infrastructure.processes import run as commands

logger = logging.getLogger(__name__)

HOOK_BUFFER: Final = 20_000
"""Events that a hook's subscription keeps."""
COLLECT_INTERVAL: Final = 1.0
"""Seconds after which a hook moves new events from its subscription to its batch."""
FIRST_RETRY: Final = 1.0
LAST_RETRY: Final = 300.0
"""Seconds between two tries to deliver: doubling from the first value to the last."""
POST_ENVIRONMENT: Final = (
    *("PYTHONPATH", "SSL_CERT_FILE"),
    *("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"),
)
"""Environment variables for the program that posts, besides those for any program."""
STOP_LIMIT: Final = 4.0
"""Seconds to deliver the rest when the daemon stops."""

Deliver = Callable[[bytes], Awaitable[str | None]]
"""Delivers a payload; returns the error in one line, None on success."""


@dataclass(frozen=True, slots=True)
class Sender:
    """The constant part of every payload: the run, the machine, the watched folders."""

    run: str = ""
    roots: Sequence[str] = ()
    node: str = field(default_factory=socket.gethostname)


class Hook:
    """Delivers batches of changes to one target.

    Args:
        kind: the hook's name in metrics.
        place: the target's name in the log, without secrets.
        quiet: seconds without a change that complete a batch.
        longest: seconds after which a batch is complete even if changes continue.
        paths: the most files, and the most folders, in one payload.

    """

    def __init__(  # noqa: PLR0913 - the settings of a hook, by name
        self,
        kind: Literal["command", "url"],
        place: str,
        deliver: Deliver,
        *,
        quiet: float,
        longest: float,
        paths: int,
    ) -> None:
        self.kind, self.place = kind, place
        self.sender = Sender()
        self.delivered = self.failed = 0
        self.error: str | None = None
        self.last_delivery: datetime | None = None
        self._deliver = deliver
        self._quiet, self._longest, self._paths = quiet, longest, paths
        self._batch, self._sent = Batch(paths), Batch(paths)
        self._number = 0
        self._began = self._last = 0.0
        self._wake = asyncio.Event()
        self._is_stopping = False

    @property
    def undelivered(self) -> Batch:
        undelivered = Batch(self._paths)
        undelivered.merge(self._sent)
        undelivered.merge(self._batch)
        return undelivered

    def requeue(self, undelivered: Batch) -> None:
        """Put the changes that the previous hook could not deliver at the front."""
        self._batch.merge(undelivered)
        self._batch_changed()

    @property
    def waiting(self) -> int:
        """The number of undelivered changes."""
        return len(self._batch) + len(self._sent)

    async def run(self, subscription: Subscription) -> None:
        """Deliver batches until `stop`, then the rest."""
        collecting = asyncio.create_task(self._collect(subscription), name=f"hook {self.kind}: collect")
        try:
            while await self._has_batch(subscription):
                await self._deliver_with_backoff()
        finally:
            collecting.cancel()
            with suppress(asyncio.CancelledError):
                await collecting

    def stop(self, subscription: Subscription) -> None:
        """Make `run` deliver the rest at once and end; no more events come."""
        self._add_buffered(subscription)
        self._is_stopping = True
        self._wake.set()

    async def _collect(self, subscription: Subscription) -> None:
        async for events in subscription.batches(interval=COLLECT_INTERVAL):
            self._add(events)

    def _add_buffered(self, subscription: Subscription) -> bool:
        """Add the events left in the subscription; return whether it had any."""
        if (events := subscription.take()) is not None:
            self._add(events)
        return events is not None

    def _add(self, events: EventBatch) -> None:
        self._batch.add(events)
        self._batch_changed()

    def _batch_changed(self) -> None:
        if self._batch:
            self._last = time.monotonic()
            self._began = self._began or self._last
            self._wake.set()

    async def _has_batch(self, subscription: Subscription) -> bool:
        """Wait until a batch is complete; return False if no more will come."""
        while not self._is_stopping:
            wait = None
            if self._batch:
                latest = self._began + self._longest
                wait = min(self._last + self._quiet, latest) - time.monotonic()
                if wait <= 0 and not (self._add_buffered(subscription) and time.monotonic() < latest):
                    return True
            await self._wait(wait)
        return bool(self._batch)

    async def _wait(self, seconds: float | None) -> None:
        """Wait until the batch changes or the daemon stops, at most `seconds`."""
        self._wake.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()

    async def _deliver_with_backoff(self) -> None:
        """Deliver the batch, retrying with the changes that come meanwhile; when stopping, try only once."""
        self._number += 1
        for pause in Backoff(FIRST_RETRY, LAST_RETRY):
            was_last_try = self._is_stopping
            if await self._deliver_batch() or was_last_try:
                return
            until = time.monotonic() + pause
            while (wait := until - time.monotonic()) > 0 and not self._is_stopping:
                await self._wait(wait)

    async def _deliver_batch(self) -> bool:
        self._sent.merge(self._batch)
        self._batch, self._began = Batch(self._paths), 0.0
        sender = self.sender
        payload = self._sent.payload(run=sender.run, node=sender.node, number=self._number, roots=sender.roots)
        error = await self._deliver(payload)
        if error is not None:
            self.failed += 1
            if self.error is None:
                logger.warning("the hook %s fails (%s): retrying until it works", self.place, error)
            self.error = error
            return False
        if self.error is not None:
            logger.warning("the hook %s works again", self.place)
        self.delivered += 1
        self.error, self.last_delivery = None, datetime.now(UTC)
        self._sent = Batch(self._paths)
        return True


async def end(subscribed: Iterable[tuple[Hook, Subscription]], running: Collection["asyncio.Task[None]"]) -> None:
    """Let the hooks deliver the rest within `STOP_LIMIT`, then cancel them."""
    for hook, subscription in subscribed:
        hook.stop(subscription)
    if running:
        await asyncio.wait(running, timeout=STOP_LIMIT)
    for task in running:
        task.cancel()


def command_hook(argv: Sequence[str], *, within: float, quiet: float, longest: float, paths: int) -> Hook:
    """Return a hook that runs a program with the payload on standard input."""

    async def deliver(payload: bytes) -> str | None:
        return await commands.run(argv, payload, within=within, environment=commands.plain_environment())

    return Hook("command", argv[0], deliver, quiet=quiet, longest=longest, paths=paths)


def url_hook(  # noqa: PLR0913 - the settings of a hook, by name
    url: str, headers: Sequence[str], *, within: float, quiet: float, longest: float, paths: int
) -> Hook:
    """Return a hook that sends the payload in a POST request."""
    program = [sys.executable, "-m", "soulspot.infrastructure.processes.http_post"]
    parts = urlsplit(url)
    place = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"  # the rest may hold a token

    async def deliver(payload: bytes) -> str | None:
        request = {"url": url, "headers": list(headers), "body": payload.decode(), "within": within}
        environment = commands.plain_environment(*POST_ENVIRONMENT)
        error = await commands.run(program, json.dumps(request).encode(), within=within + 1, environment=environment)
        return error and error.removeprefix("exit code 1: ")

    return Hook("url", place, deliver, quiet=quiet, longest=longest, paths=paths)
