"""Genres as ID3 writes them: by number, by number and name, by name."""

import re

from mutagen.id3 import TCON

_NAMES: tuple[str, ...] = tuple(TCON.GENRES)
_SPECIAL = {"RX": "Remix", "CR": "Cover"}
_NUMBERED = re.compile(r"((?:\((?:\d+|RX|CR)\))+)(.*)", re.DOTALL)
_NUMBERS = re.compile(r"\d+|RX|CR")


def genre_name(number: int) -> str | None:
    """Return the ID3v1 genre with this number, None if there is none."""
    return _NAMES[number] if 0 <= number < len(_NAMES) else None


def genres_of(text: str) -> list[str]:
    """Return the genres in a text like "Rock", "17", "(17)", "(4)Eurodisco" or "(51)(39)", without unknown numbers."""
    if text.isdecimal() and len(text) <= 3:  # noqa: PLR2004
        return [name for name in (genre_name(int(text)),) if name]
    if text in _SPECIAL:
        return [_SPECIAL[text]]
    if (match := _NUMBERED.fullmatch(text)) is None:
        return [text[1:] if text.startswith("((") else text]
    numbered = [_SPECIAL.get(each) or genre_name(int(each)) for each in _NUMBERS.findall(match[1])]
    rest = match[2][1:] if match[2].startswith("((") else match[2]
    return list(dict.fromkeys(each for each in [*numbered, rest.strip()] if each))
