"""How text that anybody may have written into a file is shown: as text, whatever it is, and no more than fits."""

import unicodedata
from collections.abc import Mapping
from datetime import datetime
from typing import Final

from markupsafe import Markup, escape

SHOWN: Final = 300
"""Characters of a text that a page shows."""
# What joins letters and emoji is a part of them; other signs without a picture of their own are shown as their code.
_JOINERS: Final = "\u200c\u200d"
_HIDDEN: Final = frozenset(("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"))


def visible(text: str) -> str:
    r"""Return a text in which nothing is hidden and nothing turns what follows around: a bidi mark is `\u202e`."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_code(each) if _is_hidden(each) else each for each in text)


def shown(text: object, limit: int = SHOWN) -> Markup:
    """Return a text as HTML, cut where it is long; whichever way it is written, what stands beside it stays there."""
    whole = "" if text is None else str(text)
    cut = Markup("…<small> ({} characters)</small>").format(len(whole)) if len(whole) > limit else ""
    return Markup("<bdi>{}</bdi>{}").format(escape(visible(whole[:limit])), cut)


def moment(at: datetime | str | None) -> Markup:
    """Return a moment as HTML, in the server's time: the hour of what happened today, else the day with it."""
    if at is None:
        return Markup("never")
    here = (datetime.fromisoformat(at) if isinstance(at, str) else at).astimezone()
    is_today = here.date() == datetime.now(here.tzinfo).date()
    text = here.strftime("%H:%M:%S" if is_today else "%Y-%m-%d %H:%M")
    whole = here.strftime("%A, %d %B %Y, %H:%M:%S %Z")
    return Markup('<time datetime="{}" title="{}">{}</time>').format(here.isoformat(), whole, text)


def change(value: object) -> str:
    """Return what an audit entry says of one field: the value, or the one before and the one after."""
    if isinstance(value, list) and len(value) == 2:  # noqa: PLR2004 - before and after
        return f"{_plain(value[0])} → {_plain(value[1])}"
    return _plain(value)


def changes(given: Mapping[str, object] | None) -> list[tuple[str, str]]:
    return [(name.replace("_", " "), change(value)) for name, value in (given or {}).items()]


def size(count: int) -> str:
    """Return 3400000 as "3.4 MB"."""
    amount, units = float(count), ["bytes", "kB", "MB", "GB", "TB"]
    while amount >= 1000 and len(units) > 1:  # noqa: PLR2004
        amount, units = amount / 1000, units[1:]
    return f"{amount:.0f} {units[0]}" if units[0] == "bytes" else f"{amount:.1f} {units[0]}"


def _plain(value: object) -> str:
    if value is None or value in ("", [], {}):
        return "nothing"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return "; ".join(map(_plain, value))
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_plain(each)}" for name, each in value.items())
    return str(value)


def _is_hidden(sign: str) -> bool:
    return sign not in _JOINERS and unicodedata.category(sign) in _HIDDEN


def _code(sign: str) -> str:
    return sign.encode("unicode_escape", "surrogatepass").decode()
