"""The folders that scans have found, each with its mtime then: a changed mtime means an entry more or less.

Checking the folders alone finds every file that was added, removed or renamed, at a fraction of the cost of a scan.
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from soulspot.ingest.disk.walker import FoundFolder, Root


@dataclass(slots=True)
class Changes:
    """The folders that changed, and those that are not there any more."""

    changed: list[str] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)


class FolderIndex:
    def __init__(self) -> None:
        self._seen: dict[Root, dict[str, int]] = {}
        self.unreadable: dict[Root, dict[str, str]] = {}
        """What could not be read at the last try, and why."""

    def __len__(self) -> int:
        return sum(map(len, self._seen.values()))

    def note(self, root: Root, prefix: str, found: Iterable[FoundFolder], unreadable: Mapping[str, str]) -> None:
        """Remember what a scan of `prefix` ("" or "folder/") found, in place of what was known there."""
        seen = self._seen.setdefault(root, {})
        new = {folder.path: folder.mtime_ns for folder in found}
        for path in [path for path in seen if path not in new and f"{path}/".startswith(prefix)]:
            del seen[path]
        seen.update(new)
        before = self.unreadable.get(root, {})
        kept = {path: why for path, why in before.items() if not f"{path}/".startswith(prefix)}
        self.unreadable[root] = {**kept, **unreadable}

    def update(self, root: Root, found: Iterable[FoundFolder], unreadable: Mapping[str, str]) -> None:
        """Remember what a scan of one folder itself found."""
        for folder in found:
            self._seen.setdefault(root, {})[folder.path] = folder.mtime_ns
            self.unreadable.get(root, {}).pop(folder.path, None)
        self.unreadable.setdefault(root, {}).update(unreadable)

    def forget(self, root: Root, path: str) -> None:
        """Forget a folder and all below it."""
        seen = self._seen.get(root, {})
        for each in [each for each in seen if each == path or each.startswith(f"{path}/")]:
            del seen[each]

    def knows(self, root: Root, path: str) -> bool:
        return path in self._seen.get(root, ())

    def find_changes(self, root: Root, only: Iterable[str] | None = None) -> Changes:
        """Return what has changed since, in all folders or `only` in some; blocks."""
        seen, result = self._seen.get(root, {}), Changes()
        for path in list(seen) if only is None else only:
            try:
                mtime_ns = os.stat(root.full(path)).st_mtime_ns
            except (FileNotFoundError, NotADirectoryError):
                result.gone.append(path)
            except OSError:
                continue
            else:
                if mtime_ns != seen.get(path):
                    result.changed.append(path)
        return result
