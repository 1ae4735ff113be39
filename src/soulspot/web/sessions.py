"""Who may change something: whoever knows the token, which is in a private file beside the catalogue.

The token is asked for once, at /login. From then on a cookie says that it was known: a moment at which that ends,
sealed with the token, so that a new token ends every session. Each form carries a seal of that cookie, which no other
site can read, and so none can send one.
"""

import hmac
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from soulspot.infrastructure.private_files import read_private, write_private

COOKIE: Final = "soulspot"
SESSION: Final = 30 * 86_400
"""Seconds for which a browser is known."""
_SHORTEST: Final = 32


def place_of_token(database_file: Path) -> Path:
    return database_file.with_name(database_file.name + ".web-token")


@dataclass(frozen=True, slots=True)
class Keys:
    """The token in a file; it is read anew each time, so that another one holds at once."""

    place: Path
    clock: Callable[[], float] = time.time

    def token(self) -> str | None:
        try:
            token = read_private(self.place).decode("ascii").strip()
        except (OSError, UnicodeDecodeError):
            return None
        return token if len(token) >= _SHORTEST else None

    def make(self, *, anew: bool = False) -> str:
        """Return the token, made if there is none yet, or `anew`; it belongs to whom the folder belongs to.

        Raises:
            OSError: there is none, and none can be written.

        """
        if not anew and (token := self.token()) is not None:
            return token
        self.place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        token = secrets.token_urlsafe(32)
        write_private(self.place, f"{token}\n".encode())
        return token

    def is_token(self, given: str) -> bool:
        token = self.token()
        return token is not None and hmac.compare_digest(token.encode(), given.strip().encode(errors="replace"))

    def session(self) -> str:
        """Return the value of the cookie for one who knew the token."""
        until = str(int(self.clock()) + SESSION)
        return f"{until}.{self._seal('session', until)}"

    def is_session(self, cookie: str) -> bool:
        until, _, seal = cookie.partition(".")
        if not until.isdecimal() or int(until[:15]) < self.clock():
            return False
        return hmac.compare_digest(self._seal("session", until).encode(), seal.encode(errors="replace"))

    def form(self, cookie: str) -> str:
        """Return what each form of this session carries."""
        return self._seal("form", cookie)

    def is_form(self, cookie: str, given: str) -> bool:
        return hmac.compare_digest(self.form(cookie).encode(), given.encode(errors="replace"))

    def _seal(self, what: str, text: str) -> str:
        # Without a token nothing fits: the key is then one that nobody has.
        key = self.token() or secrets.token_urlsafe(32)
        return hmac.new(key.encode(), f"{what}:{text}".encode(errors="replace"), "sha256").hexdigest()
