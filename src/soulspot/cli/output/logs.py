"""Where log lines go: standard error, in the form that fits who reads it.

A terminal gets colours, the journal a priority before each line, a program one JSON object a line when asked.
"""

import json
import logging
import os
import select
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from types import TracebackType
from typing import Final

from soulspot.cli.output.log_throttle import EVERY, Folding, fields_of, like
from soulspot.cli.output.text import printable
from soulspot.errors import SoulspotError
from soulspot.infrastructure.systemd import priority, stderr_is_the_journal

_RESET: Final = "\x1b[0m"
_FAINT: Final = "\x1b[2m"
_RED: Final = "\x1b[31m"
_GREEN: Final = "\x1b[32m"
_YELLOW: Final = "\x1b[33m"
_CYAN: Final = "\x1b[36m"
_LEVELS: Final = {"DEBUG": _FAINT, "WARNING": _YELLOW, "ERROR": _RED, "CRITICAL": "\x1b[1;31m"}
_KINDS: Final = {
    "added": _GREEN, "restored": _GREEN, "updated": _CYAN, "moved": _CYAN, "missing": _YELLOW, "failed": _RED,
}  # fmt: skip


class _Plain(logging.Formatter):
    """Formats a record so that a file's name can neither end a line nor colour it."""

    def __init__(self, time_format: str = "%Y-%m-%d %H:%M:%S") -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(message)s", time_format)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the base class's name
        record.message = printable(record.message)
        return super().formatMessage(record)


class _Journal(_Plain):
    """Leaves out what the journal knows by itself."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        return printable(record.message)


class _Coloured(_Plain):
    """Colours the level, and what became of a file."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        level, words = f"{record.levelname:7}", printable(record.message)
        if colour := _LEVELS.get(record.levelname):
            level = f"{colour}{level}{_RESET}"
        kind, _, rest = words.partition(" ")
        if fields_of(record) and (colour := _KINDS.get(kind)):
            words = f"{colour}{kind}{_RESET} {rest}"
        return f"{_FAINT}{record.asctime}{_RESET} {level} {words}"


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
        return text if text.isprintable() else "".join(map(_escaped, text))


def _escaped(character: str) -> str:
    return character if character.isprintable() else json.dumps(character)[1:-1]


class _NeverWaits(logging.Handler):
    """Writes to a descriptor, as long as that does not have to wait: what nobody reads is lost, and counted."""

    def __init__(self, descriptor: int, *, for_journal: bool) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._for_journal = for_journal
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLOUT)
        self._lost = 0
        self._is_torn = False
        self._folding = Folding()
        self._timer: threading.Timer | None = None
        self.write_elsewhere: Callable[[str], None] | None = None

    def emit(self, record: logging.LogRecord) -> None:
        if self._folds and self._folding.takes(record):
            self._count_later()
            return
        self._write_record(record)

    def flush(self) -> None:
        """Write how many were counted since the last time."""
        assert self.lock is not None
        with self.lock:
            for record in self._folding.counts():
                self._write_record(record)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self.flush()
        super().close()

    @property
    def _folds(self) -> bool:
        return not logging.getLogger().isEnabledFor(logging.DEBUG)  # who looks for a fault wants every line

    def _count_later(self) -> None:
        if self._timer is None:
            self._timer = threading.Timer(EVERY, self._count_now)
            self._timer.daemon = True
            self._timer.start()

    def _count_now(self) -> None:
        assert self.lock is not None
        with self.lock:
            self._timer = None
            self.flush()

    def _write_record(self, record: logging.LogRecord) -> None:
        if self._lost:
            told = like(record, {"count": self._lost}, "%d lines were lost, as nobody read them", self._lost)
            told.levelno, told.levelname = logging.WARNING, "WARNING"
            if self._write(self.format(told), told.levelno):
                self._lost = 0
        if not self._write(self.format(record), record.levelno):
            self._lost += 1

    def _write(self, text: str, level: int) -> bool:
        """Write lines; a pipe takes so many bytes at once when it takes any (pipe(7)), so that none waits."""
        if self.write_elsewhere is not None:
            self.write_elsewhere(text)
            return True
        if self._for_journal:
            prefix = f"<{priority(level)}>"
            text = "\n".join(prefix + line for line in text.split("\n"))
        if self._is_torn:  # the rest of a line that was begun is lost: what follows is a line of its own
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
    """Send every log line to standard error; one that cannot be written is lost, and stops nothing.

    `form` is auto, plain, colour or json, as the setting `log.format` has it.
    """
    logging.raiseExceptions = False
    for_journal = stderr_is_the_journal()
    try:
        handler: logging.Handler = _NeverWaits(sys.stderr.fileno(), for_journal=for_journal)
    except OSError:  # it was exchanged for something in memory, which cannot block
        handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_formatter(form, for_journal=for_journal))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for name in ("alembic", "sqlalchemy", "aiosqlite", "asyncio", "watchfiles"):
        logging.getLogger(name).setLevel(logging.WARNING)
    sys.excepthook = _log_the_end


@contextmanager
def written_by(write: Callable[[str], None]) -> Iterator[None]:
    """Have log lines written by another, which draws on the same terminal."""
    handlers = [each for each in logging.getLogger().handlers if isinstance(each, _NeverWaits)]
    for handler in handlers:
        handler.write_elsewhere = write
    try:
        yield
    finally:
        for handler in handlers:
            handler.flush()
            handler.write_elsewhere = None


def say_why_it_ends(error: SoulspotError) -> None:
    """Say on standard error what a person has to mend: in one sentence, or as a log line where a program reads them."""
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


def _log_the_end(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, Exception):
        logging.getLogger("soulspot").critical("ended by a fault of the program", exc_info=(kind, error, trace))
    else:
        sys.__excepthook__(kind, error, trace)
