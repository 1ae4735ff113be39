"""Starts a command: reads the settings as the calling user, then switches from root to the owner of the catalogue.

Root reads the settings before the switch, because the owner may not be able to. For any other user these functions are
just `soulspot.config.get_settings` and `find_catalogue`.
"""

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from platformdirs import user_config_path

import soulspot
from soulspot import config
from soulspot.config import Settings
from soulspot.config import catalogue as config_catalogue
from soulspot.config.paths import database_file
from soulspot.config.sources import SYSTEM_CONFIG
from soulspot.errors import ConfigError
from soulspot.infrastructure.privileges import act_as_owner, acting_as, import_everything

_read: list[Settings] = []
_files: list[Path] = []


def get_settings(*, config_file: Path | None = None, folders: Sequence[Path] = ()) -> Settings:
    """Return the settings, and switch from root to the owner of the catalogue that they name."""
    if acting_as():
        return _read[0]
    settings = config.get_settings(config_file=config_file, folders=folders)
    _read[:], _files[:] = [settings], _files_of(config_file)
    act_as_owner_of(settings.database.url)
    return settings


def get_settings_again(*, config_file: Path | None = None, folders: Sequence[Path] = ()) -> Settings:
    """Read the settings again and return them; raises ConfigError if only root can read them."""
    for file in _files if acting_as() else ():
        if not os.access(file, os.R_OK, effective_ids=True):
            msg = f"{file} cannot be read by {acting_as()}, the owner of the catalogue: restart this command"
            raise ConfigError(msg)
    return config.get_settings(config_file=config_file, folders=folders)


def find_catalogue(settings: Settings) -> str:
    """Return the URL of the catalogue to read, and switch from root to its owner."""
    url = config_catalogue.find_catalogue(settings)
    act_as_owner_of(url)
    return url


def act_as_owner_of(url: str) -> None:
    """Switch from root to the owner of an SQLite catalogue; a server checks rights itself."""
    if (file := database_file(url)) is not None:
        act_as_owner(file, _import_all)


def _files_of(config_file: Path | None) -> list[Path]:
    """Return the readable files that the settings may come from."""
    named = [Path(config_file)] if config_file else []
    with suppress(RuntimeError):
        named.append(user_config_path("soulspot") / "config.toml")
    return [file for file in (*named, SYSTEM_CONFIG) if os.access(file, os.R_OK)]


def _import_all() -> None:
    """Import everything that any command may need later."""
    import aiosqlite
    import alembic
    import rich
    from sqlalchemy.dialects import sqlite

    import_everything(soulspot, aiosqlite, alembic, rich, sqlite)
