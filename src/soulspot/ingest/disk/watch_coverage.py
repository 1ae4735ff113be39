"""Which folders the watcher watches, and which have to be polled instead: scans find them, polling acts on it."""

import asyncio
from collections.abc import Callable, Collection

from soulspot.ingest.disk.walker import FoundFolder, Root

WatchedFolders = Callable[[], Collection[tuple[int, int]]]
"""Returns device and inode of every folder that the watcher watches; blocks."""


class WatchCoverage:
    """The folders that the watcher does not watch.

    Args:
        watched: None if there is no watcher, so that no folder counts as unwatched.

    Attributes:
        unwatched: folders that are found unwatched, for polling to see to.
        polled: folders that cannot be watched, and are polled instead.

    """

    def __init__(self, watched: WatchedFolders | None = None) -> None:
        self._watched = watched
        self.unwatched: asyncio.Queue[tuple[Root, list[str]]] = asyncio.Queue()
        self.polled: dict[Root, set[str]] = {}

    @property
    def has_watcher(self) -> bool:
        return self._watched is not None

    async def watched(self) -> Collection[tuple[int, int]] | None:
        """Return the folders that are watched now; None if there is no watcher."""
        return None if self._watched is None else await asyncio.to_thread(self._watched)

    def unwatched_of(
        self, root: Root, folders: Collection[FoundFolder], watched: Collection[tuple[int, int]] | None
    ) -> list[FoundFolder]:
        """Return the folders that are neither watched nor polled."""
        if watched is None:
            return []
        polled = self.polled.get(root, ())
        unwatched = [each for each in folders if (each.device, each.inode) not in watched]
        return [each for each in unwatched if each.path not in polled]

    def report_unwatched(self, root: Root, paths: list[str]) -> None:
        """Have polling see to folders that stay unwatched."""
        self.unwatched.put_nowait((root, paths))
