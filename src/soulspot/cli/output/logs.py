"""Writes log lines to standard error, in the form that fits the reader.

A terminal gets colours, the journal a priority before each line, a program one JSON object a line if configured.
"""

import json
import logging
import os
import select
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final

import typer

from soulspot.cli.output.log_throttle import REPORT_SECONDS, LogThrottle, derive_record, fields_of
from soulspot.cli.output.text import printable
from soulspot.errors import SoulspotError
from soulspot.infrastructure.systemd import priority, stderr_is_the_journal

_LEVELS: Final[Mapping[str, Mapping[str, Any]]] = {
    "DEBUG": {"dim": True},
    "WARNING": {"fg": "yellow"},
    "ERROR": {"fg": "red"},
    "CRITICAL": {"fg": "red", "bold": True},
}
_KINDS: Final = {
    "added": "green", "restored": "green", "updated": "cyan", "moved": "cyan", "missing": "yellow", "failed": "red",
}  # fmt: skip


class _Plain(logging.Formatter):
    """Formats a record so that a file name can neither break the line nor colour it."""

    def __init__(self, time_format: str = "%Y-%m-%d %H:%M:%S") -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(message)s", time_format)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the base class's name
        record.message = printable(record.message)
        return super().formatMessage(record)


class _Journal(_Plain):
    """Leaves out time and level, which the journal records itself."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        return printable(record.message)


class _Coloured(_Plain):
    """Colours the level and the outcome of a file."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        level, message = f"{record.levelname:7}", printable(record.message)
        if style := _LEVELS.get(record.levelname):
            level = typer.style(level, **style)
        kind, _, rest = message.partition(" ")
        if fields_of(record) and kind in _KINDS:
            message = f"{typer.style(kind, fg=_KINDS[kind])} {rest}"
        return f"{typer.style(record.asctime, dim=True)} {level} {message}"


class _Json(logging.Formatter):
    """Formats a record as one JSON object; docs/operations.md promises its fields."""

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds")
        line: dict[str, object] = {
            "time": moment.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **fields_of(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        text = json.dumps(line, ensure_ascii=False, default=str)
        return text if text.isprintable() else "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text)


class _NonBlocking(logging.Handler):
    """Writes to a descriptor without ever blocking: drops and counts the lines that a slow reader does not take."""

    def __init__(self, descriptor: int, *, for_journal: bool) -> None:
        super().__init__()
        self._descriptor, self._for_journal = descriptor, for_journal
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLOUT)
        self._throttle, self._lost, self._is_torn = LogThrottle(), 0, False
        self._timer: threading.Timer | None = None
        self.write_elsewhere: Callable[[str], None] | None = None

    def emit(self, record: logging.LogRecord) -> None:
        counts_every_line = logging.getLogger().isEnabledFor(logging.DEBUG)
        if counts_every_line or not self._throttle.suppresses(record):
            self._write_record(record)
        elif self._timer is None:
            self._timer = threading.Timer(REPORT_SECONDS, self._report_now)
            self._timer.daemon = True
            self._timer.start()

    def flush(self) -> None:
        """Write how many lines were suppressed since the last report."""
        assert self.lock is not None
        with self.lock:
            for record in self._throttle.reports():
                self._write_record(record)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self.flush()
        super().close()

    def _report_now(self) -> None:
        self._timer = None  # first, so that a line suppressed from now on starts a new timer
        self.flush()

    def _write_record(self, record: logging.LogRecord) -> None:
        if self._lost:
            message = "%d lines were lost because the reader was too slow"
            loss = derive_record(record, {"count": self._lost}, message, self._lost)
            loss.levelno, loss.levelname = logging.WARNING, "WARNING"
            if self._write(self.format(loss), loss.levelno):
                self._lost = 0
        if not self._write(self.format(record), record.levelno):
            self._lost += 1

    def _write(self, text: str, level: int) -> bool:
        """Write lines; return False if some were lost. A pipe that is ready takes PIPE_BUF bytes at once (pipe(7))."""
        if self.write_elsewhere is not None:
            self.write_elsewhere(text)
            return True
        if self._for_journal:
            text = "\n".join(f"<{priority(level)}>{line}" for line in text.split("\n"))
        if self._is_torn:  # the rest of the last line was lost: begin a new one
            text = f"\n{text}"
        whole = written = memoryview(f"{text}\n".encode(errors="backslashreplace"))
        try:
            while written and self._poll.poll(0):
                written = written[os.write(self._descriptor, written[: select.PIPE_BUF]) :]
        except OSError:
            return False
        finally:
            self._is_torn = self._is_torn if len(written) == len(whole) else bool(written)
        return not written


def set_up(level: str, form: str = "auto") -> None:
    """Send every log line to standard error; a line that cannot be written is dropped and blocks nothing.

    `form` is the setting `log.format`: auto, plain, colour or json.
    """
    logging.raiseExceptions = False
    for_journal = stderr_is_the_journal()
    try:
        handler: logging.Handler = _NonBlocking(sys.stderr.fileno(), for_journal=for_journal)
    except OSError:  # replaced by a stream in memory, which cannot block
        handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_formatter(form, for_journal=for_journal))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for name in ("alembic", "sqlalchemy", "aiosqlite", "asyncio", "watchfiles"):
        logging.getLogger(name).setLevel(logging.WARNING)
    sys.excepthook = _log_crash


@contextmanager
def written_by(write: Callable[[str], None]) -> Iterator[None]:
    """Pass log lines to `write`, which draws on the same terminal, while the block runs."""
    handlers = [each for each in logging.getLogger().handlers if isinstance(each, _NonBlocking)]
    for handler in handlers:
        handler.write_elsewhere = write
    try:
        yield
    finally:
        for handler in handlers:
            handler.flush()
            handler.write_elsewhere = None


def print_error(error: SoulspotError) -> None:
    """Print the error that ends the program to standard error: a sentence, or a log line if a program reads them."""
    handlers = logging.getLogger().handlers
    if any(isinstance(handler.formatter, (_Json, _Journal)) for handler in handlers):
        logging.getLogger("soulspot").critical("%s", error)
    elif stderr_is_the_journal():
        print(f"<{priority(logging.CRITICAL)}>soulspot: {error}", file=sys.stderr)
    else:
        print(f"soulspot: {error}", file=sys.stderr)


def _formatter(form: str, *, for_journal: bool) -> logging.Formatter:
    if form == "json":
        return _Json()
    if for_journal:
        return _Journal()
    on_terminal = sys.stderr.isatty()
    is_coloured = on_terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM", "") not in {"", "dumb"}
    time_format = "%H:%M:%S" if on_terminal else "%Y-%m-%d %H:%M:%S"
    return _Coloured(time_format) if form == "colour" or (form == "auto" and is_coloured) else _Plain(time_format)


def _log_crash(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, Exception):
        logging.getLogger("soulspot").critical("internal error", exc_info=(kind, error, trace))
    else:
        sys.__excepthook__(kind, error, trace)
