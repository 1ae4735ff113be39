"""What can go wrong, for a person to read; each knows the exit code that a shell or systemd sees.

SoulspotError
├── ConfigError          78  a setting is wrong: nothing runs until a person mends it
├── CatalogueError       78  the database is missing, foreign, newer than this program or damaged
├── LockHeldError        75  another soulspot writes this database
├── UnreachableError     75  the server that the database is on does not answer
└── NotFoundError         1  the catalogue has nothing like what was asked for
"""

from typing import ClassVar


class SoulspotError(Exception):
    """Something that a person can mend; the message says what is wrong and what to do."""

    exit_code: ClassVar[int] = 1


class ConfigError(SoulspotError):
    """A setting is wrong."""

    exit_code = 78  # EX_CONFIG of sysexits.h; the service unit does not restart on it


class CatalogueError(SoulspotError):
    """The catalogue's database cannot be used as it is."""

    exit_code = 78


class LockHeldError(SoulspotError):
    """Another soulspot writes this database."""

    exit_code = 75  # EX_TEMPFAIL: try again when the other has ended


class UnreachableError(SoulspotError):
    """The server that the database is on cannot be reached, or does not let us in."""

    exit_code = 75


class NotFoundError(SoulspotError):
    """The catalogue has nothing like what was asked for."""
