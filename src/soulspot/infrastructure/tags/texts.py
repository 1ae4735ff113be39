"""Repairs texts that are not in their declared encoding, or that a database would reject.

ID3v1, ID3v2 and RIFF declare Latin-1, or nothing, while many programs write the encoding of their country. The parsers
mark such a text as `Undeclared`. One short title says too little, so all such texts of a file are judged together: as
UTF-8 if they are valid UTF-8; as Latin-1 if accents stand alone between letters, as in western names; else as the one
encoding that puts all of the text into one script.
"""

import re
from collections.abc import Iterable, Iterator
from typing import SupportsIndex

MAX_VALUE_LENGTH = 1 << 16
"""Characters of one value; a longer one is cut, with a note. The longest lyrics have a tenth of it."""

MAX_VALUES = 500
"""Values of one name; further ones are dropped. The longest known list of artists has about 300."""

_HIGH_RUN = re.compile(r"[\x80-\xff]+")
_C1 = re.compile(r"[\x80-\x9f]")
# Single quotation marks and dashes of Windows.
_TYPOGRAPHY = re.compile(r"(?<![\x80-\xff])[\x85\x8c\x91-\x97\x99\x9c](?![\x80-\xff])")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_CYRILLIC_PAIR = re.compile(r"[а-яё][А-ЯЁ]")
_CYRILLIC = re.compile(r"[А-Яа-яЁёЄєІіЇїҐґЎў№«»—–…“”„’ ]")
_KANA = re.compile(r"[\u3040-\u30ff]")
_HANGUL = re.compile(r"[\uac00-\ud7a3]")
_EAST_ASIAN = re.compile(r"[\u3000-\u30ff\u4e00-\u9fff\uac00-\ud7a3\uff00-\uff5e]")
# The characters in daily use, which each standard has in its first rows.
_DAILY = {
    "gbk": re.compile(rb"(?:[\xb0-\xd7][\xa1-\xfe])"),
    "big5": re.compile(rb"(?:[\xa4-\xc6][\x40-\x7e\xa1-\xfe])"),
    "euc_kr": re.compile(rb"(?:[\xb0-\xc8][\xa1-\xfe])"),
    "shift_jis": re.compile(rb"(?:[\x82\x83][\x40-\xfc]|[\x88-\x97][\x40-\xfc])"),
}


class Undeclared(str):
    """A text of unknown encoding, decoded as Latin-1 for now; so are its parts."""

    __slots__ = ()

    def split(self, sep: str | None = None, maxsplit: SupportsIndex = -1) -> "list[str]":
        return [Undeclared(each) for each in super().split(sep, maxsplit)]

    def strip(self, chars: str | None = None) -> "Undeclared":
        return Undeclared(super().strip(chars))

    def rstrip(self, chars: str | None = None) -> "Undeclared":
        return Undeclared(super().rstrip(chars))


def decode_undeclared(raw: bytes) -> str:
    """Decode bytes of unknown encoding as Latin-1, marked `Undeclared` unless they are ASCII."""
    text = raw.decode("latin-1")
    return text if raw.isascii() else Undeclared(text)


def decode_utf8(raw: bytes, notes: list[str]) -> str:
    """Decode text that is declared as UTF-8, but may be damaged or in another encoding."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        text = raw.decode("utf-8", "replace")
        if all(each.isascii() or each == "\ufffd" for each in text):
            return decode_undeclared(raw)
        notes.append("invalid-text")
        return text


def resolve_encodings(names: dict[str, list[str]], notes: list[str]) -> None:
    """Decode the undeclared texts of a file, in the encoding that all of them together suggest."""
    undeclared = [each for values in names.values() for each in values if isinstance(each, Undeclared)]
    if not undeclared:
        return
    encoding = encoding_of("\n".join(dict.fromkeys(undeclared)).encode("latin-1", "ignore"))
    if encoding != "latin-1":
        notes.append(f"encoding-guessed-{encoding.replace('_', '-')}")
    for name, values in names.items():
        names[name] = [_decoded(each, encoding) if isinstance(each, Undeclared) else each for each in values]


def encoding_of(raw: bytes) -> str:
    """Return the most likely encoding of bytes that are not ASCII."""
    if _decodes(raw, "utf-8"):
        return "utf-8"
    if _is_western(raw):
        return "cp1252" if _C1.search(raw.decode("latin-1")) and _decodes(raw, "cp1252") else "latin-1"
    for encoding in ("cp1251", "koi8_r"):
        if _is_cyrillic(raw, encoding):
            return encoding
    return max(_east_asian(raw), default=(0.0, "latin-1"))[1]


def clean_values(values: Iterable[str], notes: list[str]) -> list[str]:
    """Return values that every database accepts: no NUL, no lone surrogate; none empty, too long or repeated."""
    kept = []
    for value in values:
        text = value.strip("\0 \t\r\n\ufeff")
        if "\0" in text:
            text = re.sub("\0+", " ", text)
            notes.append("invalid-text")
        if not text.isascii() and _SURROGATE.search(text):
            text = _SURROGATE.sub("\ufffd", text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))
            notes.append("invalid-text")
        if len(text) > MAX_VALUE_LENGTH:
            text = text[:MAX_VALUE_LENGTH]
            notes.append("value-capped")
        if text:
            kept.append(text)
    if len(kept) > 1:
        kept = list(dict.fromkeys(kept))
    if len(kept) > MAX_VALUES:
        notes.append("value-capped")
    return kept[:MAX_VALUES]


def printable(text: str, length: int = 100) -> str:
    """Return a text without unprintable characters, cut to a length."""
    return text if text.isprintable() and len(text) <= length else "".join(filter(str.isprintable, text))[:length]


def _is_western(raw: bytes) -> bool:
    """Whether non-ASCII letters stand alone or in pairs among more ASCII letters; true if there are very few."""
    text = _TYPOGRAPHY.sub("", raw.decode("latin-1"))
    runs = [len(run) for run in _HIGH_RUN.findall(text)]
    letters = sum(each.isascii() and each.isalpha() for each in text)
    high, controls = sum(runs), len(_C1.findall(text))
    if high <= 3 and not controls:  # noqa: PLR2004
        return True
    few_in_a_row = max(runs, default=0) <= 2 or (max(runs) == 3 and high * 3 <= letters)  # noqa: PLR2004
    return few_in_a_row and high <= letters and controls * 4 <= letters


def _is_cyrillic(raw: bytes, encoding: str) -> bool:
    """Whether nearly all non-ASCII characters are Cyrillic letters, with hardly any capital inside a word."""
    if not _decodes(raw, encoding):
        return False
    text = raw.decode(encoding)
    high = [each for each in text if not each.isascii()]
    of_script = sum(bool(_CYRILLIC.match(each)) for each in high)
    return of_script * 20 >= len(high) * 19 and len(_CYRILLIC_PAIR.findall(text)) * 10 <= len(high)


def _east_asian(raw: bytes) -> Iterator[tuple[float, str]]:
    """Yield a score for each East Asian encoding that fits: above all the share of characters in daily use."""
    for encoding, daily in _DAILY.items():
        if not _decodes(raw, encoding):
            continue
        text = raw.decode(encoding)
        wide = [each for each in text if not each.isascii()]
        if not wide or sum(bool(_EAST_ASIAN.match(each)) for each in wide) * 10 < len(wide) * 9:
            continue
        share = len(daily.findall(raw)) / len(wide)
        kana = len(_KANA.findall(text))
        if encoding == "gbk" and kana and _decodes(raw, "euc_jp"):
            yield share + 0.5, "euc_jp"  # both have kana at the same places, but Chinese text needs none
        elif encoding == "euc_kr" and not len(_HANGUL.findall(text)) * 10 >= len(wide) * 9:
            continue
        elif share >= 0.5:  # noqa: PLR2004
            # The narrower the rows of an encoding, the less likely it fits by chance.
            yield (
                share + {"euc_kr": 0.3, "shift_jis": 0.2 if kana else 0.0, "gbk": 0.1, "big5": 0.0}[encoding],
                encoding,
            )


def _decodes(raw: bytes, encoding: str) -> bool:
    try:
        raw.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def _decoded(text: str, encoding: str) -> str:
    """Decode one text again; if it was cut inside a character, it loses that character only."""
    return text.encode("latin-1", "ignore").decode(encoding, "ignore")
