"""What a person wants left alone: `.soulspotignore` files, written as a .gitignore is, and the setting library.ignore.

A rule counts for the folder that its file lies in and for all below; of several that match, the deepest and last one
decides, and `!` takes back. A file in a folder that is left alone cannot be taken back.

Whoever may write to a music folder may write such files, so they get no more than their due: only a regular file is
read, no link is followed, and its size, the number and length of its rules, and what counts in one folder have bounds.
Each bound that is reached is a warning. Whatever the rules are, a path is matched in time linear in its length.
"""

import errno
import logging
import os
import stat
import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from soulspot.infrastructure.filesystem import NotRegularFileError, open_regular, path_to_text
from soulspot.ingest.disk.glob_automaton import Automaton, Glob

logger = logging.getLogger(__name__)

IGNORE_FILE: Final = ".soulspotignore"
FILE_LIMIT: Final = 32 << 10
"""Bytes of an ignore file; what lies beyond is not in force."""
RULE_LIMIT: Final = 1 << 10
"""Bytes of one rule."""
RULES_LIMIT: Final = 1000
"""Rules of one file."""
IN_FORCE_LIMIT: Final = 64 << 10
"""Bytes of all the rules that count in one folder: its own, and those of the folders above it."""
READ_LIMIT: Final = 5.0
"""Seconds in which an ignore file has to be read."""
_KEPT_LIMIT: Final = 32 << 20
"""Bytes of memory that the rules of files may take; those that were not needed for longest are read again."""
_EACH_TAKES: Final = 1000
"""Bytes that a rule takes for itself, about, and a file that has none."""
_SHOWN: Final = 100
"""Characters of a rule that a message shows."""

_NO_RULES: Final = frozenset((errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG))
"""What says that there are none, or none for us; anything else, that the disk does not answer."""


class Rule(NamedTuple):
    """One rule: the number of its line, or 0 for one of the settings; the start of its text; whether it takes back."""

    line: int
    text: str
    is_negative: bool


class Rules:
    """The rules of one place: `folder` is where they count from ("" or "folder/"), `source` what they stand in.

    Attributes:
        size: bytes of their text.
        memory: bytes that they take, about.
        is_refused: whether it was said that they are not in force.

    """

    def __init__(self, source: str, folder: str, rules: Sequence[tuple[Rule, Glob]], size: int) -> None:
        self.source = source
        self.size = size
        self.is_refused = False
        self._cut = len(folder)
        self._rules = [rule for rule, _glob in rules]
        numbered = [(number, glob) for number, (_rule, glob) in enumerate(rules)]
        self._names = Automaton((number, glob) for number, glob in numbered if glob.name_only)
        self._paths = Automaton((number, glob) for number, glob in numbered if not glob.name_only)
        self._above = "", self._paths.start  # the folder that was asked about last, and what it left behind
        self.memory = self._names.size + self._paths.size + _EACH_TAKES * (len(rules) + 1)

    def deciding(self, path: str, *, is_folder: bool) -> Rule | None:
        """Return the last rule that matches a path below the root, whatever it says; None where none does."""
        above, slash, name = path[self._cut :].rpartition("/")
        encoded = os.fsencode(name)
        found = self._names.last(self._names.read(self._names.start, encoded), is_folder=is_folder)
        if self._paths.start:
            known, states = self._above
            if known != above:
                states = self._paths.read(self._paths.start, os.fsencode(above + slash))
                self._above = above, states
            found = max(found, self._paths.last(self._paths.read(states, encoded), is_folder=is_folder))
        return self._rules[found] if found >= 0 else None


Chain = tuple[Rules, ...]
"""The rules that count in a folder, the deepest last."""

_Stamp = tuple[int, ...]


class Ignoring:
    """The rules for one watched folder."""

    def __init__(self, patterns: Sequence[str] = ()) -> None:
        given = ((0, os.fsencode(pattern)) for pattern in patterns)
        self._of_settings: Chain = (_rules("library.ignore", "", given),) if patterns else ()
        self._known: OrderedDict[str, tuple[_Stamp, Rules | None]] = OrderedDict()
        self._kept = 0
        self._reads: dict[str, _Read] = {}
        self._lock = threading.Lock()  # several threads walk

    def chain(self, root: str, folder: str) -> Chain:
        """Return the rules that count in `folder` ("" or "folder/"), of itself and of all above; blocks."""
        chain = self._of_settings
        end = 0
        while True:
            chain = self.extended(chain, root, folder[:end])
            if end == len(folder):
                return chain
            end = folder.index("/", end) + 1

    def extended(self, chain: Chain, root: str, folder: str) -> Chain:
        """Return the rules that count in a folder, given those that count in the one above it; blocks.

        Raises OSError where the disk does not answer: without its rules nothing is known of what is in the folder.
        """
        path = os.path.join(root, folder, IGNORE_FILE)
        try:
            status = os.lstat(path)
        except OSError as error:
            if error.errno not in _NO_RULES:
                raise
            with self._lock:
                self._drop(path)
            return chain
        rules = self._rules_in(path, folder, status)
        if rules is None or not rules.size:
            return chain
        if sum(each.size for each in chain) + rules.size > IN_FORCE_LIMIT:
            if not rules.is_refused:
                rules.is_refused = True
                logger.warning("rules of more than %d bytes in one folder: those in %s are not in force",
                               IN_FORCE_LIMIT, path_to_text(path))  # fmt: skip
            return chain
        return (*chain, rules)

    def _rules_in(self, path: str, folder: str, status: os.stat_result) -> Rules | None:
        """Return what a file says, read again where it is another than it was."""
        stamp = status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_mode
        with self._lock:
            known = self._known.get(path)
            if known is not None and known[0] == stamp:
                self._known.move_to_end(path)
                return known[1]
        rules = self._read(path, folder, status)
        with self._lock:
            self._drop(path)
            self._known[path] = stamp, rules
            self._kept += _memory(rules)
            while self._kept > _KEPT_LIMIT:
                self._drop(next(iter(self._known)))
        return rules

    def _drop(self, path: str) -> None:
        if (known := self._known.pop(path, None)) is not None:
            self._kept -= _memory(known[1])

    def _read(self, path: str, folder: str, status: os.stat_result) -> Rules | None:
        shown = path_to_text(path)
        if not stat.S_ISREG(status.st_mode):
            logger.warning(
                "cannot read the rules in %s: it is not a regular file, and soulspot follows no links", shown
            )
            return None
        try:
            content = self._content(path)
        except NotRegularFileError:  # by now
            return None
        except OSError as error:
            if error.errno not in _NO_RULES:
                raise
            logger.warning("cannot read the rules in %s: %s", shown, error.strerror)
            return None
        if len(content) > FILE_LIMIT:
            logger.warning("an ignore file of more than %d bytes: the rest of %s is not in force", FILE_LIMIT, shown)
            content = content[:FILE_LIMIT].rpartition(b"\n")[0]
        lines = content.removeprefix(b"\xef\xbb\xbf").split(b"\n")
        return _rules(shown, folder, enumerate(lines, 1))

    def _content(self, path: str) -> bytes:
        """Return the first bytes of a file, one more than may count; raises TimeoutError where they do not come."""
        with self._lock:
            read = self._reads.get(path)
            if read is None:
                read = self._reads[path] = _Read(path)
                read.start()
        read.join(READ_LIMIT)
        if read.is_alive():  # it is not asked for a second time, until it has ended
            raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT), path)
        with self._lock:
            self._reads.pop(path, None)
        if read.error is not None:
            raise read.error
        return read.content


class _Read(threading.Thread):
    """One read of a file in a thread of its own: nothing else ends a read that the disk does not answer."""

    def __init__(self, path: str) -> None:
        super().__init__(name=f"read {path_to_text(path)}", daemon=True)
        self.content = b""
        self.error: OSError | None = None
        self._path = path

    def run(self) -> None:
        try:
            descriptor = open_regular(self._path)
            try:
                while len(self.content) <= FILE_LIMIT and (more := os.read(descriptor, FILE_LIMIT)):
                    self.content += more
            finally:
                os.close(descriptor)
        except OSError as error:
            self.error = error


def rule_against(chain: Chain, path: str, *, is_folder: bool) -> str | None:
    """Return the rule by which a path is left alone, and where it stands; None where none does."""
    for rules in reversed(chain):
        if (rule := rules.deciding(path, is_folder=is_folder)) is not None:
            return None if rule.is_negative else _place(rules.source, rule.line, rule.text)
    return None


def _place(source: str, line: int, text: str) -> str:
    """Return a rule, and where it stands."""
    return f"{source}, line {line}: {text}" if line else f"{source}: {text}"


def _memory(rules: Rules | None) -> int:
    return rules.memory if rules is not None else _EACH_TAKES


def _rules(source: str, folder: str, lines: Iterable[tuple[int, bytes]]) -> Rules:
    """Return the rules of one place, as far as they are within bounds and mean something."""
    rules: list[tuple[Rule, Glob]] = []
    size, faults = 0, list[str]()
    for number, line in lines:
        pattern = _pattern_of(line)
        if pattern is None:
            continue
        text = path_to_text(os.fsdecode(pattern))
        place = _place(source, number, text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…")
        if len(rules) == RULES_LIMIT:
            logger.warning("more than %d rules: those from here on are not in force: %s", RULES_LIMIT, place)
            break
        if len(pattern) > RULE_LIMIT:
            faults.append(f"{place} (it is longer than {RULE_LIMIT} bytes)")
            continue
        try:
            glob = Glob.parse(pattern)
        except ValueError as error:
            faults.append(f"{place} ({error})")
            continue
        rules.append((Rule(number, text[:_SHOWN], glob.is_negative), glob))
        size += len(pattern)
    if faults:
        more = f", and {len(faults) - 1} more" if len(faults) > 1 else ""
        logger.warning("a rule that means nothing is passed over: %s%s", faults[0], more)
    return Rules(source, folder, rules, size)


def _pattern_of(line: bytes) -> bytes | None:
    r"""Return the pattern of a line as git takes it, without spaces behind it (but `\ `); None where there is none."""
    if not line or line.startswith(b"#"):
        return None
    pattern = line.removesuffix(b"\r").partition(b"\0")[0]
    end, is_escaped = 0, False
    for at, byte in enumerate(pattern, 1):
        if byte != ord(" ") or is_escaped:
            end = at
        is_escaped = byte == ord("\\") and not is_escaped
    return pattern[:end] or None
