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
from soulspot.web.pages import found_or_404
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
        """Show the login form, or start a session if the token is right."""
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
        """Retry the file that the form names, or all files with its code."""
        form = await self._form_of_session(request)
        if code := form.get("code", [""])[0]:
            answer = await self.daemon.retry(code=code)
        else:
            file = found_or_404(await self.files.with_id(form.get("file", [""])[0]))
            answer = await self.daemon.retry(path=file.full_path)
        is_retrying, text = _result(answer)
        return await self.rendering.page(request, "retried.html", is_retrying=is_retrying, text=text)

    async def _form_of_session(self, request: Request) -> Form:
        """Return the form if the session and the CSRF token are valid, else refuse the request."""
        cookie, form = request.cookies.get(COOKIE, ""), await _form(request)
        if not self.token.is_session(cookie) or not self.token.is_csrf_token(cookie, form.get("csrf_token", [""])[0]):
            raise HTTPException(403, "Log in first.")
        return form


def _result(answer: Mapping[str, Any] | None) -> tuple[bool, str]:
    """Return whether a retry is under way, and a sentence for the page."""
    if answer is None:
        return False, "Not possible: no soulspot is watching. Once it runs, it retries a failed file when it changes."
    if (error := answer.get("error")) is not None:
        is_too_old = str(error).startswith("unknown command")
        return False, f"Not possible: {'the running soulspot is too old for this.' if is_too_old else error}"
    if not (count := len(answer.get("decided", ()))):
        return False, "Nothing to retry: these files no longer fail, or their folder is not watched here."
    return True, f"Retrying {count} {'file' if count == 1 else 'files'}. The results appear in the stream."


async def _form(request: Request) -> Form:
    """Return the fields of a submitted form."""
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/x-www-form-urlencoded":
        raise HTTPException(415, "Submit this as a form.")
    content = b""
    try:
        async for chunk in request.stream():
            content += chunk
            if len(content) > MAX_FORM_BYTES:
                raise HTTPException(413, "The form is too large.")
        return parse_qs(content.decode(), max_num_fields=MAX_FORM_FIELDS)
    except (ValueError, ClientDisconnect) as error:
        raise HTTPException(400, "The form is invalid.") from error
