"""`soulspot web`: serves the page, and prints the token that its users log in with."""

import asyncio
import errno
import logging
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from soulspot.cli.actions.open_catalogue import configure, open_catalogue
from soulspot.cli.rights import find_catalogue, get_settings
from soulspot.config import Settings, daemon_address, database_file
from soulspot.config.outlet_sections import checked_address
from soulspot.config.paths import own_database
from soulspot.config.sources import why
from soulspot.daemon.web_activation import require_extra, require_names
from soulspot.errors import ConfigError, LockHeldError
from soulspot.infrastructure.net.sockets import BACKLOG, address_of, listen_at, passed_sockets
from soulspot.infrastructure.persistence.records import FolderKey, KnownFolder, Writer
from soulspot.infrastructure.persistence.repositories import FileRepository, FolderRepository
from soulspot.infrastructure.persistence.sqlite.lock_file import holder_of
from soulspot.reports.failure_advice import ADVICE

if TYPE_CHECKING:
    from soulspot.web.sessions import WebToken

logger = logging.getLogger(__name__)

DEFAULT_ADDRESS: Final = "127.0.0.1:8337"
IDLE_SECONDS: Final = 300.0
"""Seconds without a request after which a page that was started on demand ends."""


def serve(config: Path | None, *, listen: str | None, idle: float | None) -> None:
    require_extra()
    asyncio.run(_serve(configure(config), listen=listen, idle=idle))


def print_token(config: Path | None, *, replace: bool) -> None:
    require_extra()
    settings = get_settings(config_file=config)
    token = _token(settings.database.url)
    try:
        text = token.make(replace=replace)
    except OSError as error:
        raise ConfigError(
            f"cannot write the token to {token.file} ({error.strerror}): run this as the user of the service"
        ) from error
    address = settings.web.listen or DEFAULT_ADDRESS
    print(text if address.startswith("/") else f"{text}\nhttp://{address}/login#{text}")


async def _serve(settings: Settings, *, listen: str | None, idle: float | None) -> None:
    from soulspot.web.app import build_app
    from soulspot.web.daemon_client import DaemonClient
    from soulspot.web.middleware import Activity
    from soulspot.web.server import StopConditions, serve

    url = find_catalogue(settings)
    file, token, activity = database_file(url), _token(url), Activity()
    async with open_catalogue(settings) as database:

        async def writers(folders: Sequence[KnownFolder]) -> Sequence[Writer]:
            return await database.writers([FolderKey(each.node, each.path) for each in folders])

        with ExitStack() as stack:
            passed = passed_sockets()
            sockets = passed or [stack.enter_context(_listening(listen, settings))]
            require_names(settings, sockets)
            try:
                token.make()
            except OSError as error:
                logger.warning("there is no token, and none can be written (%s): nothing can be retried", why(error))
            daemon = DaemonClient(
                lambda: daemon_address.socket_to_ask(settings, url),
                lambda: holder_of(file) if file else None,
                FolderRepository(database.session),
                FileRepository(database.session),
                database=str(file or database.name),
                writers=writers,
            )
            app = build_app(database, daemon, token, advice=ADVICE, hosts=settings.web.hosts, activity=activity)
            if not passed:
                print(f"serving {address_of(sockets[0])}", flush=True)
            conditions = StopConditions(idle or (IDLE_SECONDS if passed else None), _is_replaced(file))
            await serve(app, sockets, activity, conditions)


@contextmanager
def _listening(listen: str | None, settings: Settings) -> Iterator[socket.socket]:
    """Listen at the address of the command line, else of the settings, else at the default."""
    try:
        address = checked_address(listen or "") or settings.web.listen or DEFAULT_ADDRESS
    except ValueError as error:
        raise ConfigError(f"--listen {listen} is not an address: it must be {error}") from error
    own = settings.control  # the page is for the same users as the control socket
    with ExitStack() as stack:
        try:
            listening = stack.enter_context(listen_at(address, mode=int(own.mode, 8), group=own.group))
            listening.listen(BACKLOG)
        except (LockHeldError, OSError) as error:
            other = why(error) if isinstance(error, OSError) and error.errno != errno.EADDRINUSE else ""
            reason = other or "something listens there already"
            raise ConfigError(
                f"the page cannot be served at {address} ({reason}): set another address with --listen or web.listen"
            ) from error
        yield listening


def _token(url: str) -> "WebToken":
    from soulspot.web.sessions import WebToken, token_file

    return WebToken(token_file(database_file(url) or own_database()))


def _is_replaced(file: Path | None) -> Callable[[], bool]:
    """Return a function that checks whether the catalogue's file was replaced since now."""
    opened = os.stat(file) if file else None

    def is_replaced() -> bool:
        try:
            return file is not None and opened is not None and not os.path.samestat(os.stat(file), opened)
        except OSError:
            return True

    return is_replaced
