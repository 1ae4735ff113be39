"""Collects the changes since the last delivery into one batch of bounded size."""

import json
import os
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from soulspot.daemon.events import EventBatch, FileEvent

PAYLOAD_VERSION: Final = 1
"""Rises when a field changes its meaning or disappears, not for a new field."""


@dataclass(slots=True)
class Batch:
    """Changes in order. Holds the first `limit` files and folders, and counts the rest."""

    limit: int
    counts: Counter[str] = field(default_factory=Counter)
    changes: list[FileEvent] = field(default_factory=list)
    folders: dict[str, None] = field(default_factory=dict)
    began: datetime | None = None
    ended: datetime | None = None
    is_cut: bool = False

    def __bool__(self) -> bool:
        return bool(self.counts) or self.is_cut

    def __len__(self) -> int:
        return self.counts.total()

    def add(self, events: EventBatch) -> None:
        """Add changes; the batch is cut if events were lost."""
        self.is_cut = self.is_cut or events.lost > 0
        for event in events.events:
            if (kind := event.outcome.kind) != "unchanged":
                self.counts[kind] += 1
                self._add_change(event)
                self._extend_period(event.at, event.at)

    def merge(self, later: "Batch") -> None:
        """Add a later batch to this undelivered one."""
        self.counts += later.counts
        self.is_cut = self.is_cut or later.is_cut
        for change in later.changes:
            self._add_change(change)
        self._add_folders(later.folders)
        if later.began is not None and later.ended is not None:
            self._extend_period(later.began, later.ended)

    def _extend_period(self, began: datetime, ended: datetime) -> None:
        self.began, self.ended = self.began or began, ended

    def _add_change(self, event: FileEvent) -> None:
        if len(self.changes) < self.limit:
            self.changes.append(event)
        else:
            self.is_cut = True
        self._add_folders(_folders_of(event))

    def _add_folders(self, folders: Iterable[str]) -> None:
        for folder in folders:
            if len(self.folders) < self.limit:
                self.folders[folder] = None
            elif folder not in self.folders:
                self.is_cut = True

    def payload(self, *, run: str, node: str, number: int, roots: Collection[str]) -> bytes:
        """Return the batch as JSON; it names those watched folders of `roots` that have a change."""
        touched = [root for root in roots if any(f"{each}/".startswith(f"{root}/") for each in self.folders)]
        payload = {
            "version": PAYLOAD_VERSION,
            "event": "batch",
            "node": node,
            "run": run,
            "batch": number,
            "began": self.began.isoformat() if self.began else None,
            "ended": self.ended.isoformat() if self.ended else None,
            "counts": dict(self.counts),
            "library": touched,
            "folders": list(self.folders),
            "changes": [_change(event) for event in self.changes],
            "cut": self.is_cut,
        }
        return json.dumps(payload, ensure_ascii=False).encode()


def _folders_of(event: FileEvent) -> Iterable[str]:
    """Yield the folder of a changed file, and the folder it was moved from."""
    outcome = event.outcome
    yield os.path.dirname(outcome.path)
    if outcome.kind == "moved":
        yield os.path.dirname(outcome.detail.removeprefix("from "))


def _change(event: FileEvent) -> dict[str, Any]:
    outcome = event.outcome
    change = {"at": event.at.isoformat(), "kind": outcome.kind, "path": outcome.path, "track_id": outcome.track_id}
    return change | ({"detail": outcome.detail} if outcome.detail else {})
