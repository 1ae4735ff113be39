"""Times and spans as people write them: 2026-11-23T18:00, 90m, 24h, 7d."""

import re
from datetime import UTC, datetime, timedelta

from soulspot.errors import ConfigError

_SPAN = re.compile(r"(\d+)\s*([smhdw])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def moment(text: str, option: str) -> datetime:
    """Return the moment that a person means by a time or by a span before now."""
    if (span := _SPAN.fullmatch(text.strip())) is not None:
        return datetime.now(UTC) - timedelta(**{_UNITS[span[2]]: int(span[1])})
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except ValueError as error:
        msg = f"{option} {text!r} is no time: write 2026-11-23, 2026-11-23T18:00, or a span such as 90m, 24h or 7d"
        raise ConfigError(msg) from error


def span(text: str, option: str) -> timedelta:
    """Return the span that a person means by 90m, 24h or 7d."""
    if (found := _SPAN.fullmatch(text.strip())) is None:
        msg = f"{option} {text!r} is no span of time: write 90m, 24h or 30d"
        raise ConfigError(msg)
    return timedelta(**{_UNITS[found[2]]: int(found[1])})
