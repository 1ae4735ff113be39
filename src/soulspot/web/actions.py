"""What is asked by POST: to be let in, to be forgotten, to have failures read again."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qs

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import RedirectResponse, Response

from soulspot.infrastructure.persistence.repositories import FileRepository
from soulspot.web.daemon_client import Daemon
from soulspot.web.pages import NOT_FOUND
from soulspot.web.rendering import Rendering
from soulspot.web.sessions import COOKIE, SESSION, Keys

LONGEST_FORM: Final = 64_000
"""Bytes of a form that are read."""
FIELDS: Final = 8
"""Fields of a form that are read."""

Form = dict[str, list[str]]


@dataclass(frozen=True, slots=True)
class Actions:
    rendering: Rendering
    files: FileRepository
    daemon: Daemon
    keys: Keys

    async def login(self, request: Request) -> Response:
        """Ask for the token, and remember who knew it."""
        has_token = self.keys.token() is not None
        if request.method != "POST":
            return await self.rendering.page(request, "login.html", has_token=has_token, is_wrong=False)
        form = await _form(request)
        if not self.keys.is_token(form.get("token", [""])[0]):
            return await self.rendering.page(request, "login.html", status=403, has_token=has_token, is_wrong=True)
        response = RedirectResponse("/failures", 303)
        is_secure = request.headers.get("origin", "").startswith("https:")
        response.set_cookie(
            COOKIE, self.keys.session(), max_age=SESSION, httponly=True, samesite="strict", secure=is_secure
        )
        return response

    async def logout(self, request: Request) -> Response:
        await self._known(request)
        response = RedirectResponse("/", 303)
        response.delete_cookie(COOKIE, httponly=True, samesite="strict")
        return response

    async def retry(self, request: Request) -> Response:
        """Have the files of a form, or those of a code, read again."""
        form = await self._known(request)
        code, file_id = form.get("code", [""])[0], form.get("file", [""])[0]
        if code:
            answer = await self.daemon.retry(code=code)
        elif (file := await self.files.with_id(file_id)) is not None:
            answer = await self.daemon.retry(path=file.full_path)
        else:
            raise HTTPException(404, NOT_FOUND)
        return await self.rendering.page(request, "retried.html", said=_said(answer))

    async def _known(self, request: Request) -> Form:
        """Return the form of who is logged in; anybody else is refused."""
        cookie, form = request.cookies.get(COOKIE, ""), await _form(request)
        if not self.keys.is_session(cookie) or not self.keys.is_form(cookie, form.get("seal", [""])[0]):
            raise HTTPException(403, "Only who is logged in may ask for this.")
        return form


def _said(answer: Mapping[str, Any] | None) -> tuple[bool, str]:
    """Return whether a retry is under way, and what there is to say."""
    if answer is None:
        return False, "Not possible: no soulspot is watching. It reads failed files again when they change."
    if (error := answer.get("error")) is not None:
        if "is no question" in str(error):
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
            if len(content) > LONGEST_FORM:
                raise HTTPException(413, "That form is too long.")
        return parse_qs(content.decode(), max_num_fields=FIELDS)
    except (ValueError, ClientDisconnect) as error:
        raise HTTPException(400, "That is no form.") from error
