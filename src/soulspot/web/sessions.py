"""Sessions: a user who knows the token, kept in a private file beside the catalogue, may retry failures.

The user enters the token once, at /login, and gets a cookie: the end of the session, signed with the token, so that a
new token ends every session. Each form carries a CSRF token derived from that cookie; another site cannot read the
cookie, so it cannot send a valid form.
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
SESSION_SECONDS: Final = 30 * 86_400
MIN_TOKEN_LENGTH: Final = 32


def token_file(database_file: Path) -> Path:
    return database_file.with_name(database_file.name + ".web-token")


@dataclass(frozen=True, slots=True)
class WebToken:
    """The token in a file. Every check reads the file, so a new token works at once."""

    file: Path
    clock: Callable[[], float] = time.time

    def read(self) -> str | None:
        """Return the token, None if the file has no valid one."""
        try:
            token = read_private(self.file).decode("ascii").strip()
        except (OSError, UnicodeDecodeError):
            return None
        return token if len(token) >= MIN_TOKEN_LENGTH else None

    def make(self, *, replace: bool = False) -> str:
        """Return the token; create it if the file has none, or to `replace` it. The file gets its folder's owner.

        Raises:
            OSError: the new token cannot be written.

        """
        if not replace and (token := self.read()) is not None:
            return token
        self.file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        token = secrets.token_urlsafe(32)
        write_private(self.file, f"{token}\n".encode())
        return token

    def is_token(self, given: str) -> bool:
        token = self.read()
        return token is not None and hmac.compare_digest(token.encode(), given.strip().encode(errors="replace"))

    def session(self) -> str:
        """Return the cookie of a new session."""
        until = str(int(self.clock()) + SESSION_SECONDS)
        return f"{until}.{self._sign('session', until)}"

    def is_session(self, cookie: str) -> bool:
        until, _, signature = cookie.partition(".")
        if not until.isdecimal() or int(until[:15]) < self.clock():
            return False
        return hmac.compare_digest(self._sign("session", until).encode(), signature.encode(errors="replace"))

    def csrf_token(self, cookie: str) -> str:
        """Return the token that each form of this session carries."""
        return self._sign("form", cookie)

    def is_csrf_token(self, cookie: str, given: str) -> bool:
        return hmac.compare_digest(self.csrf_token(cookie).encode(), given.encode(errors="replace"))

    def _sign(self, what: str, text: str) -> str:
        # Without a token the key is random, so no signature is valid.
        key = self.read() or secrets.token_urlsafe(32)
        return hmac.new(key.encode(), f"{what}:{text}".encode(errors="replace"), "sha256").hexdigest()
