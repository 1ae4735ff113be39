"""Matches a path against many .gitignore patterns at once, in time linear in the path, without backtracking.

All patterns of a list form one automaton whose states are the bits of one integer, in the order of the patterns.
Reading a byte takes a few operations on that integer (Shift-And, Baeza-Yates and Gonnet 1992), so a hostile list is no
slower than a harmless one of the same length. As in git, patterns and paths are bytes; the syntax is that of git's
wildmatch.c and dir.c.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

_SLASH: Final = ord("/")
_STAR: Final = ord("*")
_BACKSLASH: Final = ord("\\")
_SPECIAL: Final = b"*?[\\"
_EVERY: Final = (1 << 256) - 1
_ALL: Final = _EVERY - 1
"""Every byte but NUL, as a set: bit n stands for byte n."""


def _bytes(*ranges: tuple[int, int]) -> int:
    """Return the set of the bytes in inclusive ranges."""
    found = 0
    for first, last in ranges:
        if first <= last:
            found |= ((1 << (last - first + 1)) - 1) << first
    return found


_LOWER, _UPPER, _DIGIT = (ord("a"), ord("z")), (ord("A"), ord("Z")), (ord("0"), ord("9"))
_CLASSES: Final = {
    b"alnum": _bytes(_LOWER, _UPPER, _DIGIT),
    b"alpha": _bytes(_LOWER, _UPPER),
    b"blank": _bytes((9, 9), (32, 32)),
    b"cntrl": _bytes((0, 31), (127, 127)),
    b"digit": _bytes(_DIGIT),
    b"graph": _bytes((33, 126)),
    b"lower": _bytes(_LOWER),
    b"print": _bytes((32, 126)),
    b"punct": _bytes((33, 47), (58, 64), (91, 96), (123, 126)),
    b"space": _bytes((9, 10), (13, 13), (32, 32)),
    b"upper": _bytes(_UPPER),
    b"xdigit": _bytes(_DIGIT, (ord("a"), ord("f")), (ord("A"), ord("F"))),
}


@dataclass(frozen=True, slots=True)
class Glob:
    """One parsed pattern.

    Attributes:
        is_negative: whether it began with `!`.
        folders_only: whether it ended with `/`.
        name_only: whether it has no slash, and so matches the last name of a path in any folder.
        steps: the set of bytes that it accepts at each step.
        within: the positions between steps at which any bytes but a slash may stand.
        anything: the positions at which any bytes may stand.
        optional: the positions of `**/`: the slash there may be absent, with everything that `**` matches.

    """

    is_negative: bool
    folders_only: bool
    name_only: bool
    steps: tuple[int, ...]
    within: frozenset[int]
    anything: frozenset[int]
    optional: frozenset[int]

    @classmethod
    def parse(cls, pattern: bytes) -> "Glob":
        """Parse one line; raises ValueError for a pattern that can never match."""
        is_negative = pattern.startswith(b"!")
        text = pattern[1:] if is_negative else pattern
        folders_only = text.endswith(b"/")
        text = text[:-1] if folders_only else text
        name_only = b"/" not in text
        if text.startswith(b"/"):
            text = text[1:]
        if not text:
            msg = "empty"
            raise ValueError(msg)
        parsed = _Parser(text)
        parsed.run()
        return cls(
            is_negative,
            folders_only,
            name_only,
            tuple(parsed.steps),
            frozenset(parsed.within),
            frozenset(parsed.anything),
            frozenset(parsed.optional),
        )


class _Parser:
    def __init__(self, text: bytes) -> None:
        self.text = text
        self.steps: list[int] = []
        self.within: set[int] = set()
        self.anything: set[int] = set()
        self.optional: set[int] = set()
        # git compares the part before the first wildcard separately, so for `**` the pattern begins after that part.
        self._begin = next((at for at, byte in enumerate(text) if byte in _SPECIAL), len(text))

    def run(self) -> None:
        at, text = 0, self.text
        while at < len(text):
            byte = text[at]
            if byte == _STAR:
                at = self._stars(at)
            elif byte == ord("["):
                at = self._bracket(at + 1)
            elif byte == ord("?"):
                self.steps.append(_ALL & ~(1 << _SLASH))
                at += 1
            else:
                if byte == _BACKSLASH:
                    at += 1
                    if at == len(text):
                        msg = "ends with a backslash"
                        raise ValueError(msg)
                self.steps.append(1 << text[at])
                at += 1

    def _stars(self, at: int) -> int:
        """Parse a run of stars; return the position after it."""
        text, end = self.text, at
        while end < len(text) and text[end] == _STAR:
            end += 1
        is_alone = (at == self._begin or text[at - 1] == _SLASH) and (
            end == len(text) or text[end : end + 1] == b"/" or text[end : end + 2] == b"\\/"
        )
        here = len(self.steps)
        if end - at == 1 or not is_alone:
            self.within.add(here)
        elif text[end : end + 1] != b"/":
            self.anything.add(here)
        else:
            end += 1
            if here - 1 not in self.optional:  # `**/**/` is `**/`
                self.anything.add(here)
                self.optional.add(here)
                self.steps.append(1 << _SLASH)
        return end

    def _bracket(self, at: int) -> int:
        """Parse a bracket expression as git does; return the position after it."""
        text, found, before = self.text + b"\0", 0, 0
        is_negated = text[at] in b"!^"
        at += is_negated
        while True:  # the first byte belongs to the set, even if it is a closing bracket
            byte = text[at]
            if byte == _BACKSLASH:
                at += 1
                byte = text[at]
                found |= 1 << byte
            elif byte == ord("-") and before and text[at + 1] not in b"\0]":
                at += 2 if text[at + 1] == _BACKSLASH else 1
                found |= _bytes((before, text[at]))
                byte = 0
            elif byte == ord("[") and text[at + 1] == ord(":"):
                end = text.find(b"]", at + 2)
                if end > at + 2 and text[end - 1] == ord(":"):
                    found |= self._named(text[at + 2 : end - 1])
                    at, byte = end, 0
                found |= 1 << byte
            else:
                found |= 1 << byte
            before, at = byte, at + 1
            if at >= len(text):
                msg = "a bracket is not closed"
                raise ValueError(msg)
            if text[at] == ord("]"):
                break
        self.steps.append((~found if is_negated else found) & _ALL & ~(1 << _SLASH))
        return at + 1

    @staticmethod
    def _named(name: bytes) -> int:
        if name not in _CLASSES:
            msg = "unknown character class"
            raise ValueError(msg)
        return _CLASSES[name]


class _Step(NamedTuple):
    """Masks for one byte: states that advance by one, and states that stay."""

    forward: int
    stay: int


class Automaton:
    """Matches many patterns of one kind, for names or for whole paths, at once."""

    def __init__(self, globs: Iterable[tuple[int, Glob]]) -> None:
        self._number_of: dict[int, int] = {}
        listed = list(globs)
        size = sum(len(glob.steps) + 1 for _number, glob in listed)
        room = size // 8 + 1
        toggles: dict[int, bytearray] = {}
        start, within, anything, optional = (bytearray(room) for _each in range(4))
        of_all, of_files = bytearray(room), bytearray(room)
        bit = 0
        for number, glob in listed:
            _set(start, bit)
            for marked, positions in ((within, glob.within), (anything, glob.anything), (optional, glob.optional)):
                for position in positions:
                    _set(marked, bit + position)
            for step in glob.steps:
                change = (step ^ (step << 1)) & _EVERY
                while change:  # at most twice for each range of bytes in the set
                    byte = change.bit_length() - 1
                    _set(toggles.setdefault(byte, bytearray(room)), bit)
                    change ^= 1 << byte
                bit += 1
            _set(of_all, bit)
            if not glob.folders_only:
                _set(of_files, bit)
            self._number_of[bit] = number
            bit += 1
        self._optional = int.from_bytes(optional, "little")
        self._of = {False: int.from_bytes(of_files, "little"), True: int.from_bytes(of_all, "little")}
        begin = int.from_bytes(start, "little")
        self.start = begin | ((begin & self._optional) << 1)
        self._steps = _steps(toggles, int.from_bytes(within, "little"), int.from_bytes(anything, "little"))
        self.size = len({id(step.forward) for step in self._steps}) * room

    def read(self, states: int, text: bytes) -> int:
        """Return the states after reading some bytes, given the states before."""
        steps, optional = self._steps, self._optional
        for byte in text:
            forward, stay = steps[byte]
            moved = (states & forward) << 1
            if optional:
                moved |= (moved & optional) << 1
            states = moved | (states & stay)
            if not states:
                break
        return states

    def last(self, states: int, *, is_folder: bool) -> int:
        """Return the number of the last pattern that matches the bytes read so far, -1 for none."""
        matched = states & self._of[is_folder]
        return self._number_of[matched.bit_length() - 1] if matched else -1


def _set(bits: bytearray, number: int) -> None:
    bits[number >> 3] ^= 1 << (number & 7)


def _steps(toggles: dict[int, bytearray], within: int, anything: int) -> Sequence[_Step]:
    """Return the step of each byte; consecutive bytes that no pattern distinguishes share an integer."""
    steps, forward, stay = [], 0, within | anything
    for byte in range(256):
        if byte in toggles:
            forward ^= int.from_bytes(toggles[byte], "little")
        steps.append(_Step(forward, anything if byte == _SLASH else stay))
    return steps
