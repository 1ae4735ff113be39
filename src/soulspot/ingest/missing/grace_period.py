"""Keeps the paths that were not found, until they have been gone for long enough to count as missing."""

import time
from collections.abc import Callable, Collection, Mapping

from soulspot.ingest.disk.walker import Root, nearest_change_ns


class GracePeriod:
    """Paths of the catalogue that were not found, each with the moment at which its file goes missing.

    Args:
        grace: seconds of absence after which a file is missing.

    """

    def __init__(self, grace: float, *, clock: Callable[[], float]) -> None:
        self._grace = grace
        self._clock = clock
        self._due: dict[Root, dict[str, float]] = {}
        self._whole: set[Root] = set()  # the folders that have no other files gone

    def __len__(self) -> int:
        return sum(map(len, self._due.values()))

    def note(self, root: Root, ages: Mapping[str, float], *, are_all: bool = False) -> None:
        """Note paths that were not found, with the seconds for which each has been gone already.

        `are_all` if no other path of the folder is gone.
        """
        if are_all:
            self._whole.add(root)
        due = self._due.setdefault(root, {})
        for path, age in ages.items():
            due.setdefault(path, self._clock() + max(self._grace - age, 0.0))

    def forget(self, root: Root, *, but: Callable[[str], bool] = lambda _path: False) -> None:
        """Forget the paths of a folder: whether anything is gone is unknown again."""
        self._whole.discard(root)
        for path in [path for path in self.waiting(root) if not but(path)]:
            self.found(root, path)

    def found(self, root: Root, path: str) -> None:
        """Forget one path: its file was found elsewhere."""
        self._due.get(root, {}).pop(path, None)

    def any_of(self, root: Root, paths: Collection[str]) -> bool:
        """Whether any of these paths is in its grace period."""
        return not self._due.get(root, {}).keys().isdisjoint(paths)

    def are_all_found(self, root: Root) -> bool:
        """Whether each file that a scan of the whole folder did not find has been found since, or taken as due."""
        return root in self._whole and not self._due.get(root)

    def waiting(self, root: Root) -> list[str]:
        return list(self._due.get(root, ()))

    def next_due(self) -> float | None:
        """Return the seconds until the next path is due; None if no path waits."""
        moments = [min(due.values()) for due in self._due.values() if due]
        return max(min(moments) - self._clock(), 0.0) if moments else None

    def take_due(self) -> dict[Root, list[str]]:
        """Remove and return the paths that have been gone for long enough, by folder."""
        now = self._clock()
        taken = {root: [path for path, moment in due.items() if moment <= now] for root, due in self._due.items()}
        for root, due in self._due.items():
            self._due[root] = {path: moment for path, moment in due.items() if moment > now}
        return {root: paths for root, paths in taken.items() if paths}


def seconds_gone(root: Root, path: str) -> float:
    """Return for how long a path has certainly been gone, by the mtime of the folder it was in. Blocks."""
    changed = nearest_change_ns(root, path)
    return 0.0 if changed is None else max((time.time_ns() - changed) / 1e9, 0.0)


def ages_of(root: Root, paths: Collection[str]) -> dict[str, float]:
    """Return the same for many paths, by path; checks each folder once. Blocks."""
    one_of_each = {path.rpartition("/")[0]: path for path in paths}
    ages = {folder: seconds_gone(root, path) for folder, path in one_of_each.items()}
    return {path: ages[path.rpartition("/")[0]] for path in paths}
