"""What is to be scanned or checked: whoever has doubts about a path adds it here, and the scan stage takes it."""

import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime

from soulspot.ingest.disk.hints import FolderHints, Hints
from soulspot.ingest.disk.walker import Root


class ScanQueue:
    """Paths to check and folders to scan; adding to it never blocks.

    Args:
        roots: the watched folders that events are sorted by.
        last_event: updated with the time of the last event in each root.

    Attributes:
        paths: single paths to check.
        small_folders: folders that a hint named, scanned while they are small.
        large_folders: whole roots, and folders that turned out to be large.

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
        """Have absolute paths checked at which the watcher saw something happen."""
        full_paths = list(full_paths)
        for root in self._roots:
            below = [path for path in map(root.relative, full_paths) if path is not None]
            if below:
                self._last_event[root] = datetime.now(UTC)
                self.paths.add(root, below)

    def enqueue_everything(self) -> None:
        """Have all roots scanned: anything may have happened in them unseen."""
        for root in self._roots:
            self.enqueue(root, [""])

    def enqueue(self, root: Root, paths: Iterable[str]) -> None:
        """Have paths checked: "" is the whole root, "folder/" all below a folder."""
        single = []
        for path in paths:
            if path.endswith("/"):
                self.enqueue_folder(root, path)
            else:
                single.append(path)
        if single:
            self.paths.add(root, single)

    def enqueue_folder(self, root: Root, prefix: str, since: float | None = None) -> None:
        """Have a folder scanned; `since` is when that was asked for first, if it is scanned once more."""
        folders = self.small_folders if prefix else self.large_folders
        folders.add(root, prefix, self._clock() if since is None else since)
