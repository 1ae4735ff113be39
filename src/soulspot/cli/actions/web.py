"""`soulspot web`: serves the page, and prints the token that its users log in with."""

import asyncio
import errno
import logging
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from soulspot.cli.actions.open_catalogue import open_catalogue
from soulspot.cli.rights import get_settings
from soulspot.config import Settings, daemon_address
from soulspot.config.outlet_sections import checked_address
from soulspot.config.paths import database_file, state_file
from soulspot.config.sources import why
from soulspot.daemon.web_activation import require_extra, require_names
from soulspot.errors import ConfigError, LockHeldError
from soulspot.infrastructure.net.sockets import BACKLOG, address_of, listen_at, passed_sockets
from soulspot.infrastructure.persistence.database import Database
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
    asyncio.run(_serve(config, listen=listen, idle=idle))


def print_token(config: Path | None, *, anew: bool) -> None:
    require_extra()
    settings = get_settings(config_file=config)
    token = _token(settings.database.url)
    try:
        text = token.make(replace=anew)
    except OSError as error:
        msg = f"the token cannot be written to {token.file} ({error.strerror}): run this as the user of the service"
        raise ConfigError(msg) from error
    address = settings.web.listen or DEFAULT_ADDRESS
    print(text)
    if not address.startswith("/"):
        print(f"http://{address}/login#{text}")


async def _serve(config: Path | None, *, listen: str | None, idle: float | None) -> None:
    from soulspot.web.app import build_app
    from soulspot.web.daemon_client import DaemonClient
    from soulspot.web.middleware import Activity
    from soulspot.web.server import StopConditions, serve

    settings = get_settings(config_file=config)
    async with open_catalogue(config) as (database, url):
        with ExitStack() as held:
            passed = passed_sockets()
            listening = passed or [held.enter_context(_listening(listen, settings))]
            require_names(settings, listening)
            file, token, activity = database_file(url), _token(url), Activity()
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
                writers=partial(_writers, database),
            )
            app = build_app(database, daemon, token, advice=ADVICE, hosts=settings.web.hosts, activity=activity)
            if not passed:
                print(f"serving {address_of(listening[0])}", flush=True)
            await serve(
                app, listening, activity, StopConditions(idle or (IDLE_SECONDS if passed else None), _replaced(file))
            )


async def _writers(database: Database, folders: Sequence[KnownFolder]) -> Sequence[Writer]:
    return await database.writers([FolderKey(each.node, each.path) for each in folders])


@contextmanager
def _listening(listen: str | None, settings: Settings) -> Iterator[socket.socket]:
    """Listen at the address of the command line, else of the settings, else at the default."""
    try:
        place = checked_address(listen or "") or settings.web.listen or DEFAULT_ADDRESS
    except ValueError as error:
        msg = f"--listen {listen} is no address: it has to be {error}"
        raise ConfigError(msg) from error
    own = settings.control  # whoever may ask there may ask here
    with ExitStack() as held:
        try:
            listening = held.enter_context(listen_at(place, mode=int(own.mode, 8), group=own.group))
            listening.listen(BACKLOG)
        except LockHeldError as error:
            raise ConfigError(_refused(place, "something listens there already")) from error
        except OSError as error:
            is_taken = error.errno == errno.EADDRINUSE
            raise ConfigError(_refused(place, "something listens there already" if is_taken else why(error))) from error
        yield listening


def _refused(place: str, reason: str) -> str:
    return f"the page cannot be served at {place} ({reason}): give another address by --listen or web.listen"


def _token(url: str) -> "WebToken":
    from soulspot.web.sessions import WebToken, token_file

    return WebToken(token_file(database_file(url) or state_file()))


def _replaced(file: Path | None) -> Callable[[], bool]:
    """Return a function that says whether the catalogue's file was replaced."""
    opened = os.stat(file) if file else None

    def is_replaced() -> bool:
        if file is None or opened is None:
            return False
        try:
            return not os.path.samestat(os.stat(file), opened)
        except OSError:
            return True

    return is_replaced
