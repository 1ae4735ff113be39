"""Looks at the disk, and is the only judge of what exists there.

A walk yields what lies below a folder in the order in which the catalogue sorts paths, in batches: each batch is
compared with one range of the catalogue, so neither side is ever in memory as a whole. Everything here blocks and is
called through a thread. A folder that cannot be read is part of the result: what the catalogue knows below it is not
gone.
"""

import logging
import os
import re
import stat
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from soulspot.infrastructure.filesystem import Signature, path_to_text, text_to_path
from soulspot.infrastructure.tags import Kind, kind_of_name

logger = logging.getLogger(__name__)

BATCH = 2_000
QUESTION = 500
"""Paths or inodes that one statement asks for."""
# What browsers, torrent clients, copy tools and editors call a file that is not finished yet.
_UNFINISHED = re.compile(
    r".*(\.part|\.partial|\.crdownload|\.download|\.opdownload|\.!qb|\.!ut|\.bc!|\.aria2|\.filepart|\.tmp|\.temp|\.swp|~)"
    r"|\.[^/]+\.[A-Za-z0-9]{6}|\.syncthing\..*|~syncthing~.*|\.goutputstream-.*|\.~.*|\.nfs[0-9a-f]{16,}",
    re.IGNORECASE | re.DOTALL,
)

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Root:
    """A watched folder: its row's id and its absolute path."""

    id: str
    path: str
    trusts_inodes: bool = True  # not on network file systems, which make them up
    hidden: bool = False  # whether hidden files and folders are looked at

    def full(self, path: str) -> str:
        """Return the absolute path of a path below this folder as the catalogue writes it."""
        return os.path.join(self.path, text_to_path(path)) if path else self.path

    def relative(self, full: str) -> str | None:
        """Return an absolute path as the catalogue writes it, "" for the folder itself, None where it is not below."""
        if full == self.path:
            return ""
        prefix = self.path.rstrip("/") + "/"
        return path_to_text(full[len(prefix) :]) if full.startswith(prefix) else None

    def same(self, one: Signature, other: Signature) -> bool:
        """Whether a file is as it was."""
        if self.trusts_inodes:
            return one == other
        return (one.size, one.mtime_ns) == (other.size, other.mtime_ns)


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A regular file that may be audio, as it was when we looked; `path` is text below the root."""

    root: Root
    path: str
    signature: Signature

    @property
    def full_path(self) -> str:
        return self.root.full(self.path)


@dataclass(frozen=True, slots=True)
class FoundFolder:
    """A folder below a root, and what the kernel calls it."""

    root: Root
    path: str
    device: int
    inode: int


@dataclass(slots=True)
class Batch:
    """What a walk found between the end of the batch before and `upto`, or to the very end where that is None."""

    upto: str | None = None
    files: dict[str, FoundFile] = field(default_factory=dict)
    folders: list[FoundFolder] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)

    def hides(self, path: str) -> bool:
        """Whether a path lies where the walk could not look."""
        return any(path == hidden or path.startswith(f"{hidden}/") or not hidden for hidden in self.unreadable)


def is_ignored(name: str, *, hidden: bool) -> bool:
    """Whether a file or folder of this name is left alone: hidden, or not finished."""
    return (not hidden and name.startswith(".")) or _UNFINISHED.fullmatch(name) is not None


def look(root: Root, path: str) -> FoundFile | FoundFolder | None:
    """Return what is at a path below a root now; None for nothing, and for what is none of ours.

    Raises OSError where the disk does not answer: then nothing is known, least of all that the file is gone.
    """
    full = root.full(path)
    try:
        status = os.lstat(full)
    except (FileNotFoundError, NotADirectoryError):
        return None
    names = text_to_path(path).split("/") if path else []
    if any(is_ignored(name, hidden=root.hidden) for name in names) or _is_behind_a_link(root, full):
        return None
    if stat.S_ISDIR(status.st_mode):
        return FoundFolder(root, path, status.st_dev, status.st_ino)
    if not stat.S_ISREG(status.st_mode) or kind_of_name(names[-1]) is Kind.OTHER:
        return None
    return FoundFile(root, path, Signature.of(status))


def walk(root: Root, prefix: str = "", *, size: int = BATCH) -> Iterator[Batch]:
    """Yield everything at and below `prefix` ("" or "folder/"), in the order of the catalogue, in batches."""
    batch = Batch()
    unvisited = [prefix]
    while unvisited:
        path = unvisited.pop()
        if path and not path.endswith("/"):
            _add_file(batch, root, path)
            if len(batch.files) >= size:
                batch.upto = path
                yield batch
                batch = Batch(unreadable=batch.unreadable)
        else:
            unvisited.extend(reversed(_list(batch, root, path)))
    yield batch


def look_at_all(root: Root, paths: Iterable[str]) -> dict[str, FoundFile | FoundFolder | None]:
    """Look at each path; one where the disk does not answer is left out, as nothing is known of it."""
    found = {}
    for path in paths:
        try:
            found[path] = look(root, path)
        except OSError as error:
            logger.warning("cannot look at %s: %s", path_to_text(root.full(path)), error.strerror)
    return found


def chunks(items: Collection[_T]) -> Iterator[list[_T]]:
    """Cut what there is to ask into what one statement asks for."""
    listed = list(items)
    return (listed[start : start + QUESTION] for start in range(0, len(listed), QUESTION))


def count_files(root: Root) -> int:
    """Return how many files a walk of a folder would come to; by their names, so that it is quick."""
    counted, unvisited = 0, [""]
    while unvisited:
        for path in _list(Batch(), root, unvisited.pop()):
            if path.endswith("/"):
                unvisited.append(path)
            else:
                counted += 1
    return counted


def nearest_change_ns(root: Root, path: str) -> int | None:
    """Return the mtime of the closest folder above a path that exists: nothing vanished from there later than that."""
    folder = os.path.dirname(root.full(path))
    while len(folder) >= len(root.path):
        try:
            return os.stat(folder).st_mtime_ns
        except (FileNotFoundError, NotADirectoryError):
            folder = os.path.dirname(folder)
        except OSError:
            return None
    return None


def _list(batch: Batch, root: Root, prefix: str) -> list[str]:
    """Return the paths in a folder in the order of the catalogue, folders with a slash behind; note the folder."""
    full = root.full(prefix.rstrip("/"))
    below = []
    try:
        with os.scandir(full) as entries:
            for entry in entries:
                if is_ignored(entry.name, hidden=root.hidden):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    below.append(prefix + path_to_text(entry.name) + "/")
                elif entry.is_file(follow_symlinks=False) and kind_of_name(entry.name) is not Kind.OTHER:
                    below.append(prefix + path_to_text(entry.name))
        status = os.stat(full)
        batch.folders.append(FoundFolder(root, prefix.rstrip("/"), status.st_dev, status.st_ino))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        logger.warning("cannot read folder %s: %s", path_to_text(full), error.strerror)
        batch.unreadable.append(prefix.rstrip("/"))
        return []
    below.sort()
    return below


def _add_file(batch: Batch, root: Root, path: str) -> None:
    try:
        status = os.lstat(root.full(path))
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        logger.warning("cannot look at %s: %s", path_to_text(root.full(path)), error.strerror)
        batch.unreadable.append(path)
        return
    if stat.S_ISREG(status.st_mode):
        batch.files[path] = FoundFile(root, path, Signature.of(status))


def _is_behind_a_link(root: Root, full: str) -> bool:
    folder = os.path.dirname(full)
    if len(folder) <= len(root.path):
        return False
    return os.path.realpath(folder) != os.path.realpath(root.path) + folder[len(root.path.rstrip("/")) :]
