"""What became of a file, as every stage and every reader of events says it."""

from dataclasses import dataclass
from typing import Final

from soulspot.ingest.pause_gate import Paused


class StaleError(Exception):
    """The catalogue changed between the check of a file and its transaction: check the file again."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a file: added, updated, moved, missing, restored, failed or unchanged."""

    kind: str
    path: str  # the whole path, escaped as the catalogue writes it
    track_id: str | None = None
    detail: str = ""
    code: str | None = None  # why it failed
    waited: float | None = None  # seconds from its last change to this, where it changed while soulspot watched


@dataclass(frozen=True, slots=True)
class PipelineStats:
    """How far the pipeline is.

    Attributes:
        finished: files that were done with since the start; it only grows.
        in_hand: files that are complete and not done with.
        settling: files that are waited for to be complete.
        oldest: seconds for which one of them has been in here.
        paused: why the database refuses, None while it answers.
        held_up: who paused the ingest, None while nobody did.

    """

    finished: int
    in_hand: int
    settling: int
    oldest: float
    paused: str | None
    held_up: Paused | None = None


KINDS: Final = ("added", "updated", "moved", "missing", "restored", "failed", "unchanged")
