"""Classifies database errors: a transient fault of the environment, a lost race, damage.

`ingest/database_retry.py` decides what to do about each class.
"""

from pathlib import Path

from sqlalchemy.exc import DBAPIError, OperationalError

from soulspot.errors import UnreachableError

# Errors that a person or time fixes, not another file: SQLite's names, and prefixes of PostgreSQL's SQLSTATE.
_ENVIRONMENT_SQLITE = (
    "SQLITE_FULL",
    "SQLITE_BUSY",
    "SQLITE_LOCKED",
    "SQLITE_IOERR",
    "SQLITE_READONLY",
    "SQLITE_CANTOPEN",
)
# 25006: the server has become a replica. 25P03: it ended an idle transaction, as if the client were gone.
_ENVIRONMENT_SQLSTATE = ("08", "25006", "25P03", "40", "53", "55", "57", "58")


def is_environment_fault(error: DBAPIError | UnreachableError) -> bool:
    """Whether a transient condition caused the error: a full disk, a foreign lock, a lost server, a lost race.

    The whole transaction may be retried; any other error is a bug.
    """
    if isinstance(error, UnreachableError) or error.connection_invalidated:
        return True
    if name := _sqlite_name(error):
        return isinstance(error, OperationalError) and name.startswith(_ENVIRONMENT_SQLITE)
    return sqlstate(error).startswith(_ENVIRONMENT_SQLSTATE)


def is_lost_race(error: DBAPIError | UnreachableError) -> bool:
    """Whether this transaction had to yield to another: a deadlock, a serialisation failure."""
    return sqlstate(error).startswith("40")


def is_refused(error: DBAPIError) -> bool:
    """Whether SQLite may not open or write its file: at a start, only a person can fix that."""
    return _sqlite_name(error).startswith(("SQLITE_CANTOPEN", "SQLITE_READONLY"))


def is_damage(error: DBAPIError) -> bool:
    """Whether an SQLite file is damaged."""
    return _sqlite_name(error).startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB"))


def sqlstate(error: BaseException) -> str:
    """Return PostgreSQL's code of an error, "" if it has none."""
    return getattr(getattr(error, "orig", None), "sqlstate", None) or ""


def _sqlite_name(error: DBAPIError) -> str:
    return getattr(error.orig, "sqlite_errorname", None) or ""


def why_not_readable(file: Path) -> str | None:
    """Return why a file cannot be read to its end, None if it can. Blocks.

    SQLite calls a catalogue malformed when the disk fails to read it.
    """
    try:
        with open(file, "rb", buffering=0) as opened:
            while opened.read(1 << 20):
                pass
    except PermissionError:  # retrying does not fix permissions
        return None
    except OSError as error:
        return f"its disk does not answer: {error.strerror}"
    return None
