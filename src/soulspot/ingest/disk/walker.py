"""Examines the disk: walks trees and checks single paths. No other module decides what exists.

A walk yields what lies below a folder in batches, in the order in which the catalogue sorts paths: each batch is
compared with one range of the catalogue, so neither side is ever in memory as a whole. A folder that cannot be read is
part of the result, because what the catalogue knows below it is not gone. Every function here blocks; call them in a
thread.
"""

import errno
import logging
import os
import re
import stat
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import NamedTuple, Self, TypeVar

from soulspot.infrastructure.filesystem import Signature, full_path, path_to_text, text_to_path
from soulspot.infrastructure.tags import PARSER_VERSION, Kind, kind_of_name
from soulspot.ingest.disk.ignore_rules import IGNORE_FILE, Chain, Ignoring, ignoring_rule

logger = logging.getLogger(__name__)

BATCH = 2_000
CHUNK = 500
"""Paths or inodes in one query."""
# How browsers, torrent clients, copy tools and editors name a file that is not finished yet.
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
    hidden: bool = False  # whether to scan hidden files and folders
    follow_links: bool = False  # whether to follow symbolic links; never out of this folder
    reading: int = PARSER_VERSION  # how its files are read: a file that was read in another way is read again
    ignoring: Ignoring = field(default_factory=Ignoring, compare=False)
    remote: set[str] = field(default_factory=set, compare=False)  # network file systems mounted below, as "folder/"

    def full(self, path: str) -> str:
        """Return the absolute path, for system calls, of a path as the catalogue writes it."""
        return full_path(self.path, text_to_path(path)) if path else self.path

    def catalogue_path(self, path: str) -> str:
        """Return the absolute path of a path below this folder, as the catalogue writes it."""
        return full_path(path_to_text(self.path), path)

    def relative(self, full: str) -> str | None:
        """Return an absolute path as the catalogue writes it: "" for the folder itself, None outside of it."""
        if full == self.path:
            return ""
        prefix = self.path.rstrip("/") + "/"
        return path_to_text(full[len(prefix) :]) if full.startswith(prefix) else None

    def trusts_inode_of(self, path: str) -> bool:
        """Whether the inode of a file identifies it."""
        return self.trusts_inodes and not (self.remote and path.startswith(tuple(self.remote)))


class FoundFile(NamedTuple):
    """A regular file that may be audio, as it was when it was checked; `path` is text below the root."""

    root: Root
    path: str
    signature: Signature

    @property
    def full_path(self) -> str:
        full = self.root.full(self.path)
        return os.path.realpath(full) if self.root.follow_links else full

    @property
    def catalogue_path(self) -> str:
        """The absolute path, as the catalogue writes it."""
        return self.root.catalogue_path(self.path)

    @property
    def trusts_inode(self) -> bool:
        return self.root.trusts_inode_of(self.path)

    def is_as(self, other: Signature) -> bool:
        """Whether the file has not changed since it had this signature."""
        if self.trusts_inode:
            return self.signature == other
        return (self.signature.size, self.signature.mtime_ns) == (other.size, other.mtime_ns)


@dataclass(frozen=True, slots=True)
class FoundFolder:
    """A folder below a root: its device and inode, and when it last gained or lost an entry."""

    root: Root
    path: str
    device: int
    inode: int
    mtime_ns: int

    @classmethod
    def of(cls, root: Root, path: str, status: os.stat_result) -> Self:
        return cls(root, path, status.st_dev, status.st_ino, status.st_mtime_ns)


@dataclass(slots=True)
class Batch:
    """The results of a walk from the end of the previous batch to `upto`, or to its end if that is None."""

    upto: str | None = None
    files: dict[str, FoundFile] = field(default_factory=dict)
    folders: list[FoundFolder] = field(default_factory=list)
    unreadable: dict[str, str] = field(default_factory=dict)  # path to reason

    def hides(self, path: str) -> bool:
        """Whether a path is at or below one that the walk could not read."""
        return any(covers(hidden, path) for hidden in self.unreadable)


def is_left_alone(name: str, *, hidden: bool) -> str | None:
    """Return why soulspot ignores this name of a file or folder (it is hidden, or unfinished), None if it does not."""
    if _UNFINISHED.fullmatch(name) is not None:
        return f"{path_to_text(name)} is the name of an unfinished file"
    if name == "lost+found":
        return "lost+found holds what a repair of the file system saved"
    return f"{path_to_text(name)} is hidden" if not hidden and name.startswith(".") else None


def why_left_alone(root: Root, path: str) -> str | None:
    """Return why soulspot ignores a path (a name, a rule or a link), None if it does not."""
    names = text_to_path(path).split("/") if path else []
    chain = root.ignoring.chain(root.path, "")
    for depth, name in enumerate(names, 1):
        above, full = "/".join(names[: depth - 1]), os.path.join(root.path, *names[:depth])
        if (reason := is_left_alone(name, hidden=root.hidden)) is not None:
            return reason
        if above:
            chain = root.ignoring.extend(chain, root.path, f"{above}/")
        is_folder = depth < len(names) or os.path.isdir(full)
        if (rule := ignoring_rule(chain, f"{above}/{name}" if above else name, is_folder=is_folder)) is not None:
            return f"ignored by {rule}"
        if os.path.islink(full) and not is_followed(root, full):
            return f"{path_to_text(full)} is a symbolic link"
    return None


def check(root: Root, path: str) -> FoundFile | FoundFolder | None:
    """Return what is at a path below a root; None for nothing, and for what soulspot ignores.

    Raises OSError if the disk does not answer: then nothing is known, least of all that the file is gone.
    """
    status = _stat(root, path)
    if status is None or why_left_alone(root, path) is not None:
        return None
    if stat.S_ISDIR(status.st_mode):
        return FoundFolder.of(root, path, status)
    is_ours = stat.S_ISREG(status.st_mode) and kind_of_name(os.path.basename(root.full(path))) is not Kind.OTHER
    return FoundFile(root, path, Signature.of(status)) if is_ours else None


def is_followed(root: Root, full: str) -> bool:
    """Whether to follow a symbolic link: to a place below the root, but not to a folder above the link.

    A walk of a link that leads to a folder above it, even through other links, would never end.
    """
    if not root.follow_links:
        return False
    top, target = os.path.realpath(root.path).rstrip("/") + "/", os.path.realpath(full) + "/"
    if not target.startswith(top) or target == top:
        return False
    above = [folder for folder in map(str, PurePath(full).parents) if len(folder) > len(root.path)]
    return not any(f"{os.path.realpath(folder)}/".startswith(target) for folder in above)


def walk(root: Root, prefix: str = "", *, size: int = BATCH) -> Iterator[Batch]:
    """Yield everything at and below `prefix` ("" or "folder/"), in the order of the catalogue, in batches."""
    batch, unvisited, chains = Batch(), [prefix], dict[str, Chain]()
    try:
        if prefix and why_left_alone(root, prefix.rstrip("/")) is not None:
            unvisited.clear()
    except OSError as error:
        unvisited.clear()
        _note_unreadable(batch, root, prefix.rstrip("/"), error)
    while unvisited:
        path = unvisited.pop()
        if path and not path.endswith("/"):
            _add_file(batch, root, path)
            if len(batch.files) >= size:
                batch.upto = path
                yield batch
                batch = Batch(unreadable=batch.unreadable)
        else:
            unvisited.extend(reversed(_list(batch, root, path, chains)))
    yield batch


def list_folder(root: Root, prefix: str) -> tuple[Batch, list[str]]:
    """Return what lies directly in a folder, and the folders in it, as "folder/"."""
    batch = Batch()
    below = _list(batch, root, prefix, {})
    for path in below:
        if not path.endswith("/"):
            _add_file(batch, root, path)
    return batch, [path for path in below if path.endswith("/")]


def check_all(root: Root, paths: Iterable[str]) -> dict[str, FoundFile | FoundFolder | None]:
    """Check each path; omit those for which the disk does not answer, as nothing is known of them."""
    found = {}
    for path in paths:
        try:
            found[path] = check(root, path)
        except OSError as error:
            logger.warning("cannot examine %s: %s", path_to_text(root.full(path)), error.strerror)
    return found


def chunks(items: Collection[_T]) -> Iterator[list[_T]]:
    """Split items into lists that fit into one query each."""
    listed = list(items)
    return (listed[start : start + CHUNK] for start in range(0, len(listed), CHUNK))


def covers(part: str, path: str) -> bool:
    """Whether a path is at or below `part`: "" is the whole root, and a folder may end in a slash."""
    return not part or path == part or path.startswith(f"{part.rstrip('/')}/")


def count_files(root: Root, prefix: str = "") -> int:
    """Return how many files a walk of a folder would find; quick, as it only reads names."""
    counted, unvisited, chains = 0, [prefix], dict[str, Chain]()
    while unvisited:
        below = _list(Batch(), root, unvisited.pop(), chains)
        folders = [path for path in below if path.endswith("/")]
        counted += len(below) - len(folders)
        unvisited += folders
    return counted


def nearest_change_ns(root: Root, path: str) -> int | None:
    """Return the mtime of the closest existing folder above a path: whatever vanished from it vanished by then."""
    folder = os.path.dirname(root.full(path))
    while len(folder) >= len(root.path):
        try:
            return os.stat(folder).st_mtime_ns
        except (FileNotFoundError, NotADirectoryError):
            folder = os.path.dirname(folder)
        except OSError:
            return None
    return None


def _list(batch: Batch, root: Root, prefix: str, chains: dict[str, Chain]) -> list[str]:
    """Return the paths in a folder in the order of the catalogue, folders with a trailing slash; note the folder."""
    full, below = root.full(prefix.rstrip("/")), list[str]()
    try:
        status = os.stat(full)  # before its entries are read: a later change gives it another mtime
        with os.scandir(full) as entries:
            listed = list(entries)
        chain = _chain(root, prefix, chains, has_rules=IGNORE_FILE in [entry.name for entry in listed])
        for entry in listed:
            try:
                path = _path_in(root, prefix, entry, chain)
            except OSError as error:
                if error.errno != errno.ELOOP:  # a link that leads in a circle
                    _note_unreadable(batch, root, prefix + path_to_text(entry.name), error)
                continue
            if path is not None:
                below.append(path)
        batch.folders.append(FoundFolder.of(root, prefix.rstrip("/"), status))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        logger.warning("cannot read folder %s: %s", path_to_text(full), error.strerror)
        batch.unreadable[prefix.rstrip("/")] = str(error.strerror)
    return sorted(below)


def _chain(root: Root, prefix: str, chains: dict[str, Chain], *, has_rules: bool) -> Chain:
    """Return the rules for a folder, extending those of the folder above if that was listed before."""
    while chains and not prefix.startswith(last := next(reversed(chains))):
        del chains[last]  # the walk has left that folder
    name = text_to_path(prefix)
    above = chains.get(prefix[: prefix.rstrip("/").rfind("/") + 1]) if prefix else None
    if above is None:
        chain = root.ignoring.chain(root.path, name)
    else:
        chain = root.ignoring.extend(above, root.path, name) if has_rules else above
    chains[prefix] = chain
    return chain


def _path_in(root: Root, prefix: str, entry: os.DirEntry[str], chain: Chain) -> str | None:
    """Return the path of an entry of a folder as the catalogue writes it, None if soulspot ignores it."""
    name = entry.name
    if not chain and name[0] not in ".~" and kind_of_name(name) is Kind.AUDIO and entry.is_file(follow_symlinks=False):
        return prefix + path_to_text(name)  # most files: no suffix of an unfinished file is one of audio
    is_unfollowed = entry.is_symlink() and not is_followed(root, entry.path)
    if is_unfollowed or is_left_alone(name, hidden=root.hidden) is not None:
        return None
    is_folder = entry.is_dir()
    if not is_folder and (not entry.is_file() or kind_of_name(name) is Kind.OTHER):
        return None
    if chain and ignoring_rule(chain, text_to_path(prefix) + name, is_folder=is_folder) is not None:
        return None
    return prefix + path_to_text(name) + ("/" if is_folder else "")


def _add_file(batch: Batch, root: Root, path: str) -> None:
    try:
        status = _stat(root, path)
    except OSError as error:
        _note_unreadable(batch, root, path, error)
    else:
        if status is not None and stat.S_ISREG(status.st_mode):
            batch.files[path] = FoundFile(root, path, Signature.of(status))


def _stat(root: Root, path: str) -> os.stat_result | None:
    """Return the status of what is at a path, None for nothing; raises OSError if the disk does not answer."""
    try:
        return os.stat(root.full(path), follow_symlinks=root.follow_links)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _note_unreadable(batch: Batch, root: Root, path: str, error: OSError) -> None:
    logger.warning("cannot examine %s: %s", path_to_text(root.full(path)), error.strerror)
    batch.unreadable[path] = str(error.strerror)
