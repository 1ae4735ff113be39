"""`soulspot web`: serves the page, and tells the token with which failures can be retried on it."""

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

from soulspot.cli.actions.open_catalogue import catalogue
from soulspot.cli.rights import get_settings
from soulspot.config import Settings, daemon_address
from soulspot.config.outlet_sections import checked_address
from soulspot.config.paths import database_file, state_file
from soulspot.config.sources import why
from soulspot.daemon.web_activation import require_extra, require_names
from soulspot.errors import ConfigError, LockHeldError
from soulspot.infrastructure.net.sockets import BACKLOG, handed_over, listen_at, name_of
from soulspot.infrastructure.persistence.database import Database
from soulspot.infrastructure.persistence.postgresql.advisory_locks import Writer
from soulspot.infrastructure.persistence.records import KnownFolder, Place
from soulspot.infrastructure.persistence.repositories import FileRepository, FolderRepository
from soulspot.infrastructure.persistence.sqlite.lock_file import holder_of
from soulspot.reports.failure_advice import ADVICE

if TYPE_CHECKING:
    from soulspot.web.sessions import Keys

logger = logging.getLogger(__name__)

DEFAULT_ADDRESS: Final = "127.0.0.1:8337"
IDLE: Final = 300.0
"""Seconds without anybody after which a page ends that is started when somebody comes."""


def serve(config: Path | None, *, listen: str | None, idle: float | None) -> None:
    require_extra()
    asyncio.run(_serve(config, listen=listen, idle=idle))


def print_token(config: Path | None, *, anew: bool) -> None:
    require_extra()
    settings = get_settings(config_file=config)
    keys = _keys(settings.database.url)
    try:
        token = keys.make(anew=anew)
    except OSError as error:
        msg = f"the token cannot be written to {keys.place} ({error.strerror}): run this as the user of the service"
        raise ConfigError(msg) from error
    address = settings.web.listen or DEFAULT_ADDRESS
    print(token)
    if not address.startswith("/"):
        print(f"http://{address}/login#{token}")


async def _serve(config: Path | None, *, listen: str | None, idle: float | None) -> None:
    from soulspot.web.app import site
    from soulspot.web.daemon_client import Daemon
    from soulspot.web.middleware import Activity
    from soulspot.web.server import Ending, serve

    settings = get_settings(config_file=config)
    async with catalogue(config) as (database, url):
        with ExitStack() as held:
            waited_for = handed_over()
            listening = waited_for or [held.enter_context(_listening(listen, settings))]
            require_names(settings, listening)
            file, keys, activity = database_file(url), _keys(url), Activity()
            try:
                keys.make()
            except OSError as error:
                logger.warning("there is no token, and none can be written (%s): nothing can be retried", why(error))
            daemon = Daemon(
                lambda: daemon_address.place_to_ask(settings, url),
                lambda: holder_of(file) if file else None,
                FolderRepository(database.session),
                FileRepository(database.session),
                database=str(file) if file else database.url.render_as_string(hide_password=True),
                writers=partial(_writers, database),
            )
            app = site(database, daemon, keys, advice=ADVICE, hosts=settings.web.hosts, activity=activity)
            if not waited_for:
                print(f"serving {name_of(listening[0])}", flush=True)
            await serve(app, listening, activity, Ending(idle or (IDLE if waited_for else None), _replaced(file)))


async def _writers(database: Database, folders: Sequence[KnownFolder]) -> Sequence[Writer]:
    places = [Place(each.node, each.path) for each in folders]
    return [] if database.is_sqlite else await database.writers(places)


@contextmanager
def _listening(listen: str | None, settings: Settings) -> Iterator[socket.socket]:
    """Listen where the command line says, or the settings, or at the usual port."""
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


def _keys(url: str) -> "Keys":
    from soulspot.web.sessions import Keys, place_of_token

    return Keys(place_of_token(database_file(url) or state_file()))


def _replaced(file: Path | None) -> Callable[[], bool]:
    """Return what tells whether a catalogue's file is another one by now."""
    opened = os.stat(file) if file else None

    def is_replaced() -> bool:
        if file is None or opened is None:
            return False
        try:
            return not os.path.samestat(os.stat(file), opened)
        except OSError:
            return True

    return is_replaced
