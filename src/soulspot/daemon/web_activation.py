"""Waits at the address of the page, and starts its process when somebody comes: until then the page costs nothing.

The process gets the listening socket as its standard input, as inetd's "wait" services do, takes who is waiting in it,
and ends when nobody has asked for a while. It has the settings of this daemon; what it does, and how it ends, holds up
no file.
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
from soulspot.infrastructure.net.sockets import BACKLOG, is_private, listen_at, name_of
from soulspot.infrastructure.privileges import child_user
from soulspot.infrastructure.processes.run import plain_environment

logger = logging.getLogger(__name__)

STOPPED_WITHIN: Final = 5.0
"""Seconds that the page's process has to end in when it is told to."""
FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 60.0
"""Seconds after which a page that crashes again and again is started again."""
NEEDED: Final = ("h11", "jinja2", "starlette", "uvicorn")


@asynccontextmanager
async def page_served(settings: Settings) -> AsyncIterator[None]:
    """Have the page served at `web.listen` until the block ends.

    Raises:
        ConfigError: it cannot be served there.

    """
    if not settings.web.listen:
        yield
        return
    with _listening(settings) as listening:
        waiting = asyncio.create_task(_wait(listening, environment(settings)))
        try:
            yield
        finally:
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)


@contextmanager
def _listening(settings: Settings) -> Iterator[socket.socket]:
    place, own = settings.web.listen, settings.control
    require_extra()
    with ExitStack() as held:
        try:
            listening = held.enter_context(listen_at(place, mode=int(own.mode, 8), group=own.group))
            listening.listen(BACKLOG)
        except (OSError, LockHeldError) as error:
            reason = why(error) if isinstance(error, OSError) else str(error)
            msg = (
                f"the page cannot be served at {place} ({reason}): set web.listen to another place, or see whether the"
                " unit needs the drop-in loopback.conf"
            )
            raise ConfigError(msg) from error
        require_names(settings, [listening])
        listening.setblocking(False)  # noqa: FBT003 - no names in socket
        logger.info("the page is at %s", name_of(listening))
        yield listening


def require_extra() -> None:
    """Raise ConfigError where what the page needs is not installed."""
    if missing := [package for package in NEEDED if find_spec(package) is None]:
        msg = f"the page needs {missing[0]}: install it with pip install 'soulspot[web]'"
        raise ConfigError(msg)


def require_names(settings: Settings, listening: Iterable[socket.socket]) -> None:
    """Raise ConfigError where other machines reach the page and nobody has said by which name; else warn of it."""
    reached = [name_of(each) for each in listening if not is_private(each)]
    if reached and not settings.web.hosts:
        msg = (
            f"other machines reach {reached[0]}: name the hosts by which they may ask for it in web.hosts, or listen at"
            " 127.0.0.1"
        )
        raise ConfigError(msg)
    if reached:
        logger.warning("other machines reach %s: whoever does sees what the catalogue holds", ", ".join(reached))


def environment(settings: Settings) -> Mapping[str, str]:
    """Return the environment in which the page has these settings, wherever they came from, and no others."""
    given = {
        "database.url": settings.database.url,
        "control.socket": settings.control.socket,
        "web.hosts": json.dumps(settings.web.hosts),
        "log.level": settings.log.level,
        "log.format": settings.log.format,
    }
    kept = plain_environment("JOURNAL_STREAM", "RUNTIME_DIRECTORY", "STATE_DIRECTORY", "XDG_RUNTIME_DIR")
    return kept | {variable(name): value for name, value in given.items() if value} | {"SOULSPOT_CONFIG": "/dev/null"}


async def _wait(listening: socket.socket, given: Mapping[str, str]) -> None:
    pause = 0.0
    while True:
        await _somebody(listening)
        began = time.monotonic()
        code = await _serve(listening, given)
        if code == 0:
            pause = 0.0
            continue
        lasted = time.monotonic() - began
        pause = min(LONGEST_PAUSE, pause * 2) if pause and lasted < LONGEST_PAUSE else FIRST_PAUSE
        logger.error("the page ended with code %d after %.0f s; it is started again in %.0f s", code, lasted, pause)
        await asyncio.sleep(pause)


async def _somebody(listening: socket.socket) -> None:
    """Return when somebody is waiting at a socket."""
    loop = asyncio.get_running_loop()
    came = asyncio.Event()
    loop.add_reader(listening, came.set)
    try:
        await came.wait()
    finally:
        loop.remove_reader(listening)


async def _serve(listening: socket.socket, given: Mapping[str, str]) -> int:
    """Let the page answer until it ends; return its exit code."""
    command = (sys.executable, "-m", "soulspot", "web")
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=listening.fileno(),
        stdout=asyncio.subprocess.DEVNULL,
        env=given,
        start_new_session=True,
        **child_user(),
    )
    try:
        return await process.wait()
    finally:
        if process.returncode is None:
            process.terminate()
            with suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), STOPPED_WITHIN)
            if process.returncode is None:
                process.kill()
                await process.wait()
