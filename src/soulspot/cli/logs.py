"""Where log lines go: standard error, with the journal's priorities where the journal reads it."""

import logging
import os
import select
import sys
from typing import Final

from soulspot.cli.text import printable
from soulspot.infrastructure.systemd import priority, stderr_is_the_journal

_PLAIN: Final = "%(asctime)s %(levelname)-7s %(message)s"


class _Lines(logging.Formatter):
    """Formats a record so that a file's name can neither end a line nor colour it."""

    def __init__(self, *, for_journal: bool) -> None:
        super().__init__("%(message)s" if for_journal else _PLAIN, "%H:%M:%S")
        self._for_journal = for_journal

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the base class's name
        record.message = printable(record.message)
        return super().formatMessage(record)

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        if not self._for_journal:
            return text
        prefix = f"<{priority(record.levelno)}>"
        return "\n".join(prefix + line for line in text.split("\n"))


class _NeverWaits(logging.Handler):
    """Writes to a descriptor, as long as that does not have to wait: what nobody reads is lost, and counted.

    The same words again and again are one line, and later how often they came.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLOUT)
        self._lost = 0
        self._last = ""
        self._repeated = 0

    def emit(self, record: logging.LogRecord) -> None:
        words = record.getMessage()
        if words == self._last and record.levelno >= logging.WARNING and not record.exc_info:
            self._repeated += 1
            return
        if self._repeated:
            self._write_count("the last line came %d times more", self._repeated, record)
        if self._lost and self._write_count("%d lines were lost, as nobody read them", self._lost, record):
            self._lost = 0
        self._last, self._repeated = words, 0
        if not self._write(self.format(record)):
            self._lost += 1

    def _write_count(self, words: str, count: int, like: logging.LogRecord) -> bool:
        return self._write(
            self.format(logging.LogRecord(like.name, logging.WARNING, "", 0, words, (count,), exc_info=None))
        )

    def _write(self, text: str) -> bool:
        """Write lines; a pipe takes so many bytes at once when it takes any (pipe(7)), so that none waits."""
        written = memoryview(f"{text}\n".encode(errors="backslashreplace"))
        try:
            while written and self._poll.poll(0):
                written = written[os.write(self._descriptor, written[: select.PIPE_BUF]) :]
        except OSError:
            return False
        return not written


def set_up(level: str) -> None:
    """Send every log line to standard error; one that cannot be written is lost, and stops nothing."""
    logging.raiseExceptions = False
    try:
        handler: logging.Handler = _NeverWaits(sys.stderr.fileno())
    except OSError:  # it was exchanged for something in memory, which cannot block
        handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Lines(for_journal=stderr_is_the_journal()))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for name in ("alembic", "sqlalchemy", "aiosqlite", "asyncio", "watchfiles"):
        logging.getLogger(name).setLevel(logging.WARNING)
