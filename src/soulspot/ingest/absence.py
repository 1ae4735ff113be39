"""What is not there any more: remembered until it has been gone long enough, and only then believed.

A disk that is unmounted looks like a library that somebody deleted. So a folder is examined before anything in it goes
missing, and a loss of more than a fifth of it (and more than 50 files) is held until a person confirms it.
"""

import os
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field

from soulspot.infrastructure.filesystem import FileSystem, file_system_of
from soulspot.ingest.scanner import Root, covers, nearest_change_ns

HELD_SHARE = 0.2
HELD_FILES = 50
REMEMBERED_FOR = 900.0
"""Seconds for which losses count together: a library that is deleted slowly is deleted all the same."""


class Absences:
    """The paths that were not found where the catalogue has them, each with the moment at which it goes missing."""

    def __init__(self, grace: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._grace = grace
        self._clock = clock
        self._due: dict[Root, dict[str, float]] = {}
        self._whole: set[Root] = set()  # those of which nothing else was gone

    def __len__(self) -> int:
        return sum(map(len, self._due.values()))

    def note(
        self,
        root: Root,
        paths: Iterable[str],
        *,
        ages: Callable[[str], float] = lambda _path: 0.0,
        are_all: bool = False,
    ) -> None:
        """Remember paths that were not found; `are_all` says that no other of the folder is gone.

        `ages` tells for how many seconds each has been gone already.
        """
        if are_all:
            self._whole.add(root)
        due = self._due.setdefault(root, {})
        for path in paths:
            if path not in due:
                due[path] = self._clock() + max(self._grace - ages(path), 0.0)

    def forget(self, root: Root, *, but: Callable[[str], bool] = lambda _path: False) -> None:
        """Forget what was noted below a folder: it is not known any more whether anything is gone."""
        self._whole.discard(root)
        kept = {path: moment for path, moment in self._due.pop(root, {}).items() if but(path)}
        if kept:
            self._due[root] = kept

    def found(self, root: Root, path: str) -> None:
        """Forget one path: it is known where its file went."""
        self._due.get(root, {}).pop(path, None)

    def any_of(self, root: Root, paths: Collection[str]) -> bool:
        """Whether one of these paths still waits."""
        return not self._due.get(root, {}).keys().isdisjoint(paths)

    def are_all_found(self, root: Root) -> bool:
        """Whether each file that was gone when all of the folder was looked at is found, or has had its time."""
        return root in self._whole and not self._due.get(root)

    def waiting(self, root: Root) -> list[str]:
        return list(self._due.get(root, ()))

    def next_due(self) -> float | None:
        """Return in how many seconds the next path is due."""
        moments = [min(due.values()) for due in self._due.values() if due]
        return max(min(moments) - self._clock(), 0.0) if moments else None

    def take_due(self) -> dict[Root, list[str]]:
        """Remove and return the paths that have been gone for long enough, by folder."""
        now = self._clock()
        taken = {root: [path for path, moment in due.items() if moment <= now] for root, due in self._due.items()}
        for root, paths in taken.items():
            for path in paths:
                del self._due[root][path]
        return {root: paths for root, paths in taken.items() if paths}


@dataclass(slots=True)
class LossGuard:
    """Says when too much of a folder would go missing at once."""

    clock: Callable[[], float] = time.monotonic
    confirmed: bool = False  # a person said that the files are really gone
    confirmed_parts: list[tuple[Root, str]] = field(default_factory=list)  # that those at and below these are
    _recent: dict[Root, deque[tuple[float, int]]] = field(default_factory=dict)

    def allows(self, root: Root, losing: int, present: int) -> bool:
        """Whether `losing` of the `present` files may go missing, with those that went a short while ago."""
        recent = self._recent.setdefault(root, deque())
        while recent and recent[0][0] < self.clock() - REMEMBERED_FOR:
            recent.popleft()
        before = sum(count for _moment, count in recent)
        total = losing + before
        return self.confirmed or total <= HELD_FILES or total <= HELD_SHARE * (present + before)

    def is_confirmed(self, root: Root, path: str) -> bool:
        """Whether a person said that what is at a path is really gone."""
        return self.confirmed or any(root == each and covers(part, path) for each, part in self.confirmed_parts)

    def lost(self, root: Root, count: int) -> None:
        self._recent.setdefault(root, deque()).append((self.clock(), count))


def seconds_gone(root: Root, path: str) -> float:
    """Return for how long a path has certainly been gone, by the mtime of the folder it was in; blocks."""
    changed = nearest_change_ns(root, path)
    return 0.0 if changed is None else max((time.time_ns() - changed) / 1e9, 0.0)


def ages_of(root: Root, paths: Iterable[str]) -> dict[str, float]:
    """Return the same for many paths, by path: it is that of their folder; blocks."""
    by_folder: dict[str, float] = {}
    ages = {}
    for path in paths:
        folder = path.rpartition("/")[0]
        if folder not in by_folder:
            by_folder[folder] = seconds_gone(root, path)
        ages[path] = by_folder[folder]
    return ages


def fault_of(root: Root, known_identity: str, some_known_paths: Iterable[str]) -> str | None:
    """Return why nothing may be concluded from what a folder does not hold, None where all is well; blocks.

    A folder on another file system than before is taken for the same library where a known file is still there.
    """
    known_paths = list(some_known_paths)
    try:
        with os.scandir(root.path) as entries:
            is_empty = next(entries, None) is None
    except FileNotFoundError:
        return "it is not there: is its disk mounted?"
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    if not known_paths:
        return None
    if is_empty:
        return "it is empty, and the catalogue knows files in it: is its disk mounted?"
    identity = file_system_of(root.path).identity
    if identity != known_identity and not any(os.path.lexists(root.full(path)) for path in known_paths):
        return f"it lies on another file system ({identity}, before {known_identity}) that holds none of its files"
    return None


def mount_fault_of(identity: str, now: FileSystem | None, some_known_files: Iterable[str]) -> str | None:
    """Return why nothing may be concluded from what is not found where a file system was mounted; blocks.

    `now` is what is mounted there, None for nothing; known files that are there say that it is the same library.
    """
    known = list(some_known_files)
    if not known or (now is not None and now.identity == identity) or any(map(os.path.lexists, known)):
        return None
    if now is None:
        return f"the file system that was mounted there ({identity}) is not"
    return f"another file system is mounted there ({now.identity}, before {identity}) that holds none of its files"
