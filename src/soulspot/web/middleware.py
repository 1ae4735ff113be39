"""Checks every request before it reaches the page, and adds the security headers to every response.

Every site that the user visits can send requests to a page on this machine. So the Host header must be an allowed name
(against DNS rebinding), the request must not come from another site, and the browser may load nothing from elsewhere.
"""

import time
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

OWN_NAMES: Final = ("localhost", "127.0.0.1", "[::1]")
MAX_PATH_BYTES: Final = 512
MAX_QUERY_BYTES: Final = 2048
POLICY: Final = (
    "default-src 'none'; img-src 'self'; style-src 'self'; script-src 'self'; connect-src 'self'; form-action 'self';"
    " base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types soulspot"
)
HEADERS: Final = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # With "no-referrer" a browser would send the origin "null" with our own forms.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}


@dataclass(slots=True)
class Activity:
    """Counts the requests in progress, and stores when the last one ended."""

    requests: int = 0
    last: float = field(default_factory=time.monotonic)

    def idle_for(self) -> float:
        return 0.0 if self.requests else time.monotonic() - self.last


class RequestGuard:
    """Passes a request on to the application, or refuses it.

    Args:
        app: the application that gets the allowed requests.
        hosts: names allowed in the Host header, besides the loopback's.
        activity: counts the requests.

    """

    def __init__(self, app: ASGIApp, hosts: Collection[str], activity: Activity) -> None:
        self._app = app
        self._names = frozenset(name.lower() for name in (*OWN_NAMES, *hosts))
        self._activity = activity

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        self._activity.requests += 1
        try:
            if (refusal := self._refusal(scope)) is not None:
                status, reason = refusal
                await PlainTextResponse(reason + "\n", status)(scope, receive, send_guarded)
            else:
                await self._app(scope, receive, send_guarded)
        finally:
            self._activity.requests -= 1
            self._activity.last = time.monotonic()

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        """Return the status and the reason if the request is refused."""
        headers, method = Headers(scope=scope), scope["method"]
        if method not in {"GET", "HEAD", "POST"}:
            return 405, "only GET and HEAD are allowed, and POST after a login"
        if len(scope["raw_path"]) > MAX_PATH_BYTES or len(scope["query_string"]) > MAX_QUERY_BYTES:
            return 414, "the address is too long"
        host, *others = headers.getlist("host") or [""]
        if others or _name_in(host) not in self._names:
            return 421, "unknown host name; web.hosts lists the names allowed besides localhost"
        origin = headers.get("origin")
        has_other_origin = origin is not None and origin.partition("://")[2].lower() != host.lower()
        is_from_other_site = headers.get("sec-fetch-site", "none") not in {"same-origin", "none"}
        is_link = method != "POST" and headers.get("sec-fetch-mode") == "navigate"
        if has_other_origin or (is_from_other_site and not is_link):
            return 403, "requests from other sites are refused"
        return None


def _name_in(host: str) -> str:
    """Return the name in "name:port" in lower case; an IPv6 address keeps its brackets."""
    name, colon, port = host.lower().rpartition(":")
    return name if colon and port.isdecimal() else host.lower()
