"""The outcome of a file, and the state of the pipeline: what the ingest reports to the rest."""

from dataclasses import dataclass
from typing import Final

from soulspot.ingest.pause_gate import Paused


class StaleError(Exception):
    """The catalogue changed between the check of a file and its transaction: check the file again."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of processing a file: added, updated, moved, missing, restored, failed, unchanged or purged."""

    kind: str
    path: str  # absolute, escaped as in the catalogue
    track_id: str | None = None
    detail: str = ""
    code: str | None = None  # why it failed
    waited: float | None = None  # seconds from its last change to the commit, if it changed while soulspot ran


@dataclass(frozen=True, slots=True)
class PipelineStats:
    """The progress of the pipeline.

    Attributes:
        finished: files finished since the start; it only grows.
        in_hand: files that are complete but not finished.
        settling: files that are still being written.
        oldest: the age of the oldest of both, in seconds.
        paused: why the database refuses, None while it answers.
        held_up: the pause that a person began, None while ingest runs.

    """

    finished: int
    in_hand: int
    settling: int
    oldest: float
    paused: str | None
    held_up: Paused | None = None


KINDS: Final = ("added", "updated", "moved", "missing", "restored", "failed", "unchanged")
