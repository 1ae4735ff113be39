"""What stands before every page: who may ask, how, for how much, and what a browser may do with the answer.

A page on this machine is in reach of every site that its user visits. So a request has to name a host that is ours (a
name that an attacker has pointed at this machine is not), and must not come from another site; and the answer allows
the browser nothing that is not from here.
"""

import time
from collections.abc import Collection
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

OWN_NAMES: Final = ("localhost", "127.0.0.1", "[::1]")
LONGEST_PATH: Final = 512
LONGEST_QUERY: Final = 2048
POLICY: Final = (
    "default-src 'none'; img-src 'self'; style-src 'self'; script-src 'self'; connect-src 'self'; form-action 'self';"
    " base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types soulspot"
)
HEADERS: Final = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # Not no-referrer: with that, a browser says "null" for the origin of our own forms.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}


class Activity:
    """Whether anybody is asking, and when somebody did last."""

    def __init__(self) -> None:
        self.asking = 0
        self.last = time.monotonic()

    def idle_for(self) -> float:
        return 0.0 if self.asking else time.monotonic() - self.last


class Guard:
    """Lets a request through to the pages, or refuses it.

    Args:
        pages: the application behind.
        hosts: names by which this server may be asked for, beside those of the loopback.
        activity: is told that somebody asks.

    """

    def __init__(self, pages: ASGIApp, hosts: Collection[str], activity: Activity) -> None:
        self._pages = pages
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

        self._activity.asking += 1
        try:
            if (refusal := self._refusal(scope)) is not None:
                status, reason = refusal
                await PlainTextResponse(reason + "\n", status)(scope, receive, send_guarded)
            else:
                await self._pages(scope, receive, send_guarded)
        finally:
            self._activity.asking -= 1
            self._activity.last = time.monotonic()

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        """Return why a request is not answered."""
        headers, method = Headers(scope=scope), scope["method"]
        if method not in {"GET", "HEAD", "POST"}:
            return 405, "only GET and HEAD are answered here, and POST from who is logged in"
        if len(scope["raw_path"]) > LONGEST_PATH or len(scope["query_string"]) > LONGEST_QUERY:
            return 414, "that address is too long"
        host, *others = headers.getlist("host") or [""]
        if others or _name_in(host) not in self._names:
            return 421, "this page is not asked for by that name; web.hosts has the names beside localhost"
        origin = headers.get("origin")
        if origin is not None and origin.partition("://")[2].lower() != host.lower():
            return 403, "this came from the page of another site"
        site, mode = headers.get("sec-fetch-site", "none"), headers.get("sec-fetch-mode")
        if site not in {"same-origin", "none"} and (method == "POST" or mode != "navigate"):
            return 403, "this came from the page of another site"
        return None


def _name_in(host: str) -> str:
    """Return the name in "name:port", in lower case; of IPv6 with its brackets."""
    name, colon, port = host.lower().rpartition(":")
    return name if colon and port.isdecimal() else host.lower()
