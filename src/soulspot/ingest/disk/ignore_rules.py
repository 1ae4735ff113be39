"""Applies ignore rules: those of `.soulspotignore` files, in the syntax of .gitignore, and the setting library.ignore.

A rule applies to the folder of its file and to everything below. Of several rules that match a path, the last one in
the deepest file decides. A rule that begins with `!` includes a path again, but not inside an ignored folder.

Anybody who can write to a music folder can write such files, so they are not trusted: soulspot reads only regular
files, follows no links, and limits the size of a file, the number and length of its rules, and the total that applies
in one folder. It logs a warning when a file exceeds a limit. Matching takes time linear in the length of the path,
whatever the rules are.
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
"""Bytes of an ignore file; the rest is ignored."""
RULE_LIMIT: Final = 1 << 10
"""Bytes of one rule."""
RULES_LIMIT: Final = 1000
"""Rules of one file."""
FOLDER_LIMIT: Final = 64 << 10
"""Bytes of all rules that apply in one folder: its own, and those of the folders above it."""
READ_LIMIT: Final = 5.0
"""Seconds that reading an ignore file may take."""
_CACHE_LIMIT: Final = 32 << 20
"""Bytes of memory for parsed ignore files; the least recently used ones are dropped, and read again when needed."""
_RULE_OVERHEAD: Final = 1000
"""Approximate bytes of memory for a rule, and for a file without rules, besides their automata."""
_MAX_SHOWN: Final = 100
"""Characters of a rule that a message quotes."""

_NO_FILE: Final = frozenset((errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG))
"""Errors of a file that does not exist or is not readable; any other error means that the disk does not answer."""


class Rule(NamedTuple):
    """One rule: its line number (0 in the settings), the start of its text, and whether it begins with `!`."""

    line: int
    text: str
    is_negative: bool


class Rules:
    """The rules of one file, or of the settings.

    Args:
        source: the path of the file, or the name of the setting, for messages.
        folder: the folder to which they apply ("" or "folder/").
        rules: each rule with its pattern.
        size: bytes of their text.

    Attributes:
        memory: approximate bytes of memory that they take.
        is_refused: whether the log already says that they exceed the limit of their folder.

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
        self._above = "", self._paths.start  # the last folder that was matched, and the states after it
        self.memory = self._names.size + self._paths.size + _RULE_OVERHEAD * (len(rules) + 1)

    def last_match(self, path: str, *, is_folder: bool) -> Rule | None:
        """Return the last rule that matches a path below the root, with or without `!`; None if none does."""
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
"""The rules that apply in a folder, the deepest last."""

_Stamp = tuple[int, ...]


class Ignoring:
    """Reads and caches the ignore rules of one watched folder."""

    def __init__(self, patterns: Sequence[str] = ()) -> None:
        lines = ((0, os.fsencode(pattern)) for pattern in patterns)
        self._from_settings: Chain = (_parse_rules("library.ignore", "", lines),) if patterns else ()
        self._known: OrderedDict[str, tuple[_Stamp, Rules | None]] = OrderedDict()
        self._cached_bytes = 0
        self._reads: dict[str, _Read] = {}
        self._lock = threading.Lock()  # several threads walk

    def chain(self, root: str, folder: str) -> Chain:
        """Return the rules that apply in `folder` ("" or "folder/"): its own and those of all folders above. Blocks."""
        chain = self._from_settings
        end = 0
        while True:
            chain = self.extend(chain, root, folder[:end])
            if end == len(folder):
                return chain
            end = folder.index("/", end) + 1

    def extend(self, chain: Chain, root: str, folder: str) -> Chain:
        """Return the rules that apply in a folder, given those of the folder above it. Blocks.

        Raises OSError if the disk does not answer: without its rules, the content of the folder is unknown.
        """
        path = os.path.join(root, folder, IGNORE_FILE)
        try:
            status = os.lstat(path)
        except OSError as error:
            if error.errno not in _NO_FILE:
                raise
            with self._lock:
                self._drop(path)
            return chain
        rules = self._rules_in(path, folder, status)
        if rules is None or not rules.size:
            return chain
        if sum(each.size for each in chain) + rules.size > FOLDER_LIMIT:
            if not rules.is_refused:
                rules.is_refused = True
                logger.warning("ignore rules of more than %d bytes in one folder: ignoring those in %s",
                               FOLDER_LIMIT, path_to_text(path))  # fmt: skip
            return chain
        return (*chain, rules)

    def _rules_in(self, path: str, folder: str, status: os.stat_result) -> Rules | None:
        """Return the rules of a file; read it again if it has changed."""
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
            self._cached_bytes += _memory(rules)
            while self._cached_bytes > _CACHE_LIMIT:
                self._drop(next(iter(self._known)))
        return rules

    def _drop(self, path: str) -> None:
        if (known := self._known.pop(path, None)) is not None:
            self._cached_bytes -= _memory(known[1])

    def _read(self, path: str, folder: str, status: os.stat_result) -> Rules | None:
        shown = path_to_text(path)
        if not stat.S_ISREG(status.st_mode):
            logger.warning(
                "cannot read the rules in %s: it is not a regular file, and soulspot does not follow links", shown
            )
            return None
        try:
            content = self._content(path)
        except NotRegularFileError:  # replaced since the check above
            return None
        except OSError as error:
            if error.errno not in _NO_FILE:
                raise
            logger.warning("cannot read the rules in %s: %s", shown, error.strerror)
            return None
        if len(content) > FILE_LIMIT:
            logger.warning("an ignore file of more than %d bytes: ignoring the rest of %s", FILE_LIMIT, shown)
            content = content[:FILE_LIMIT].rpartition(b"\n")[0]
        lines = content.removeprefix(b"\xef\xbb\xbf").split(b"\n")
        return _parse_rules(shown, folder, enumerate(lines, 1))

    def _content(self, path: str) -> bytes:
        """Return up to FILE_LIMIT bytes of a file, and more if it is longer; raises TimeoutError after READ_LIMIT."""
        with self._lock:
            read = self._reads.get(path)
            if read is None:
                read = self._reads[path] = _Read(path)
                read.start()
        read.join(READ_LIMIT)
        if read.is_alive():  # until it ends, no second read of this file starts
            raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT), path)
        with self._lock:
            self._reads.pop(path, None)
        if read.error is not None:
            raise read.error
        return read.content


class _Read(threading.Thread):
    """One read of a file in its own thread: a read from a disk that does not answer cannot be interrupted."""

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


def ignoring_rule(chain: Chain, path: str, *, is_folder: bool) -> str | None:
    """Return the rule that ignores a path, with its file and line; None if the path is not ignored."""
    for rules in reversed(chain):
        if (rule := rules.last_match(path, is_folder=is_folder)) is not None:
            return None if rule.is_negative else _place(rules.source, rule.line, rule.text)
    return None


def _place(source: str, line: int, text: str) -> str:
    """Return a rule with its file and line, for messages."""
    return f"{source}, line {line}: {text}" if line else f"{source}: {text}"


def _memory(rules: Rules | None) -> int:
    return rules.memory if rules is not None else _RULE_OVERHEAD


def _parse_rules(source: str, folder: str, lines: Iterable[tuple[int, bytes]]) -> Rules:
    """Parse the valid rules of one file or of the settings, up to the limits; log what is ignored."""
    rules: list[tuple[Rule, Glob]] = []
    size, faults = 0, list[str]()
    for number, line in lines:
        pattern = _pattern_in(line)
        if pattern is None:
            continue
        text = path_to_text(os.fsdecode(pattern))
        place = _place(source, number, text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}…")
        if len(rules) == RULES_LIMIT:
            logger.warning("more than %d rules: ignoring all from %s on", RULES_LIMIT, place)
            break
        if len(pattern) > RULE_LIMIT:
            faults.append(f"{place} (longer than {RULE_LIMIT} bytes)")
            continue
        try:
            glob = Glob.parse(pattern)
        except ValueError as error:
            faults.append(f"{place} ({error})")
            continue
        rules.append((Rule(number, text[:_MAX_SHOWN], glob.is_negative), glob))
        size += len(pattern)
    if faults:
        more = f", and {len(faults) - 1} more" if len(faults) > 1 else ""
        logger.warning("ignoring an invalid rule: %s%s", faults[0], more)
    return Rules(source, folder, rules, size)


def _pattern_in(line: bytes) -> bytes | None:
    r"""Return the pattern of a line as git reads it, without trailing spaces (except `\ `); None for no pattern."""
    if not line or line.startswith(b"#"):
        return None
    pattern = line.removesuffix(b"\r").partition(b"\0")[0]
    end, is_escaped = 0, False
    for at, byte in enumerate(pattern, 1):
        if byte != ord(" ") or is_escaped:
            end = at
        is_escaped = byte == ord("\\") and not is_escaped
    return pattern[:end] or None
