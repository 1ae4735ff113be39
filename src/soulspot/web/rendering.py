"""Makes HTML: one template a page, and every value in it escaped."""

import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from sqlalchemy.exc import SQLAlchemyError
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from soulspot.errors import UnreachableError
from soulspot.infrastructure.persistence.queries.browse import Entry
from soulspot.infrastructure.persistence.repositories import FolderRepository
from soulspot.reports.formatting import duration
from soulspot.web import texts
from soulspot.web.daemon_client import DaemonClient
from soulspot.web.event_kinds import kind_of, word_for
from soulspot.web.sessions import COOKIE, WebToken

HERE = Path(__file__).parent
FOLDERS_MAX_AGE: Final = 30.0
"""Seconds for which the list of watched folders is used."""


class Rendering:
    """Makes a page for who asks: what every page has, around what the one has."""

    def __init__(self, daemon: DaemonClient, folders: FolderRepository, token: WebToken) -> None:
        self._daemon, self._folders, self._token = daemon, folders, token
        self._tops: tuple[str, ...] = ()
        self._learned = -FOLDERS_MAX_AGE
        self._templates = Environment(
            loader=FileSystemLoader(HERE / "templates"),
            autoescape=True,
            auto_reload=False,
            trim_blocks=True,
            lstrip_blocks=True,
            undefined=StrictUndefined,
        )
        self._templates.filters |= {
            "shown": texts.shown,
            "moment": texts.moment,
            "changes": texts.changes,
            "change": texts.change,
            "size": texts.size,
            "length": duration,
            "visible": texts.visible,
            "below": self._below,
        }
        self._templates.globals |= {"kind_of": kind_of, "word_for": word_for}

    async def page(self, request: Request, name: str, *, status: int = 200, **values: Any) -> Response:  # noqa: ANN401 - the template's
        await self.learn_folders()
        cookie = request.cookies.get(COOKIE, "")
        is_known = self._token.is_session(cookie)
        common = {
            "word": await self._daemon.word(),
            "path": request.url.path,
            "is_known": is_known,
            "csrf_token": self._token.csrf_token(cookie) if is_known else "",
            "here": request.url.path,
        }
        return HTMLResponse(self._templates.get_template(name).render(common | values), status)

    def rows(self, entries: Sequence[Entry], more: int = 0) -> str:
        """Return entries as the rows of a list, and of how many more nothing is shown."""
        return self._templates.get_template("_entries.html").render(entries=entries, more=more)

    async def learn_folders(self) -> None:
        """Keep in mind which folders are watched: the path of a file is shown from there on."""
        if time.monotonic() - self._learned >= FOLDERS_MAX_AGE:
            with suppress(SQLAlchemyError, UnreachableError):  # the whole path will do
                tops = {f"{each.path.rstrip('/')}/" for each in await self._folders.all()}
                self._tops = tuple(sorted(tops, key=len, reverse=True))
                self._learned = time.monotonic()

    def _below(self, path: object) -> str:
        text = str(path)
        return text.removeprefix(next((top for top in self._tops if text.startswith(top)), ""))

    async def word(self) -> str:
        return self._templates.get_template("_word.html").render(word=await self._daemon.word())
