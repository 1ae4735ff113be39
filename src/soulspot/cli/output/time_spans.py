"""Times and spans as people write and read them: 2026-11-23T18:00, 90m, 24h, 7d; "2 h 5 min"."""

import re
from datetime import UTC, datetime, timedelta

from soulspot.errors import ConfigError

_SPAN = re.compile(r"(\d+)\s*([smhdw])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_SIZES = ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s"))


def moment(text: str, option: str) -> datetime:
    """Parse a time, or a span before now."""
    if (found := _SPAN.fullmatch(text.strip())) is not None:
        return datetime.now(UTC) - _span_of(found)
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except ValueError as error:
        raise ConfigError(
            f"{option} {text!r} is not a time: write 2026-11-23, 2026-11-23T18:00, or a span such as 90m, 24h or 7d"
        ) from error


def span(text: str, option: str) -> timedelta:
    """Parse a span such as 90m, 24h or 7d."""
    if (found := _SPAN.fullmatch(text.strip())) is None:
        raise ConfigError(f"{option} {text!r} is not a time span: write 90m, 24h or 30d")
    return _span_of(found)


def in_words(seconds: float) -> str:
    """Return 7500 as "2 h 5 min"."""
    for size, unit, smaller, name in _SIZES:
        if seconds >= size:
            return f"{int(seconds // size)} {unit} {int(seconds % size // smaller)} {name}"
    return f"{seconds:.0f} s"


def ago(moment: str | None) -> str:
    """Return a time in ISO format as "2 h 5 min ago"."""
    if moment is None:
        return "none yet"
    return f"{in_words(max((datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds(), 0))} ago"


def _span_of(found: re.Match[str]) -> timedelta:
    return timedelta(**{_UNITS[found[2]]: int(found[1])})
