"""Rows of the catalogue as plain values, for those who need no ORM object."""

import re
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from soulspot.infrastructure.filesystem import Signature


class FolderKey(NamedTuple):
    """A watched folder: the machine that sees it, and its path there, escaped as the catalogue writes it."""

    node: str
    path: str


@dataclass(frozen=True, slots=True)
class Writer:
    """A process that writes the catalogue.

    Attributes:
        name: its command, its pid, and the machine that it runs on.
        address: where it is connected from, None through a socket, or where this role may not know.
        since: None where this role may not know.
        folders: what it alone may write.

    """

    name: str
    address: str | None
    since: datetime | None
    folders: tuple[FolderKey, ...] = ()

    @property
    def pid(self) -> int | None:
        found = re.search(r"\(pid (\d+)\)", self.name)
        return int(found[1]) if found else None

    def __str__(self) -> str:
        return f"`{self.name}`" + (f", connected from {self.address}" if self.address else "")


class Known(NamedTuple):
    """What the catalogue remembers of one file."""

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
    """A folder that is watched, or a file system below one."""

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
    """Which failures are meant.

    Attributes:
        path: a file or folder, whole and escaped.
        before: those that were last tried before this moment.
        since: those that were last tried at or after this moment.
        ignored: those that a person ignores, instead of the others.

    """

    code: str | None = None
    path: str | None = None
    before: datetime | None = None
    since: datetime | None = None
    ignored: bool = False
