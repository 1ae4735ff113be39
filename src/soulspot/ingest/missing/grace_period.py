"""Keeps the paths that were not found until they have been gone for long enough to count as missing."""

import time
from collections.abc import Callable, Collection, Iterable

from soulspot.ingest.disk.walker import Root, nearest_change_ns


class GracePeriod:
    """The paths that were not found where the catalogue has them, each with the moment at which it goes missing."""

    def __init__(self, grace: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._grace = grace
        self._clock = clock
        self._due: dict[Root, dict[str, float]] = {}
        self._whole: set[Root] = set()  # those in which nothing else was gone

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
        """Note paths that were not found; `are_all` if no other path of the folder is gone.

        `ages` returns for how many seconds each has been gone already.
        """
        if are_all:
            self._whole.add(root)
        due = self._due.setdefault(root, {})
        for path in paths:
            if path not in due:
                due[path] = self._clock() + max(self._grace - ages(path), 0.0)

    def forget(self, root: Root, *, but: Callable[[str], bool] = lambda _path: False) -> None:
        """Forget what was noted below a folder: whether anything is gone is unknown again."""
        self._whole.discard(root)
        kept = {path: moment for path, moment in self._due.pop(root, {}).items() if but(path)}
        if kept:
            self._due[root] = kept

    def found(self, root: Root, path: str) -> None:
        """Forget one path: its file was found elsewhere."""
        self._due.get(root, {}).pop(path, None)

    def any_of(self, root: Root, paths: Collection[str]) -> bool:
        """Whether one of these paths still waits."""
        return not self._due.get(root, {}).keys().isdisjoint(paths)

    def are_all_found(self, root: Root) -> bool:
        """Whether each file that was gone in a scan of all of the folder has been found, or has had its time."""
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
