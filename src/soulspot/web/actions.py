"""The POST actions: log in, log out, retry failures."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qs

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import RedirectResponse, Response

from soulspot.infrastructure.persistence.repositories import FileRepository
from soulspot.web.daemon_client import DaemonClient
from soulspot.web.pages import NOT_FOUND
from soulspot.web.rendering import Rendering
from soulspot.web.sessions import COOKIE, SESSION_SECONDS, WebToken

MAX_FORM_BYTES: Final = 64_000
MAX_FORM_FIELDS: Final = 8

Form = dict[str, list[str]]


@dataclass(frozen=True, slots=True)
class Actions:
    rendering: Rendering
    files: FileRepository
    daemon: DaemonClient
    token: WebToken

    async def login(self, request: Request) -> Response:
        """Ask for the token, and start a session for who knows it."""
        has_token = self.token.read() is not None
        if request.method != "POST":
            return await self.rendering.page(request, "login.html", has_token=has_token, is_wrong=False)
        form = await _form(request)
        if not self.token.is_token(form.get("token", [""])[0]):
            return await self.rendering.page(request, "login.html", status=403, has_token=has_token, is_wrong=True)
        response = RedirectResponse("/failures", 303)
        is_secure = request.headers.get("origin", "").startswith("https:")
        response.set_cookie(
            COOKIE, self.token.session(), max_age=SESSION_SECONDS, httponly=True, samesite="strict", secure=is_secure
        )
        return response

    async def logout(self, request: Request) -> Response:
        await self._form_of_session(request)
        response = RedirectResponse("/", 303)
        response.delete_cookie(COOKIE, httponly=True, samesite="strict")
        return response

    async def retry(self, request: Request) -> Response:
        """Retry the file of a form, or all files with a code."""
        form = await self._form_of_session(request)
        code, file_id = form.get("code", [""])[0], form.get("file", [""])[0]
        if code:
            answer = await self.daemon.retry(code=code)
        elif (file := await self.files.with_id(file_id)) is not None:
            answer = await self.daemon.retry(path=file.full_path)
        else:
            raise HTTPException(404, NOT_FOUND)
        return await self.rendering.page(request, "retried.html", said=_said(answer))

    async def _form_of_session(self, request: Request) -> Form:
        """Return the form if the session and the CSRF token are valid; refuse anything else."""
        cookie, form = request.cookies.get(COOKIE, ""), await _form(request)
        if not self.token.is_session(cookie) or not self.token.is_csrf_token(cookie, form.get("csrf_token", [""])[0]):
            raise HTTPException(403, "Only who is logged in may ask for this.")
        return form


def _said(answer: Mapping[str, Any] | None) -> tuple[bool, str]:
    """Return whether a retry is under way, and a sentence for the page."""
    if answer is None:
        return False, "Not possible: no soulspot is watching. It reads failed files again when they change."
    if (error := answer.get("error")) is not None:
        if str(error).startswith("unknown command"):
            return False, "Not possible: the soulspot that runs cannot be asked for this."
        return False, f"Not possible: {error}"
    count = len(answer.get("decided", ()))
    if not count:
        return False, "No failure is like that any more, in a folder that is watched here."
    are = "file is" if count == 1 else "files are"
    return True, f"{count} {are} read again; what becomes of them shows in the stream."


async def _form(request: Request) -> Form:
    """Return the fields of a form that was sent."""
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/x-www-form-urlencoded":
        raise HTTPException(415, "This takes a form.")
    content = b""
    try:
        async for chunk in request.stream():
            content += chunk
            if len(content) > MAX_FORM_BYTES:
                raise HTTPException(413, "That form is too long.")
        return parse_qs(content.decode(), max_num_fields=MAX_FORM_FIELDS)
    except (ValueError, ClientDisconnect) as error:
        raise HTTPException(400, "That is no form.") from error
