"""A program that sends one POST, described as JSON on its standard input.

It is a process, like a hook's command, because a thread that resolves a name cannot be cancelled: the daemon kills the
process when its time is up, whatever it waits for. It follows no redirect, because a token is meant for one server.
docs/design.md compares it with a library.
"""

import base64
import json
import os
import socket
import sys
from collections.abc import Mapping
from http.client import HTTPException
from typing import Any, NoReturn
from urllib.error import HTTPError, URLError
from urllib.parse import unquote, urlsplit, urlunsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from soulspot import __version__


class _Stay(HTTPRedirectHandler):
    def redirect_request(self, *_arguments: Any, **_more: Any) -> None:  # noqa: ANN401 - the base class's, untyped
        """Return no request: the redirect is then an error, like every answer but a success."""


def send(asked: Mapping[str, Any]) -> str:
    """Send a POST; return in one line what went wrong, "" on success."""
    try:
        with build_opener(_Stay).open(_request(asked), timeout=asked["within"]) as answer:
            answer.read(1 << 16)
    except HTTPError as error:
        return f"the answer is {error.code} {error.reason}"
    except (OSError, HTTPException, ValueError) as error:
        return _reason(error.reason if isinstance(error, URLError) else error)
    return ""


def _request(asked: Mapping[str, Any]) -> Request:
    parts = urlsplit(asked["url"])
    place = parts.netloc.rpartition("@")[2]
    request = Request(  # noqa: S310 - the settings allow http and https alone
        urlunsplit(parts._replace(netloc=place)), asked["body"].encode(), method="POST"
    )
    request.add_header("Content-Type", "application/json")
    request.add_header("User-Agent", f"soulspot/{__version__}")
    if parts.username is not None:
        user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        request.add_header("Authorization", f"Basic {base64.b64encode(user.encode()).decode()}")
    for header in asked["headers"]:
        name, _, value = header.partition(":")
        request.add_header(name, value.strip())
    return request


def _reason(error: object) -> str:
    if isinstance(error, socket.gaierror):
        return f"the host cannot be found: {error.strerror}"
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return reason.lower() or type(error).__name__


def main() -> NoReturn:
    if wrong := send(json.load(sys.stdin)):
        print(wrong.replace("\n", " "), file=sys.stderr, flush=True)  # noqa: T201 - to the daemon
    os._exit(bool(wrong))


if __name__ == "__main__":
    main()
