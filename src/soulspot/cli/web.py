"""`soulspot web`: serves the page, and tells the token with which failures can be retried on it."""

import asyncio
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from soulspot.cli.failures import ADVICE
from soulspot.cli.look import catalogue
from soulspot.config import Settings, checked_address, database_file, get_settings, state_file
from soulspot.errors import ConfigError
from soulspot.infrastructure import control
from soulspot.infrastructure.listening import handed_over, is_private, listen_at, name_of
from soulspot.infrastructure.persistence.lock import holder_of
from soulspot.infrastructure.persistence.repositories import FileRepository, FolderRepository

if TYPE_CHECKING:
    from soulspot.web.keys import Keys

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


def require_extra() -> None:
    """Raise ConfigError where what the page needs is not installed."""
    try:
        import soulspot.web.site  # noqa: F401
    except ModuleNotFoundError as error:
        msg = f"the page needs {error.name}: install it with pip install 'soulspot[web]'"
        raise ConfigError(msg) from error


async def _serve(config: Path | None, *, listen: str | None, idle: float | None) -> None:
    from soulspot.web.daemon import Daemon
    from soulspot.web.guard import Activity
    from soulspot.web.serving import Ending, serve
    from soulspot.web.site import site

    settings = get_settings(config_file=config)
    async with catalogue(config) as (database, url):
        sockets = handed_over()
        is_waited_for = bool(sockets)
        sockets = sockets or [listen_at(_checked(listen) or settings.web.listen or DEFAULT_ADDRESS)]
        _require_names(settings, [name_of(each) for each in sockets if not is_private(each)])
        file, keys, activity = database_file(url), _keys(url), Activity()
        try:
            keys.make()
        except OSError as error:
            logger.warning("there is no token, and none can be written (%s): nothing can be retried", error.strerror)
        name = str(file) if file else database.url.render_as_string(hide_password=True)
        daemon = Daemon(
            lambda: control.socket_of(file) if file else None,
            lambda: holder_of(file) if file else None,
            FolderRepository(database.session),
            FileRepository(database.session),
            database=name,
        )
        app = site(database, daemon, keys, advice=ADVICE, hosts=settings.web.hosts, activity=activity)
        if not is_waited_for:
            for each in sockets:
                print(f"serving {name_of(each)}", flush=True)
        ending = Ending(idle or (IDLE if is_waited_for else None), _replaced(file))
        await serve(app, sockets, activity, ending)


def _checked(listen: str | None) -> str:
    try:
        return checked_address(listen or "")
    except ValueError as error:
        msg = f"--listen {listen} is no address: it has to be {error}"
        raise ConfigError(msg) from error


def _keys(url: str) -> "Keys":
    from soulspot.web.keys import Keys, place_of_token

    return Keys(place_of_token(database_file(url) or state_file()))


def _require_names(settings: Settings, addresses: Sequence[str]) -> None:
    """Raise ConfigError where other machines reach the page and nobody has said by which name."""
    if not addresses:
        return
    if not settings.web.hosts:
        msg = (
            f"other machines reach {addresses[0]}: name the hosts by which they may ask for it in web.hosts, or listen"
            " at 127.0.0.1"
        )
        raise ConfigError(msg)
    logger.warning("other machines reach %s: whoever does sees what the catalogue holds", ", ".join(addresses))


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
