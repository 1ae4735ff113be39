"""Paths to check and folders to scan, each kept once however often it is hinted at.

Adding a hint never blocks, and the number of hints is bounded: if a root has too many, the root itself replaces the
older half, and its scan finds them all.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Iterable
from typing import Final

from soulspot.ingest.disk.walker import Root

HALF_BATCH: Final = 50
"""Newest hints of a root, and oldest, that one batch takes: a new hint waits for at most this many others of each."""


class Hints:
    def __init__(self, limit: int = 50_000) -> None:
        self._limit = limit
        self._paths: dict[Root, OrderedDict[str, None]] = {}  # oldest first
        self._new: dict[Root, dict[str, None]] = {}  # those of them that `take_new` has not returned
        self._taken: dict[Root, list[str]] = {}
        self._any = asyncio.Event()

    def __bool__(self) -> bool:
        return bool(self._paths)

    def add(self, root: Root, paths: Iterable[str]) -> None:
        """Remember paths below a root; "" is the whole root."""
        added = dict.fromkeys(paths)
        gathered = self._paths.setdefault(root, OrderedDict())
        gathered.update(added)
        self._new.setdefault(root, {}).update(added)
        if len(gathered) > self._limit:
            newest = list(gathered)[-self._limit // 2 :]
            self._paths[root] = OrderedDict.fromkeys(["", *newest])
            self._new[root] = dict.fromkeys(newest)
        self._any.set()

    async def wait(self) -> None:
        """Wait until there is a hint."""
        await self._any.wait()

    def take(self) -> dict[Root, list[str]]:
        """Remove and return some hints of each root, the newest first and then the oldest.

        So a song that is dropped while a library is copied need not wait for the library, which still gets its turn.
        """
        self._taken = {}
        for root, gathered in list(self._paths.items()):
            newest = [gathered.popitem()[0] for _ in range(min(len(gathered), HALF_BATCH))]
            oldest = [gathered.popitem(last=False)[0] for _ in range(min(len(gathered), HALF_BATCH))]
            self._taken[root] = newest + oldest
            for path in self._taken[root]:
                self._new.get(root, {}).pop(path, None)
            if not gathered:
                del self._paths[root]
        if not self._paths:
            self._any.clear()
        return dict(self._taken)

    def mark_checked(self, root: Root) -> None:
        """Note that the paths of a root that `take` returned last have been checked."""
        self._taken.pop(root, None)

    def take_new(self) -> dict[Root, list[str]]:
        """Return the paths below each root that are not checked yet, each once per hint; they stay in the queue."""
        new = {
            root: [path for path in [*self._taken.get(root, ()), *self._new.get(root, ())] if path]
            for root in self._taken.keys() | self._new.keys()
        }
        self._taken, self._new = {}, {}
        return {root: paths for root, paths in new.items() if paths}


class FolderHints:
    """Folders to scan, as "" or "folder/", each with the time of its first hint."""

    def __init__(self, limit: int = 5_000) -> None:
        self._limit = limit
        self._since: dict[Root, dict[str, float]] = {}
        self._any = asyncio.Event()

    def __bool__(self) -> bool:
        return bool(self._since)

    def add(self, root: Root, prefix: str, since: float) -> None:
        gathered = self._since.setdefault(root, {})
        gathered.setdefault(prefix, since)
        if len(gathered) > self._limit:
            self._since[root] = {"": min(gathered.values())}
        self._any.set()

    async def wait(self) -> None:
        """Wait until there is a hint."""
        await self._any.wait()

    def take(self) -> list[tuple[Root, str, float]]:
        """Remove all hints, and return them without folders below other folders."""
        self._any.clear()
        taken, self._since = self._since, {}
        return [(root, prefix, gathered[prefix]) for root, gathered in taken.items() for prefix in _topmost(gathered)]


def _topmost(prefixes: Iterable[str]) -> list[str]:
    kept: list[str] = []
    for prefix in sorted(prefixes):
        if not kept or not prefix.startswith(kept[-1]):
            kept.append(prefix)
    return kept
