"""Renders the pages as HTML: one template per page, with every value escaped."""

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
"""Seconds for which the list of watched folders is reused."""


class Rendering:
    """Renders templates, with the values that every page needs."""

    def __init__(self, daemon: DaemonClient, folders: FolderRepository, token: WebToken) -> None:
        self._daemon, self._folders, self._token = daemon, folders, token
        self._folder_paths: Sequence[str] = ()
        self._queried_at = -FOLDERS_MAX_AGE
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
            "relative": self._relative,
        }
        self._templates.globals |= {"kind_of": kind_of, "word_for": word_for}

    async def page(self, request: Request, name: str, *, status: int = 200, **values: Any) -> Response:  # noqa: ANN401 - the template's
        await self._refresh_folders()
        cookie = request.cookies.get(COOKIE, "")
        is_logged_in = self._token.is_session(cookie)
        common = {
            "health": await self._daemon.health_line(),
            "url_path": request.url.path,
            "is_logged_in": is_logged_in,
            "csrf_token": self._token.csrf_token(cookie) if is_logged_in else "",
        }
        return HTMLResponse(self._templates.get_template(name).render(common | values), status)

    def rows(self, entries: Sequence[Entry], more: int = 0) -> str:
        """Return entries as the rows of a list, with a line for `more` entries left out."""
        return self._templates.get_template("_entries.html").render(entries=entries, more=more)

    async def health_line(self) -> str:
        return self._templates.get_template("_health.html").render(health=await self._daemon.health_line())

    async def _refresh_folders(self) -> None:
        """Query the watched folders: paths are shown relative to them."""
        if time.monotonic() - self._queried_at >= FOLDERS_MAX_AGE:
            with suppress(SQLAlchemyError, UnreachableError):  # until they are known, full paths are shown
                paths = {f"{each.path.rstrip('/')}/" for each in await self._folders.all()}
                self._folder_paths = sorted(paths, key=len, reverse=True)
                self._queried_at = time.monotonic()

    def _relative(self, path: object) -> str:
        text = str(path)
        return text.removeprefix(next((folder for folder in self._folder_paths if text.startswith(folder)), ""))
