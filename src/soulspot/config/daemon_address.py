"""Locates the control socket: the path where a daemon serves it, and the paths that clients try.

With SQLite it is beside the catalogue. With PostgreSQL it is in the runtime folder of the service or of the user, under
a name derived from the database's, so that a command with the same settings finds it.
"""

import os
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from platformdirs import user_runtime_path

from soulspot.config.paths import database_file, database_slug
from soulspot.config.sections import Settings
from soulspot.infrastructure.net import control_socket
from soulspot.infrastructure.net.control_socket import Answer

_SYSTEM: Final = Path("/run")


@dataclass(frozen=True, slots=True)
class SocketSpec:
    """The path of a control socket, with its mode and group."""

    path: Path
    mode: int
    group: str


def socket_to_serve(settings: Settings) -> SocketSpec:
    """Return the socket of a daemon with these settings; create the runtime folder if the socket belongs there."""
    own, url = settings.control, settings.database.url
    if own.socket:
        path = Path(own.socket)
    elif (file := database_file(url)) is not None:
        path = control_socket.socket_of(file)
    else:
        given = os.environ.get("RUNTIME_DIRECTORY", "").split(":")[0]  # systemd's, which exists
        path = (Path(given) if given else _user_folder(make=True)) / f"{database_slug(url)}.socket"
    return SocketSpec(path, int(own.mode, 8), own.group)


def ask(settings: Settings, url: str, question: str, *, within: float = 5.0, **arguments: Any) -> Answer | None:  # noqa: ANN401 - JSON
    """Return the answer of the daemon that keeps this catalogue, None if there is no daemon or no answer in time."""
    place = socket_to_ask(settings, url)
    return control_socket.ask(place, question, within=within, **arguments) if place is not None else None


def socket_to_ask(settings: Settings, url: str) -> Path | None:
    """Return the socket of the daemon that keeps the catalogue at `url`, None if there is none."""
    return next((path for path in _candidates(settings, url) if path.exists()), None)


def _candidates(settings: Settings, url: str) -> Iterable[Path]:
    if settings.control.socket:
        yield Path(settings.control.socket)
    elif (file := database_file(url)) is not None:
        yield control_socket.socket_of(file)
    else:
        name = f"{database_slug(url)}.socket"
        if given := os.environ.get("RUNTIME_DIRECTORY"):
            yield Path(given.split(":")[0]) / name
        yield _user_folder(make=False) / name
        yield from sorted(_SYSTEM.glob(f"soulspot*/{name}"))


def _user_folder(*, make: bool) -> Path:
    """Return a folder that no other user can have created (platformdirs checks that).

    Raises OSError if there is none.
    """
    with warnings.catch_warnings(action="ignore"):  # having no session, and so no runtime folder, is not a fault
        return user_runtime_path("soulspot", ensure_exists=make)
