"""Starts the web process on the first connection, so it uses no memory until needed.

The process gets the listening socket as standard input, as inetd's "wait" services do. It accepts the waiting
connections, and exits when idle. It has this daemon's settings; ingest does not depend on it in any way.
"""

import asyncio
import json
import logging
import socket
import sys
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from importlib.util import find_spec
from typing import Final

from soulspot.config import Settings
from soulspot.config.sources import variable, why
from soulspot.errors import ConfigError, LockHeldError
from soulspot.infrastructure.backoff import Backoff
from soulspot.infrastructure.net.sockets import BACKLOG, address_of, is_private, listen_at
from soulspot.infrastructure.privileges import child_user
from soulspot.infrastructure.processes.run import plain_environment

logger = logging.getLogger(__name__)

STOP_TIMEOUT: Final = 5.0
"""Seconds that the web process may take to stop."""
FIRST_RESTART: Final = 1.0
LAST_RESTART: Final = 60.0
"""Seconds before a crashed web process starts again: doubling from the first value to the last."""
REQUIRED_PACKAGES: Final = ("h11", "jinja2", "starlette", "uvicorn")


@asynccontextmanager
async def web_activation(settings: Settings) -> AsyncIterator[None]:
    """Listen at `web.listen`, and run the web process on demand, until the block ends.

    Raises:
        ConfigError: the page cannot be served at this address.

    """
    if not settings.web.listen:
        yield
        return
    with _listening(settings) as listening:
        waiting = asyncio.create_task(_run_on_demand(listening, environment(settings)), name="web activation")
        try:
            yield
        finally:
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)


@contextmanager
def _listening(settings: Settings) -> Iterator[socket.socket]:
    address, control = settings.web.listen, settings.control
    require_extra()
    with ExitStack() as held:
        try:
            listening = held.enter_context(listen_at(address, mode=int(control.mode, 8), group=control.group))
            listening.listen(BACKLOG)
        except (OSError, LockHeldError) as error:
            reason = why(error) if isinstance(error, OSError) else str(error)
            raise ConfigError(
                f"the page cannot be served at {address} ({reason}): set web.listen to another address, or check"
                " whether the unit needs the drop-in loopback.conf"
            ) from error
        require_names(settings, [listening])
        listening.setblocking(False)  # noqa: FBT003 - socket has no keyword for it
        logger.info("the page is at %s", address_of(listening))
        yield listening


def require_extra() -> None:
    """Raise ConfigError if a package that the page needs is not installed."""
    if missing := [package for package in REQUIRED_PACKAGES if find_spec(package) is None]:
        raise ConfigError(f"the page needs {missing[0]}: install it with pip install 'soulspot[web]'")


def require_names(settings: Settings, listening: Iterable[socket.socket]) -> None:
    """If other machines can reach the page, warn; raise ConfigError if `web.hosts` is empty as well."""
    reached = [address_of(each) for each in listening if not is_private(each)]
    if reached and not settings.web.hosts:
        raise ConfigError(
            f"other machines reach {reached[0]}: list the host names that they use in web.hosts, or listen at 127.0.0.1"
        )
    if reached:
        logger.warning("other machines reach %s, and can read the catalogue", ", ".join(reached))


def environment(settings: Settings) -> Mapping[str, str]:
    """Return the environment that gives the web process these settings, and no others."""
    values = {
        "database.url": settings.database.url,
        "control.socket": settings.control.socket,
        "web.hosts": json.dumps(settings.web.hosts),
        "log.level": settings.log.level,
        "log.format": settings.log.format,
    }
    kept = plain_environment("JOURNAL_STREAM", "RUNTIME_DIRECTORY", "STATE_DIRECTORY", "XDG_RUNTIME_DIR")
    return kept | {variable(name): value for name, value in values.items() if value} | {"SOULSPOT_CONFIG": "/dev/null"}


async def _run_on_demand(listening: socket.socket, variables: Mapping[str, str]) -> None:
    backoff = Backoff(FIRST_RESTART, LAST_RESTART)
    while True:
        await _wait_for_connection(listening)
        began = time.monotonic()
        code = await _run(listening, variables)
        lasted = time.monotonic() - began
        if code == 0 or lasted >= LAST_RESTART:
            backoff.reset()
        if code != 0:
            pause = next(backoff)
            logger.error("the page ended with code %d after %.0f s: restarting it in %.0f s", code, lasted, pause)
            await asyncio.sleep(pause)


async def _wait_for_connection(listening: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    connected = asyncio.Event()
    loop.add_reader(listening, connected.set)
    try:
        await connected.wait()
    finally:
        loop.remove_reader(listening)


async def _run(listening: socket.socket, variables: Mapping[str, str]) -> int:
    """Run the web process to its end; return its exit code."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "soulspot", "web",
        stdin=listening.fileno(), stdout=asyncio.subprocess.DEVNULL, env=variables, start_new_session=True,
        **child_user(),
    )  # fmt: skip
    try:
        return await process.wait()
    finally:
        if process.returncode is None:
            process.terminate()
            with suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), STOP_TIMEOUT)
            if process.returncode is None:
                process.kill()
                await process.wait()
