"""Progress of scans of whole folders, computed only on demand from what the stages count anyway."""

from collections.abc import Callable

from soulspot.ingest.activity import FilesInProgress


class WalkProgress:
    """The progress of a scan of a whole folder.

    Attributes:
        passed_over: the number of unchanged files.
        total: the number of all files, once they are counted.

    """

    def __init__(self, files: FilesInProgress, clock: Callable[[], float]) -> None:
        self._files, self._finished_before = files, files.finished
        self._clock, self._began = clock, clock()
        self.passed_over = 0
        self.total: int | None = None

    @property
    def seconds(self) -> float:
        return self._clock() - self._began

    @property
    def done(self) -> int:
        """The number of files finished since the scan began."""
        return self.passed_over + self._files.finished - self._finished_before
