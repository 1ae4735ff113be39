"""How far the walks of whole folders are: what is counted is counted anyway, and read when somebody looks."""

from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(slots=True)
class Passage:
    """How far a walk of a whole folder is: the files that are done with since it began.

    Attributes:
        passed_over: files that are as the catalogue has them.
        total: files that there are, once somebody has counted them.

    """

    finished: Callable[[], int]
    clock: Callable[[], float]
    passed_over: int = 0
    total: int | None = None
    began: float = field(init=False)
    finished_before: int = field(init=False)

    def __post_init__(self) -> None:
        self.began, self.finished_before = self.clock(), self.finished()

    @property
    def seconds(self) -> float:
        return self.clock() - self.began

    @property
    def done(self) -> int:
        return self.passed_over + self.finished() - self.finished_before
