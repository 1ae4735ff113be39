"""The dirty set: paths that somebody said to look at, and folders to walk, each once however often it was said.

It never blocks who adds to it, and it is bounded: where too many paths of one root gather, the root itself takes the
place of the older half, and looking at it finds them all.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Iterable
from typing import Final

from soulspot.ingest.disk.walker import Root

AT_ONCE: Final = 50
"""Newest hints of a root, and oldest, that are taken at once: what comes next waits for no more than these."""


class Hints:
    def __init__(self, limit: int = 50_000) -> None:
        self._limit = limit
        self._paths: dict[Root, OrderedDict[str, None]] = {}  # in the order in which they came
        self._new: dict[Root, dict[str, None]] = {}  # those of them that `take_new` has not returned
        self._taken: dict[Root, list[str]] = {}
        self._any = asyncio.Event()

    def __bool__(self) -> bool:
        return bool(self._paths)

    def add(self, root: Root, paths: Iterable[str]) -> None:
        """Remember paths below a root; "" is the whole root."""
        said = dict.fromkeys(paths)
        gathered = self._paths.setdefault(root, OrderedDict())
        gathered.update(said)
        self._new.setdefault(root, {}).update(said)
        if len(gathered) > self._limit:
            newest = list(gathered)[-self._limit // 2 :]
            self._paths[root] = OrderedDict.fromkeys(["", *newest])
            self._new[root] = dict.fromkeys(newest)
        self._any.set()

    async def take(self) -> dict[Root, list[str]]:
        """Wait until there is a hint; remove and return some of each root, the newest first and then the oldest.

        So a song that is dropped while a library is copied does not wait for it, and all of the library comes in.
        """
        await self._any.wait()
        taken = {}
        for root, gathered in list(self._paths.items()):
            newest = [gathered.popitem()[0] for _number in range(min(len(gathered), AT_ONCE))]
            oldest = [gathered.popitem(last=False)[0] for _number in range(min(len(gathered), AT_ONCE))]
            taken[root] = newest + oldest
            for path in taken[root]:
                self._new.get(root, {}).pop(path, None)
            if not gathered:
                del self._paths[root]
        if not self._paths:
            self._any.clear()
        self._taken = dict(taken)
        return taken

    def mark_checked(self, root: Root) -> None:
        """Note that the paths that were taken of a root last have been checked."""
        self._taken.pop(root, None)

    def take_new(self) -> dict[Root, list[str]]:
        """Return the paths below each root that nobody has checked yet, each once a hint; they still wait."""
        new = {
            root: [path for path in [*self._taken.get(root, ()), *self._new.get(root, ())] if path]
            for root in self._taken.keys() | self._new.keys()
        }
        self._taken, self._new = {}, {}
        return {root: paths for root, paths in new.items() if paths}


class FolderHints:
    """Folders to walk, as "" or "folder/", each with the moment at which that was said first."""

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

    async def take(self) -> list[tuple[Root, str, float]]:
        """Wait until there is a hint; remove and return all of them, but for folders below others."""
        await self._any.wait()
        self._any.clear()
        taken, self._since = self._since, {}
        return [(root, prefix, gathered[prefix]) for root, gathered in taken.items() for prefix in _topmost(gathered)]


def _topmost(prefixes: Iterable[str]) -> list[str]:
    kept: list[str] = []
    for prefix in sorted(prefixes):
        if not kept or not prefix.startswith(kept[-1]):
            kept.append(prefix)
    return kept
