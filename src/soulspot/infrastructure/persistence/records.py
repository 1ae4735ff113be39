"""Rows of the catalogue as plain values, without the ORM."""

import re
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from soulspot.infrastructure.filesystem import Signature


class FolderKey(NamedTuple):
    """A watched folder: its machine, and its path there, escaped as in the catalogue."""

    node: str
    path: str


@dataclass(frozen=True, slots=True)
class Writer:
    """A process that writes the catalogue.

    Attributes:
        name: its command, its pid and its machine.
        address: the address of its end of the connection, None for a socket, or if this role may not see it.
        since: the start of its connection, None if this role may not see it.
        folders: the folders that it alone may write.

    """

    name: str
    address: str | None
    since: datetime | None
    folders: tuple[FolderKey, ...] = ()

    @property
    def pid(self) -> int | None:
        return int(found[1]) if (found := re.search(r"\(pid (\d+)\)", self.name)) else None

    def __str__(self) -> str:
        return f"`{self.name}`" + (f", connected from {self.address}" if self.address else "")


class Known(NamedTuple):
    """The catalogue's record of one file."""

    id: str
    folder_id: str
    path: str
    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    status: str
    parser_version: int
    attempts: int
    track_id: str | None
    error_code: str | None

    @property
    def signature(self) -> Signature:
        return Signature._make(self[3:7])

    @property
    def is_missing(self) -> bool:
        return self.status == "missing"


class KnownFolder(NamedTuple):
    """A watched folder, or a file system that is mounted below one."""

    id: str
    node: str
    path: str
    file_system: str
    file_system_id: str
    status: str
    status_reason: str | None


class Credited(NamedTuple):
    """One credit on a track: an artist in a role, under the name that the tags give."""

    role: str
    artist_id: str
    name: str
    instrument: str | None


@dataclass(frozen=True, slots=True)
class FailureQuestion:
    """Selects failures; None matches all.

    Attributes:
        code: the error code.
        path: the full, escaped path of a file or folder.
        before: only those whose last attempt was before this moment.
        since: only those whose last attempt was at or after this moment.
        ignored: those that a person ignores, instead of the others.

    """

    code: str | None = None
    path: str | None = None
    before: datetime | None = None
    since: datetime | None = None
    ignored: bool = False
