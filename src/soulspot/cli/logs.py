"""Where log lines go: standard error, with the journal's priorities where the journal reads it."""

import logging
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


def set_up(level: str) -> None:
    """Send every log line to standard error; one that cannot be written is lost, and stops nothing."""
    logging.raiseExceptions = False
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Lines(for_journal=stderr_is_the_journal()))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for name in ("alembic", "sqlalchemy", "aiosqlite", "asyncio", "watchfiles"):
        logging.getLogger(name).setLevel(logging.WARNING)
