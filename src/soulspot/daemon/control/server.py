"""Serves the control socket."""

import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from soulspot.config.daemon_address import socket_to_serve
from soulspot.config.sections import ControlSettings
from soulspot.daemon.control.commands import COMMANDS
from soulspot.daemon.state import DaemonState
from soulspot.errors import ConfigError, LockHeldError
from soulspot.infrastructure.net import control_socket

logger = logging.getLogger(__name__)


@asynccontextmanager
async def serve_control_socket(state: DaemonState) -> AsyncIterator[None]:
    """Serve the commands until the block ends; if the socket cannot be created at the default path, only warn."""
    async with AsyncExitStack() as serving:
        try:
            spec = socket_to_serve(state.settings)
            await serving.enter_async_context(
                control_socket.serve(spec.path, COMMANDS, state, mode=spec.mode, group=spec.group)
            )
        except (OSError, LockHeldError) as error:
            reason = f"{error.filename or ''} ({error.strerror})" if isinstance(error, OSError) else f"({error})"
            msg = f"cannot create the control socket {reason}: set control.socket"
            if state.settings.control != ControlSettings():
                raise ConfigError(msg) from error
            logger.warning("%s; until then `soulspot status` and `soulspot reload` do not reach this process", msg)
        yield
