"""Finds the catalogue and the files beside it."""

import hashlib
import os
import re
from pathlib import Path
from typing import Final
from urllib.parse import unquote

from platformdirs import user_data_path

from soulspot.config.field_types import absolute
from soulspot.config.sources import variable
from soulspot.errors import ConfigError

SQLITE: Final = "sqlite+aiosqlite"
_POSTGRESQL: Final = "postgresql+asyncpg"
_DRIVERS: Final = {"sqlite": SQLITE, "postgresql": _POSTGRESQL, "postgres": _POSTGRESQL}
_SQLITE_FORM: Final = f"{SQLITE}:////PATH (four slashes before an absolute path)"
POSTGRESQL_FORM: Final = f"{_POSTGRESQL}://USER:PASSWORD@HOST/NAME"
# As SQLAlchemy parses it, but an @ in a password is an error: it would take the rest for the host.
_POSTGRESQL_REST: Final = re.compile(r"([^:/@]*(:[^@]*)?@)?(\[[^/?@]+\]|[^/:?@]*)(:[0-9]+)?/[^?@]+(\?.*)?")


def own_state_folder() -> Path:
    """Return the state folder of this user or this service."""
    # systemd sets it from StateDirectory=; several folders are separated by colons.
    state = os.environ.get("STATE_DIRECTORY", "").split(":")[0]
    try:
        return absolute(Path(state) if state else user_data_path("soulspot"))
    except RuntimeError as error:
        raise ConfigError(
            f"there is no home folder for the catalogue: set HOME or {variable('database.url')}"
        ) from error


def own_database() -> Path:
    """Return the default place of a catalogue; private files are beside it."""
    return own_state_folder() / "soulspot.db"


def sqlite_url(file: Path) -> str:
    return f"{SQLITE}:///" + str(file).replace("%", "%25").replace("?", "%3F")  # SQLAlchemy unquotes it


def checked_url(url: str) -> str:
    scheme, found, rest = url.partition("://")
    driver = _DRIVERS.get(scheme.partition("+")[0])
    if not found or driver is None:
        raise ValueError(f"{_SQLITE_FORM} or {POSTGRESQL_FORM}")
    if scheme != driver:
        raise ValueError(f"a URL that starts with {driver}://, not {scheme}://")
    if driver == _POSTGRESQL:
        if _POSTGRESQL_REST.fullmatch(rest) is None:
            raise ValueError(f"{POSTGRESQL_FORM}, with %40 for an @ in the password")
        return url
    file = database_file(url)
    if file is None or not rest.startswith("/") or rest.startswith("/file:"):
        raise ValueError(f"the URL of a file, {_SQLITE_FORM}")
    _path, mark, query = rest.partition("?")
    return sqlite_url(file) + mark + query


def database_file(url: str) -> Path | None:
    """Return the absolute path of an SQLite file; None for PostgreSQL and for a database in memory."""
    scheme, _, rest = url.partition("://")
    path = unquote(rest.partition("?")[0].removeprefix("/"))
    return absolute(Path(path)) if scheme.startswith("sqlite") and path not in {"", ":memory:"} else None


def private_file(url: str, ending: str) -> Path:
    """Return a private file of a catalogue: beside it, or in this user's state folder."""
    file = database_file(url)
    return file.with_name(f"{file.name}.{ending}") if file else own_state_folder() / f"{database_slug(url)}.{ending}"


def database_slug(url: str) -> str:
    """Return a readable, unique name of a server's database, for file names."""
    from sqlalchemy.engine import make_url  # the settings are read without SQLAlchemy

    parsed = make_url(url)
    where = f"{parsed.host or parsed.query.get('host')}:{parsed.port or 5432}/{parsed.database}"
    digest = hashlib.blake2b(where.encode(), digest_size=4).hexdigest()
    readable = "".join(each if each.isalnum() else "-" for each in parsed.database or "")[:40]
    return f"{readable}-{digest}"
