"""What a person wants left alone: `.soulspotignore` files, written as a .gitignore is, and the setting library.ignore.

A rule counts for the folder that its file lies in and for all below; of several that match, the deepest and last one
decides, and `!` takes back. A file in a folder that is left alone cannot be taken back.
"""

import errno
import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from soulspot.infrastructure.filesystem import path_to_text

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec

logger = logging.getLogger(__name__)

IGNORE_FILE = ".soulspotignore"
_LONGEST = 1 << 20  # characters of an ignore file; a longer one is something else


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules of one place: `folder` is where they count from ("" or "folder/"), `places` says where each stands."""

    folder: str
    spec: "GitIgnoreSpec"
    places: tuple[str, ...]


_NO_RULES = frozenset(
    (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG)
)
"""What says that there are none, or none for us; anything else, that the disk does not answer."""

Chain = tuple[Rules, ...]
"""The rules that count in a folder, the deepest last."""


@dataclass(frozen=True, slots=True)
class Ignoring:
    """The rules for one watched folder."""

    patterns: tuple[str, ...] = ()
    _read: dict[str, tuple[tuple[int, int, int], Rules | None]] = field(default_factory=dict, compare=False, repr=False)

    def chain(self, root: str, folder: str) -> Chain:
        """Return the rules that count in `folder` ("" or "folder/"), of itself and of all above; blocks."""
        chain: Chain = ()
        if self.patterns:
            chain = (_rules("", ((f"library.ignore: {pattern}", pattern) for pattern in self.patterns)),)
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
            status = os.stat(path)
        except OSError as error:
            if error.errno not in _NO_RULES:
                raise
            self._read.pop(path, None)
            return chain
        stamp = (status.st_ino, status.st_size, status.st_mtime_ns)
        known = self._read.get(path)
        if known is None or known[0] != stamp:
            known = self._read[path] = stamp, _read(path, folder)
        return chain if known[1] is None else (*chain, known[1])


def rule_against(chain: Chain, path: str, *, is_folder: bool) -> str | None:
    """Return the rule by which a path is left alone, and where it stands; None where none does."""
    against = None
    for rules in chain:
        result = rules.spec.check_file(path[len(rules.folder) :] + ("/" if is_folder else ""))
        if result.include is not None and result.index is not None:
            against = rules.places[result.index] if result.include else None
    return against


def _read(path: str, folder: str) -> Rules | None:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            lines = file.read(_LONGEST).splitlines()
    except OSError as error:
        if error.errno not in _NO_RULES:
            raise
        logger.warning("cannot read the rules in %s: %s", path_to_text(path), error.strerror)
        return None
    shown = path_to_text(path)
    return _rules(folder, ((f"{shown}, line {number}: {line}", line) for number, line in enumerate(lines, 1)))


def _rules(folder: str, lines: Iterable[tuple[str, str]]) -> Rules:
    from pathspec import GitIgnoreSpec  # most folders have no rules

    places, patterns = [], []
    for place, line in lines:
        if not line.strip() or line.startswith("#"):
            continue
        try:
            GitIgnoreSpec.from_lines([line])
        except ValueError as error:
            logger.warning("a rule that means nothing is passed over: %s (%s)", place, error)
            continue
        places.append(place)
        patterns.append(line)
    return Rules(folder, GitIgnoreSpec.from_lines(patterns), tuple(places))
