"""The dirty set: paths that somebody said to look at, each once however often it was said.

It never blocks who adds to it, and it is bounded: where too many paths of one root gather, the root itself takes their
place, and looking at it finds them all.
"""

import asyncio
from collections.abc import Iterable

from soulspot.ingest.scanner import Root


class Hints:
    def __init__(self, limit: int = 50_000) -> None:
        self._limit = limit
        self._paths: dict[Root, set[str]] = {}
        self._any = asyncio.Event()

    def __bool__(self) -> bool:
        return bool(self._paths)

    def add(self, root: Root, paths: Iterable[str]) -> None:
        """Remember paths below a root; "" is the whole root."""
        gathered = self._paths.setdefault(root, set())
        gathered.update(paths)
        if "" in gathered or len(gathered) > self._limit:
            self._paths[root] = {""}
        self._any.set()

    async def take(self) -> dict[Root, set[str]]:
        """Wait until there is a hint; remove and return all of them."""
        await self._any.wait()
        self._any.clear()
        taken, self._paths = self._paths, {}
        return taken
