"""The settings: what there is to set, and where it is read from.

Later beats earlier: the defaults, /etc/soulspot/config.toml, the user's own config.toml, the environment (SOULSPOT_
before the name, `__` between its parts), the folders of the command line. `--config FILE` or $SOULSPOT_CONFIG takes the
place of the two files. Nothing is created here, and nothing is passed over: a name that is none of ours is an error.
"""

import json
import os
import re
import tomllib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any, Final, Literal, cast
from urllib.parse import unquote

from platformdirs import user_config_path, user_data_path
from pydantic import AfterValidator, BaseModel, BeforeValidator, ByteSize, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, EnvSettingsSource, NoDecode, SettingsConfigDict

from soulspot.errors import CatalogueError, ConfigError

PREFIX: Final = "SOULSPOT_"
SYSTEM_CONFIG: Final = Path("/etc/soulspot/config.toml")
SYSTEM_DATABASE: Final = Path("/var/lib/soulspot/soulspot.db")

_MIB: Final = 1024 * 1024
_SQLITE: Final = "sqlite+aiosqlite"
_POSTGRESQL: Final = "postgresql+asyncpg"
_DRIVERS: Final = {"sqlite": _SQLITE, "postgresql": _POSTGRESQL, "postgres": _POSTGRESQL}
_SQLITE_FORM: Final = f"{_SQLITE}:////PATH (four slashes before an absolute path)"
_POSTGRESQL_FORM: Final = f"{_POSTGRESQL}://USER:PASSWORD@HOST/NAME"
# What SQLAlchemy reads after the scheme, but for an @ in a password, which it would take for the host's.
_POSTGRESQL_REST: Final = re.compile(
    r"([^:/@]*(:[^@]*)?@)?"  # who
    r"(\[[^/?@]+\]|[^/:?@]*)(:[0-9]+)?"  # where
    r"/[^?@]+(\?.*)?"  # which
)
_TOML_SECTION: Final = re.compile(r"\s*\[+\s*[\"']?([\w.-]+)[\"']?\s*\]")
_TOML_KEY: Final = re.compile(r"\s*[\"']?([\w.-]+)[\"']?\s*=")

_ALLOWED: Final = {
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "byte_size": "a size such as 512MiB",
    "byte_size_unit": "a size such as 512MiB",
    "finite_number": "a finite number",
    "float_parsing": "a number",
    "float_type": "a number",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "list_type": "a list of paths",
    "path_type": "a path",
    "string_type": "text",
}


def _sqlite_url(file: Path) -> str:
    path = str(file).replace("%", "%25").replace("?", "%3F")  # SQLAlchemy unquotes it
    return f"{_SQLITE}:///{path}"


def _own_database() -> Path:
    # systemd gives the folder of StateDirectory=, or several with colons between.
    state = os.environ.get("STATE_DIRECTORY", "").split(":")[0]
    try:
        return (Path(state) if state else user_data_path("soulspot")) / "soulspot.db"
    except RuntimeError as error:
        msg = f"there is no home folder to keep the catalogue in: set HOME or {_variable('database.url')}"
        raise ConfigError(msg) from error


def _checked_url(url: str) -> str:
    scheme, _, rest = url.partition("://")
    driver = _DRIVERS.get(scheme.partition("+")[0])
    if driver is None or "://" not in url:
        msg = f"{_SQLITE_FORM} or {_POSTGRESQL_FORM}"
        raise ValueError(msg)
    if scheme != driver:
        msg = f"a URL that begins with {driver}:// in place of {scheme}://"
        raise ValueError(msg)
    if driver == _POSTGRESQL:
        if _POSTGRESQL_REST.fullmatch(rest) is None:
            msg = f"{_POSTGRESQL_FORM}, with %40 for an @ in the password"
            raise ValueError(msg)
        return url
    file = database_file(url)
    if file is None or not rest.startswith("/") or rest.startswith("/file:"):
        msg = f"the URL of a file, {_SQLITE_FORM}"
        raise ValueError(msg)
    _path, mark, query = rest.partition("?")
    return _sqlite_url(file) + mark + query


def _split(value: object) -> object:
    """Read a list from one text: JSON, or paths with colons between."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except json.JSONDecodeError as error:
            msg = "a JSON list of paths, or paths with colons between"
            raise ValueError(msg) from error
    elif isinstance(value, str):
        value = [part for part in value.split(":") if part]
    # A Path may hold bytes that are no text, a str may not.
    return [Path(item) if isinstance(item, str) and item else item for item in value] if _is_list(value) else value


def _is_list(value: object) -> bool:
    return isinstance(value, list | tuple)
