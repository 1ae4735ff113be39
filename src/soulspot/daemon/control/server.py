"""Serves the control socket."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

from soulspot.config import Settings
from soulspot.config.daemon_address import Place
from soulspot.config.library_check import check_library
from soulspot.config.sections import ControlSettings
from soulspot.daemon.control.commands import steering
from soulspot.daemon.control.live import live
from soulspot.daemon.events import ROOM
from soulspot.daemon.messages import told
from soulspot.daemon.state import Change, State
from soulspot.daemon.status import logger, report
from soulspot.errors import ConfigError, LockHeldError, SoulspotError
from soulspot.infrastructure.net import control_socket
from soulspot.infrastructure.net.control_socket import Answer, Arguments, Once, Stream


@asynccontextmanager
async def controlled(
    place: Callable[[], Place], state: State, read: Callable[[], Settings], changes: "asyncio.Queue[Change]"
) -> AsyncIterator[None]:
    """Answer questions about the daemon; a folder in which there can be no socket keeps no file from the catalogue."""

    async def reload(_asked: Arguments) -> Answer:
        before = state.settings
        try:
            settings = read()
            check_library(settings, before.library.folders)
        except SoulspotError as error:
            return {"error": str(error)}
        if (settings.database, settings.control) != (before.database, before.control):
            return {"error": "the settings of database and control change by a restart: systemctl restart soulspot"}
        if settings == before:
            return {"changed": False}
        change = Change(settings, before, asyncio.get_running_loop().create_future())
        changes.put_nowait(change)
        return await change.done

    async def status(_asked: Arguments) -> Answer:
        return report(state)

    async def follow(asked: Arguments) -> AsyncIterator[Answer]:
        room = asked.get("room")  # who only wants to know that something happened asks for one outcome at a time
        with state.feed.listening(min(room, ROOM) if isinstance(room, int) and room > 0 else ROOM) as listener:
            yield {"following": True}  # what happens from here on is told
            async for news in listener.news():
                yield told(news)

    offers: control_socket.Offers = {
        "status": Once(status),
        "follow": Stream(follow),
        "reload": Once(reload, steers=True),
        **steering(state),
        **live(state),
    }
    async with AsyncExitStack() as serving:
        try:
            where = place()
            served = control_socket.serve(where.path, offers, mode=where.mode, group=where.group)
            await serving.enter_async_context(served)
        except (OSError, LockHeldError) as error:
            reason = f"{error.filename or ''} ({error.strerror})" if isinstance(error, OSError) else f"({error})"
            msg = f"there can be no control socket {reason}: set control.socket"
            if state.settings.control != ControlSettings():
                raise ConfigError(msg) from error
            logger.warning("%s; until then `soulspot status` and `soulspot reload` do not reach this process", msg)
        yield
