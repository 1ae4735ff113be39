"""The folders that scans found, with their mtimes: a changed mtime means an entry was added, removed or renamed.

Checking only the folders finds every such file at a fraction of the cost of a scan.
"""

import os
from collections.abc import Iterable, Mapping
from typing import TypeVar

from soulspot.ingest.disk.walker import FoundFolder, Root

_T = TypeVar("_T")


class FolderIndex:
    def __init__(self) -> None:
        self._seen: dict[Root, dict[str, int]] = {}
        self.unreadable: dict[Root, dict[str, str]] = {}
        """The reasons why paths could not be read at the last attempt, by path."""

    def __len__(self) -> int:
        return sum(map(len, self._seen.values()))

    def note(self, root: Root, prefix: str, found: Iterable[FoundFolder], unreadable: Mapping[str, str]) -> None:
        """Replace what is known at and below `prefix` ("" or "folder/") by what a scan of it found."""
        seen = _outside(prefix, self._seen.get(root, {}))
        self._seen[root] = seen | {folder.path: folder.mtime_ns for folder in found}
        self.unreadable[root] = {**_outside(prefix, self.unreadable.get(root, {})), **unreadable}

    def update(self, root: Root, found: Iterable[FoundFolder], unreadable: Mapping[str, str]) -> None:
        """Add what a scan of one folder, without those below it, found."""
        for folder in found:
            self._seen.setdefault(root, {})[folder.path] = folder.mtime_ns
            self.unreadable.get(root, {}).pop(folder.path, None)
        self.unreadable.setdefault(root, {}).update(unreadable)

    def forget(self, root: Root, path: str) -> None:
        """Forget a folder and all below it."""
        self._seen[root] = _outside(f"{path}/", self._seen.get(root, {}))

    def knows(self, root: Root, path: str) -> bool:
        return path in self._seen.get(root, ())

    def find_changes(self, root: Root, only: Iterable[str] | None = None) -> tuple[list[str], list[str]]:
        """Return the folders that have changed since and those that are gone, of all or `only` these. Blocks."""
        seen, changed, gone = self._seen.get(root, {}), list[str](), list[str]()
        for path in list(seen) if only is None else only:
            try:
                mtime_ns = os.stat(root.full(path)).st_mtime_ns
            except (FileNotFoundError, NotADirectoryError):
                gone.append(path)
            except OSError:
                continue
            else:
                if mtime_ns != seen.get(path):
                    changed.append(path)
        return changed, gone


def _outside(prefix: str, paths: Mapping[str, _T]) -> dict[str, _T]:
    """Return the entries of the paths that are not at or below `prefix`."""
    return {path: value for path, value in paths.items() if not f"{path}/".startswith(prefix)}
