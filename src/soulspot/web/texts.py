"""Formats untrusted text from tags and paths for HTML: escaped, without hidden characters, cut to fit."""

import unicodedata
from collections.abc import Mapping
from datetime import datetime
from typing import Final

from markupsafe import Markup, escape

SHOWN_CHARACTERS: Final = 300
# Joiners are a part of letters and emoji; other invisible characters are shown as their code.
_JOINERS: Final = "\u200c\u200d"
_HIDDEN: Final = frozenset(("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"))


def visible(text: str) -> str:
    r"""Return the text with each invisible or direction-changing character as its code, such as `\u202e`."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        each.encode("unicode_escape", "surrogatepass").decode() if _is_hidden(each) else each for each in text
    )


def shown(text: object, limit: int = SHOWN_CHARACTERS) -> Markup:
    """Return a text as HTML, cut at `limit`, and isolated so that right-to-left text moves nothing beside it."""
    full = "" if text is None else str(text)
    cut = Markup("…<small> ({} characters)</small>").format(len(full)) if len(full) > limit else ""
    return Markup("<bdi>{}</bdi>{}").format(escape(visible(full[:limit])), cut)


def moment(at: datetime | str | None) -> Markup:
    """Return a moment as HTML, in the server's time zone: the time if it is today, else the date and the time."""
    if at is None:
        return Markup("never")
    local = (datetime.fromisoformat(at) if isinstance(at, str) else at).astimezone()
    is_today = local.date() == datetime.now(local.tzinfo).date()
    text = local.strftime("%H:%M:%S" if is_today else "%Y-%m-%d %H:%M")
    title = local.strftime("%A, %d %B %Y, %H:%M:%S %Z")
    return Markup('<time datetime="{}" title="{}">{}</time>').format(local.isoformat(), title, text)


def change(value: object) -> str:
    """Return one change of an audit entry as text: the value, or "before → after"."""
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


def _is_hidden(character: str) -> bool:
    return character not in _JOINERS and unicodedata.category(character) in _HIDDEN
