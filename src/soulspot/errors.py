"""Errors for a person to read, each with the exit code that a shell or systemd sees.

SoulspotError
├── ConfigError          78  a setting is wrong: nothing runs until a person fixes it
├── CatalogueError       78  the database is missing, foreign, newer than this program or damaged
├── LockHeldError        75  another soulspot writes this database
├── UnreachableError     75  the server of the database does not answer
└── NotFoundError         1  the catalogue has no match
"""

from typing import ClassVar


class SoulspotError(Exception):
    """An error that a person can fix; the message says what is wrong and what to do."""

    exit_code: ClassVar[int] = 1


class ConfigError(SoulspotError):
    """A setting is wrong."""

    exit_code = 78  # EX_CONFIG of sysexits.h; the service unit does not restart on it


class CatalogueError(SoulspotError):
    """The catalogue's database cannot be used as it is."""

    exit_code = 78


class LockHeldError(SoulspotError):
    """Another soulspot writes this database."""

    exit_code = 75  # EX_TEMPFAIL: retry when the other has ended


class UnreachableError(SoulspotError):
    """The server of the database cannot be reached, or refuses the login."""

    exit_code = 75


class NotFoundError(SoulspotError):
    """The catalogue has no match for what the user named."""
