"""Records which folders the watcher watches, and which are polled instead: scans report them, polling reads them."""

import asyncio
from collections.abc import Callable, Collection

from soulspot.ingest.disk.walker import FoundFolder, Root


class WatchCoverage:
    """The folders that the watcher does not watch.

    Args:
        watched: returns device and inode of every folder that the watcher watches, and blocks; None if there is no
            watcher, and then no folder counts as unwatched.

    Attributes:
        unwatched: folders found unwatched, which polling takes and handles.
        polled: folders that cannot be watched, and are polled instead.

    """

    def __init__(self, watched: Callable[[], Collection[tuple[int, int]]] | None = None) -> None:
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
        return [each for each in folders if (each.device, each.inode) not in watched and each.path not in polled]
