"""What a database error means: a fault of the environment that passes, a lost race, damage."""

from pathlib import Path

from sqlalchemy.exc import DBAPIError, OperationalError

from soulspot.errors import UnreachableError

# What a person or time mends, and not the file: SQLite's names, and the classes of PostgreSQL's SQLSTATE.
_ENVIRONMENT_SQLITE = (
    "SQLITE_FULL",
    "SQLITE_BUSY",
    "SQLITE_LOCKED",
    "SQLITE_IOERR",
    "SQLITE_READONLY",
    "SQLITE_CANTOPEN",
)
# 25006: the server has become a replica. 25P03: it ended a transaction whose client it took for gone.
_ENVIRONMENT_SQLSTATE = ("08", "25006", "25P03", "40", "53", "55", "57", "58")


def is_environment_fault(error: DBAPIError | UnreachableError) -> bool:
    """Whether the database refuses for a reason that passes: full disk, foreign lock, lost server, lost race.

    Such a transaction may be tried again as a whole; anything else is a fault of the program.
    """
    if isinstance(error, UnreachableError) or error.connection_invalidated:
        return True
    name = getattr(error.orig, "sqlite_errorname", None)
    if name is not None:
        return isinstance(error, OperationalError) and name.startswith(_ENVIRONMENT_SQLITE)
    state = getattr(error.orig, "sqlstate", None)
    return state is not None and state.startswith(_ENVIRONMENT_SQLSTATE)


def is_lost_race(error: DBAPIError | UnreachableError) -> bool:
    """Whether another transaction was in the way (a deadlock, a serialisation failure), and this one had to yield."""
    state = getattr(getattr(error, "orig", None), "sqlstate", None)
    return state is not None and state.startswith("40")


def is_refused(error: DBAPIError) -> bool:
    """Whether SQLite may not open or write its file, which at a start is for a person to mend and not for time."""
    return (getattr(error.orig, "sqlite_errorname", None) or "").startswith(("SQLITE_CANTOPEN", "SQLITE_READONLY"))


def is_damage(error: DBAPIError) -> bool:
    """Whether an SQLite file is no sound database any more."""
    return (getattr(error.orig, "sqlite_errorname", None) or "").startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB"))


def why_not_readable(file: Path) -> str | None:
    """Return what keeps a file from being read to its end, None where nothing does; blocks.

    SQLite calls a catalogue malformed when it is the disk that cannot read it.
    """
    try:
        with open(file, "rb", buffering=0) as opened:
            while opened.read(1 << 20):
                pass
    except PermissionError:  # time mends no rights
        return None
    except OSError as error:
        return f"its disk does not answer: {error.strerror}"
    return None
