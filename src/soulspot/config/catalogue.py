"""Which catalogue a command means."""

import errno
import os
from pathlib import Path
from typing import Final

from soulspot.config.paths import database_file, own_database, sqlite_url
from soulspot.config.sections import Settings
from soulspot.config.sources import variable, why
from soulspot.errors import CatalogueError

SYSTEM_DATABASE: Final = Path("/var/lib/soulspot/soulspot.db")
_ABSENT: Final = "not there"


def places_to_read() -> list[Path]:
    """Return where a command that only reads looks for the catalogue when no setting names it."""
    return list(dict.fromkeys((own_database(), SYSTEM_DATABASE)))


def find_catalogue(settings: Settings) -> str:
    """Return the URL of the catalogue to read: the one that was set, else the first of `places_to_read` that is there.

    Raises CatalogueError that says which places were tried.
    """
    url = settings.database.url
    if "url" not in settings.database.model_fields_set:
        faults = {}
        for place in places_to_read():
            if (fault := _why_unreadable(place)) is None:
                return sqlite_url(place)
            faults[place] = fault
        tried = " or ".join(f"{place} ({fault})" for place, fault in faults.items())
        msg = (
            f"there is no catalogue to read at {tried}: `soulspot watch FOLDER` or `soulspot scan FOLDER` makes one,"
            f" {variable('database.url')} names another"
        )
        raise CatalogueError(msg)
    file = database_file(url)
    if file is None or (fault := _why_unreadable(file)) is None:
        return url
    if fault == _ABSENT:
        msg = f"there is no catalogue at {file} yet: `soulspot watch` or `soulspot scan` makes it"
    else:
        msg = f"the catalogue {file} cannot be read ({fault}): give this user the right to, or set another database.url"
    raise CatalogueError(msg)


def _why_unreadable(file: Path) -> str | None:
    # It is not opened: closing it would take away the locks that SQLite may hold on it in this process.
    try:
        os.stat(file)
    except (FileNotFoundError, NotADirectoryError):
        return _ABSENT
    except OSError as error:
        return why(error)
    effective = os.access in os.supports_effective_ids
    return None if os.access(file, os.R_OK, effective_ids=effective) else os.strerror(errno.EACCES).lower()
