"""Errors that come again and again: the first few are lines of their own, the others a number now and then.

A disk that cannot be read makes ten thousand lines that differ in nothing but the file. Kinds are told apart by the
error code of a file, else by the words before the names are filled in, so that kinds that come in turn are counted each
for itself. What became of a file that is well is never counted: that is no error.
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

FIRST: Final = 10
"""Lines of one kind that are written before the others are counted."""
EVERY: Final = 10.0
"""Seconds between two lines that say how many there were; after as many without one, a kind is new again."""


@dataclass(slots=True)
class _Storm:
    last: logging.LogRecord
    last_at: float
    written: int = 0
    counted: int = 0


class Folding:
    """Knows how often each kind of error came lately."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._storms: dict[tuple[str, str], _Storm] = {}
        self._last_words = ""

    def takes(self, record: logging.LogRecord) -> bool:
        """Whether a record is counted, and not to be written."""
        words, before = record.getMessage(), self._last_words
        self._last_words = words
        kind = _kind_of(record)
        if kind is None:
            return False
        now = self._clock()
        storm = self._storms.get(kind)
        if storm is None or (not storm.counted and now - storm.last_at > EVERY):
            storm = self._storms[kind] = _Storm(record, now)
        storm.last, storm.last_at = record, now
        if storm.written < FIRST and words != before:
            storm.written += 1
            return False
        storm.counted += 1
        return True

    def counts(self) -> Iterator[logging.LogRecord]:
        """Yield a record for what was counted since the last time: one for all files, one for each other kind."""
        codes: dict[str, int] = {}
        last_file: logging.LogRecord | None = None
        for storm in self._storms.values():
            count, storm.counted = storm.counted, 0
            if not count:
                continue
            if code := fields_of(storm.last).get("code"):
                codes[str(code)] = count
                last_file = storm.last
            else:
                yield like(storm.last, {"count": count}, "%d more lines such as: %s", count, storm.last.getMessage())
        if last_file is not None:
            count, listed = sum(codes.values()), ", ".join(f"{count} {code}" for code, count in sorted(codes.items()))
            fields = {"kind": "failed", "count": count, "codes": codes}
            yield like(last_file, fields, "failed %d more: %s; `soulspot failures list` has each", count, listed)


def fields_of(record: logging.LogRecord) -> Mapping[str, object]:
    """Return what a record says besides its words; of one that is about a file: what became of it, and where."""
    fields: Mapping[str, object] = getattr(record, "fields", {})
    return fields


def like(record: logging.LogRecord, fields: Mapping[str, object], words: str, *arguments: object) -> logging.LogRecord:
    """Return a record of the same origin and gravity that says something else."""
    made = logging.LogRecord(record.name, record.levelno, "", 0, words, arguments, exc_info=None)
    made.__dict__["fields"] = fields
    return made


def _kind_of(record: logging.LogRecord) -> tuple[str, str] | None:
    """Return what others of the same kind have too, None where each is worth a line."""
    if record.levelno < logging.WARNING or record.levelno >= logging.CRITICAL or record.exc_info:
        return None
    fields = fields_of(record)
    if "kind" in fields:
        return ("failed", str(fields["code"])) if fields["kind"] == "failed" else None
    return (record.name, str(record.msg))
