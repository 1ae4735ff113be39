"""The queue of what to scan and check: any stage that doubts a path adds it, and the scan stages take it."""

import time
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import UTC, datetime

from soulspot.ingest.disk.hints import FolderHints, Hints
from soulspot.ingest.disk.walker import Root


class ScanQueue:
    """Paths to check and folders to scan; adding to it never blocks.

    Args:
        roots: the watched folders.
        last_event: updated with the time of the last event in each root.

    Attributes:
        paths: single paths to check.
        small_folders: folders that a hint named, until they turn out to be large.
        large_folders: whole roots and large folders.

    """

    def __init__(
        self,
        roots: Sequence[Root] = (),
        *,
        last_event: dict[Root, datetime] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._roots = roots
        self._last_event = {} if last_event is None else last_event
        self._clock = clock
        self.paths = Hints()
        self.small_folders = FolderHints()
        self.large_folders = FolderHints()

    def __bool__(self) -> bool:
        return bool(self.paths or self.small_folders or self.large_folders)

    def add_events(self, full_paths: Iterable[str]) -> None:
        """Queue a check of the absolute paths at which the watcher saw events."""
        full_paths = list(full_paths)
        for root in self._roots:
            if below := [path for path in map(root.relative, full_paths) if path is not None]:
                self._last_event[root] = datetime.now(UTC)
                self.paths.add(root, below)

    def enqueue_everything(self) -> None:
        """Queue a scan of all roots: events may have been missed anywhere."""
        for root in self._roots:
            self.enqueue(root, [""])

    def enqueue(self, root: Root, paths: Collection[str]) -> None:
        """Queue checks of paths and scans of folders: "" is the whole root, "folder/" all below a folder."""
        for path in paths:
            if path.endswith("/"):
                self.enqueue_folder(root, path)
        if single := [path for path in paths if not path.endswith("/")]:
            self.paths.add(root, single)

    def enqueue_folder(self, root: Root, prefix: str, since: float | None = None) -> None:
        """Queue a scan of a folder; `since` is the time of the first request, if this one repeats it."""
        folders = self.small_folders if prefix else self.large_folders
        folders.add(root, prefix, self._clock() if since is None else since)
