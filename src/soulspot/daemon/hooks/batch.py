"""What happened since the last time that somebody was told: many changes as one batch, in a room that is bounded."""

import json
import os
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from soulspot.daemon.events import Happened, News

VERSION: Final = 1
"""Of the payload: it grows when a field changes its meaning or goes; a new field is no new version."""
_SILENT: Final = "unchanged"


@dataclass(slots=True)
class Batch:
    """Changes in their order; of more than `limit` files, and folders, the first are named and the rest is counted."""

    limit: int
    counts: Counter[str] = field(default_factory=Counter)
    changes: list[Happened] = field(default_factory=list)
    folders: dict[str, None] = field(default_factory=dict)
    began: datetime | None = None
    ended: datetime | None = None
    is_cut: bool = False

    def __bool__(self) -> bool:
        return bool(self.counts) or self.is_cut

    def __len__(self) -> int:
        return self.counts.total()

    def add(self, news: News) -> None:
        """Take in what happened; what there was no room for is told as cut."""
        self.is_cut = self.is_cut or news.lost > 0
        for happened in news.happened:
            if (kind := happened.outcome.kind) != _SILENT:
                self.counts[kind] += 1
                self._name(happened)
                self._span(happened.at, happened.at)

    def follow(self, later: "Batch") -> None:
        """Take in a batch that came after this one, which could not be told."""
        self.counts += later.counts
        self.is_cut = self.is_cut or later.is_cut
        for happened in later.changes:
            self._name(happened)
        self._name_folders(later.folders)
        if later.began is not None and later.ended is not None:
            self._span(later.began, later.ended)

    def _span(self, began: datetime, ended: datetime) -> None:
        self.began, self.ended = self.began or began, ended

    def _name(self, happened: Happened) -> None:
        if len(self.changes) < self.limit:
            self.changes.append(happened)
        else:
            self.is_cut = True
        self._name_folders(_folders_of(happened))

    def _name_folders(self, folders: Iterable[str]) -> None:
        for folder in folders:
            if folder in self.folders:
                continue
            if len(self.folders) < self.limit:
                self.folders[folder] = None
            else:
                self.is_cut = True

    def payload(self, *, run: str, node: str, number: int, roots: Collection[str]) -> bytes:
        """Return the batch as JSON; `roots` are the watched folders, of which those are named that have a change."""
        touched = [root for root in roots if any(f"{each}/".startswith(f"{root}/") for each in self.folders)]
        told: dict[str, Any] = {
            "version": VERSION,
            "event": "batch",
            "node": node,
            "run": run,
            "batch": number,
            "began": self.began.isoformat() if self.began else None,
            "ended": self.ended.isoformat() if self.ended else None,
            "counts": dict(self.counts),
            "library": touched,
            "folders": list(self.folders),
            "changes": [_told(happened) for happened in self.changes],
            "cut": self.is_cut,
        }
        return json.dumps(told, ensure_ascii=False).encode()


def _folders_of(happened: Happened) -> Iterable[str]:
    """Yield the folder of a changed file, and the one that it was moved from."""
    outcome = happened.outcome
    yield os.path.dirname(outcome.path)
    if outcome.kind == "moved":
        yield os.path.dirname(outcome.detail.removeprefix("from "))


def _told(happened: Happened) -> dict[str, Any]:
    outcome = happened.outcome
    told = {"at": happened.at.isoformat(), "kind": outcome.kind, "path": outcome.path, "track_id": outcome.track_id}
    return told | ({"detail": outcome.detail} if outcome.detail else {})
