"""Finds the catalogue that a command reads."""

import errno
import os
from pathlib import Path
from typing import Final

from soulspot.config.paths import database_file, own_database, sqlite_url
from soulspot.config.sections import Settings
from soulspot.config.sources import variable, why
from soulspot.errors import CatalogueError

SYSTEM_DATABASE: Final = Path("/var/lib/soulspot/soulspot.db")
_ABSENT: Final = "not found"


def places_to_read() -> list[Path]:
    """Return where to look for the catalogue if no setting names it."""
    return list(dict.fromkeys((own_database(), SYSTEM_DATABASE)))


def find_catalogue(settings: Settings) -> str:
    """Return the URL of the catalogue to read: the configured one, else the first of `places_to_read` that exists.

    Raises CatalogueError, which names the places tried.
    """
    if "url" in settings.database.model_fields_set:
        file = database_file(settings.database.url)
        if file is None or (fault := _why_unreadable(file)) is None:
            return settings.database.url
        if fault == _ABSENT:
            raise CatalogueError(
                f"there is no catalogue at {file} yet: create it with `soulspot watch` or `soulspot scan`"
            )
        raise CatalogueError(
            f"cannot read the catalogue {file} ({fault}): grant this user access, or set another database.url"
        )
    faults = {place: _why_unreadable(place) for place in places_to_read()}
    for place, fault in faults.items():
        if fault is None:
            return sqlite_url(place)
    tried = " or ".join(f"{place} ({fault})" for place, fault in faults.items())
    raise CatalogueError(
        f"found no catalogue at {tried}: create one with `soulspot watch FOLDER` or `soulspot scan FOLDER`,"
        f" or set {variable('database.url')}"
    )


def _why_unreadable(file: Path) -> str | None:
    # Do not open it: closing it would release the locks that SQLite may hold on it in this process.
    try:
        os.stat(file)
    except (FileNotFoundError, NotADirectoryError):
        return _ABSENT
    except OSError as error:
        return why(error)
    effective = os.access in os.supports_effective_ids
    return None if os.access(file, os.R_OK, effective_ids=effective) else os.strerror(errno.EACCES).lower()
