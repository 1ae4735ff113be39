"""Progress of scans of whole folders, computed only on demand from what the stages count anyway."""

from collections.abc import Callable
from dataclasses import dataclass, field

from soulspot.ingest.activity import FilesInProgress


@dataclass(slots=True)
class WalkProgress:
    """How far a scan of a whole folder is.

    Attributes:
        passed_over: the number of unchanged files.
        total: the number of all files, once they are counted.

    """

    files: FilesInProgress
    clock: Callable[[], float]
    passed_over: int = 0
    total: int | None = None
    began: float = field(init=False)
    finished_before: int = field(init=False)

    def __post_init__(self) -> None:
        self.began, self.finished_before = self.clock(), self.files.finished

    @property
    def seconds(self) -> float:
        return self.clock() - self.began

    @property
    def done(self) -> int:
        """The number of files finished since the scan began."""
        return self.passed_over + self.files.finished - self.finished_before
