"""Throttles repeated errors: logs the first few of a kind, then only how many more there were.

A failing disk makes ten thousand lines that differ only in the file. The kind of a record is the error code of its
file, or its message before the arguments are filled in. Of the outcomes of files, only failures are throttled.
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

FIRST: Final = 10
"""Lines of one kind that are written before the rest is only counted."""
REPORT_SECONDS: Final = 10.0
"""Seconds between two reports of the counts; a kind that pauses for longer starts from the beginning."""


@dataclass(slots=True)
class _Burst:
    last: logging.LogRecord
    last_at: float
    written: int = 0
    counted: int = 0


class LogThrottle:
    """Counts how often each kind of error came lately."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._bursts: dict[tuple[str, str], _Burst] = {}
        self._last_message = ""

    def suppresses(self, record: logging.LogRecord) -> bool:
        """Whether a record is only counted and must not be written."""
        message, before = record.getMessage(), self._last_message
        self._last_message = message
        kind = _kind_of(record)
        if kind is None:
            return False
        now = self._clock()
        burst = self._bursts.get(kind)
        if burst is None or (not burst.counted and now - burst.last_at > REPORT_SECONDS):
            burst = self._bursts[kind] = _Burst(record, now)
        burst.last, burst.last_at = record, now
        if burst.written < FIRST and message != before:
            burst.written += 1
            return False
        burst.counted += 1
        return True

    def reports(self) -> Iterator[logging.LogRecord]:
        """Yield a record with the counts since the last report: one for all files, one for each other kind."""
        codes: dict[str, int] = {}
        last_file: logging.LogRecord | None = None
        for burst in self._bursts.values():
            count, burst.counted = burst.counted, 0
            if not count:
                continue
            if code := fields_of(burst.last).get("code"):
                codes[str(code)] = count
                last_file = burst.last
            else:
                yield derive_record(
                    burst.last, {"count": count}, "%d more lines such as: %s", count, burst.last.getMessage()
                )
        if last_file is not None:
            count, listed = sum(codes.values()), ", ".join(f"{count} {code}" for code, count in sorted(codes.items()))
            fields = {"kind": "failed", "count": count, "codes": codes}
            message = "failed %d more: %s; `soulspot failures list` shows each"
            yield derive_record(last_file, fields, message, count, listed)


def fields_of(record: logging.LogRecord) -> Mapping[str, object]:
    """Return the structured fields of a record; those of a record about a file are its outcome and path."""
    fields: Mapping[str, object] = getattr(record, "fields", {})
    return fields


def derive_record(
    record: logging.LogRecord, fields: Mapping[str, object], message: str, *arguments: object
) -> logging.LogRecord:
    """Return a copy of a record with another message."""
    derived = logging.LogRecord(record.name, record.levelno, "", 0, message, arguments, exc_info=None)
    derived.__dict__["fields"] = fields
    return derived


def _kind_of(record: logging.LogRecord) -> tuple[str, str] | None:
    """Return the kind of a record, None if it is never throttled."""
    if record.levelno < logging.WARNING or record.levelno >= logging.CRITICAL or record.exc_info:
        return None
    fields = fields_of(record)
    if "kind" in fields:
        return ("failed", str(fields["code"])) if fields["kind"] == "failed" else None
    return (record.name, str(record.msg))
