"""Tells another program, once for each batch of changes, what changed: a command that is run, or a server by a POST.

A hook listens to the feed as anybody does, and is waited for by nobody. One delivery is on its way at a time; what
happens meanwhile is the next batch. One that fails is tried again, later each time, together with what came since:
it is said once that it fails, and once that it does not any more. A batch is told at least once.
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

from soulspot.daemon.events import Listener
from soulspot.daemon.hooks.batch import Batch
from soulspot.infrastructure.processes import run as commands

logger = logging.getLogger(__name__)

ROOM: Final = 20_000
"""Outcomes that a hook keeps until it has counted them."""
COUNT_EVERY: Final = 1.0
"""Seconds between two times that it does."""
FIRST_REST: Final = 1.0
LONGEST_REST: Final = 300.0
"""Seconds between two tries to deliver: from the one to the other, doubling."""
POST_ENVIRONMENT: Final = (
    *("PYTHONPATH", "SSL_CERT_FILE"),
    *("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"),
)
"""What of our environment the program that posts heeds, beside what any program gets."""
STOP_LIMIT: Final = 4.0
"""Seconds that a hook has for what it has not told yet when the daemon stops."""

Deliver = Callable[[bytes], Awaitable[str | None]]
"""Hands a payload over; returns in one line what went wrong, None where nothing did."""


@dataclass(frozen=True, slots=True)
class Sender:
    """What stands in every payload: which run of which machine sends it, and the folders that it watches."""

    run: str = ""
    roots: Sequence[str] = ()
    node: str = field(default_factory=socket.gethostname)


class Hook:
    """One that is told.

    Args:
        kind: what it is called in metrics.
        place: what it is called in the log; without any secret.
        quiet: seconds without a change after which a batch is complete.
        longest: seconds after which it is told although changes go on.
        paths: files, and folders, that are named in one payload at most.

    """

    def __init__(  # noqa: PLR0913 - filled in once, by name
        self,
        kind: Literal["command", "url"],
        place: str,
        deliver: Deliver,
        *,
        quiet: float,
        longest: float,
        paths: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.kind, self.place = kind, place
        self.sender = Sender()
        self.delivered = 0
        self.failed = 0
        self.error: str | None = None
        self.last_delivery: datetime | None = None
        self._deliver = deliver
        self._quiet, self._longest, self._paths = quiet, longest, paths
        self._clock = clock
        self._batch = Batch(paths)
        self._sent = Batch(paths)
        self._number = 0
        self._began = self._last = 0.0
        self._stirred = asyncio.Event()
        self._is_stopping = False

    @property
    def untold(self) -> Batch:
        """What it was not told of yet."""
        untold = Batch(self._paths)
        for batch in (self._sent, self._batch):
            untold.follow(batch)
        return untold

    def inherit(self, untold: Batch) -> None:
        """Tell this first, which another hook in its place was not told of."""
        self._batch.follow(untold)
        self._note()

    @property
    def waiting(self) -> int:
        """The number of changes that it was not told of yet."""
        return len(self._batch) + len(self._sent)

    async def run(self, listener: Listener) -> None:
        """Tell batches until `stop`, and then what is left."""
        gathering = asyncio.create_task(self._gather(listener))
        try:
            while await self._has_batch(listener):
                await self._tell_patiently()
        finally:
            gathering.cancel()
            with suppress(asyncio.CancelledError):
                await gathering

    def stop(self, listener: Listener) -> None:
        """Have what is left told now: nothing more happens."""
        self._take_in(listener)
        self._is_stopping = True
        self._stirred.set()

    async def _gather(self, listener: Listener) -> None:
        async for news in listener.news(pause=COUNT_EVERY):
            self._batch.add(news)
            self._note()

    def _take_in(self, listener: Listener) -> bool:
        if (news := listener.take()) is not None:
            self._batch.add(news)
            self._note()
        return news is not None

    def _note(self) -> None:
        if not self._batch:
            return
        self._last = self._clock()
        self._began = self._began or self._last
        self._stirred.set()

    async def _has_batch(self, listener: Listener) -> bool:
        """Wait until a batch is complete; False when there is to be none any more."""
        while not self._is_stopping:
            wait = None
            if self._batch:
                wait = min(self._last + self._quiet, self._began + self._longest) - self._clock()
                if wait <= 0 and not (self._take_in(listener) and self._clock() < self._began + self._longest):
                    return True
            await self._stir(wait)
        return bool(self._batch)

    async def _stir(self, wait: float | None) -> None:
        """Wait until something happens, for so many seconds at most."""
        self._stirred.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(wait):
                await self._stirred.wait()

    async def _tell_patiently(self) -> None:
        """Tell what has gathered, again and again until that works, with what came meanwhile; once when stopping."""
        rest = FIRST_REST
        self._number += 1
        while True:
            was_last_try = self._is_stopping
            if await self._tell():
                return
            if was_last_try:
                return
            until = self._clock() + rest
            while (wait := until - self._clock()) > 0 and not self._is_stopping:
                await self._stir(wait)
            rest = min(rest * 2, LONGEST_REST)

    async def _tell(self) -> bool:
        self._sent.follow(self._batch)
        self._batch, self._began = Batch(self._paths), 0.0
        sender = self.sender
        payload = self._sent.payload(run=sender.run, node=sender.node, number=self._number, roots=sender.roots)
        wrong = await self._deliver(payload)
        if wrong is not None:
            self.failed += 1
            if self.error is None:
                logger.warning("the hook %s fails (%s) and is tried again until it does not", self.place, wrong)
            self.error = wrong
            return False
        if self.error is not None:
            logger.warning("the hook %s works again", self.place)
        self.delivered += 1
        self.error, self.last_delivery = None, datetime.now(UTC)
        self._sent = Batch(self._paths)
        return True


async def end(hooked: Iterable[tuple[Hook, Listener]], running: Collection["asyncio.Task[None]"]) -> None:
    """Let hooks tell what is left, for as long as there is time for that."""
    for hook, listener in hooked:
        hook.stop(listener)
    if running:
        await asyncio.wait(running, timeout=STOP_LIMIT)
    for task in running:
        task.cancel()


def command_hook(argv: Sequence[str], *, within: float, quiet: float, longest: float, paths: int) -> Hook:
    """Return a hook that runs a program, with the payload on its standard input."""

    async def deliver(payload: bytes) -> str | None:
        return await commands.run(argv, payload, within=within, environment=commands.plain_environment())

    return Hook("command", argv[0], deliver, quiet=quiet, longest=longest, paths=paths)


def url_hook(  # noqa: PLR0913 - filled in once, by name
    url: str, headers: Sequence[str], *, within: float, quiet: float, longest: float, paths: int
) -> Hook:
    """Return a hook that sends the payload by a POST."""
    program = [sys.executable, "-m", "soulspot.infrastructure.processes.http_post"]
    parts = urlsplit(url)
    place = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"  # what comes behind may hold a token

    async def deliver(payload: bytes) -> str | None:
        asked = {"url": url, "headers": list(headers), "body": payload.decode(), "within": within}
        environment = commands.plain_environment(*POST_ENVIRONMENT)
        wrong = await commands.run(program, json.dumps(asked).encode(), within=within + 1, environment=environment)
        return wrong and wrong.removeprefix("exit code 1: ")

    return Hook("url", place, deliver, quiet=quiet, longest=longest, paths=paths)
