"""Makes HTML: one template a page, and every value in it escaped."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from soulspot.infrastructure.persistence.browsing import Entry
from soulspot.web import texts
from soulspot.web.daemon import Daemon
from soulspot.web.keys import COOKIE, Keys
from soulspot.web.kinds import kind_of, word_for
from soulspot.words import duration

HERE = Path(__file__).parent


class Rendering:
    """Makes a page for who asks: what every page has, around what the one has."""

    def __init__(self, daemon: Daemon, keys: Keys) -> None:
        self._daemon, self._keys = daemon, keys
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
        }
        self._templates.globals |= {"kind_of": kind_of, "word_for": word_for}

    async def page(self, request: Request, name: str, *, status: int = 200, **values: Any) -> Response:  # noqa: ANN401 - the template's
        cookie = request.cookies.get(COOKIE, "")
        is_known = self._keys.is_session(cookie)
        common = {
            "word": await self._daemon.word(),
            "path": request.url.path,
            "is_known": is_known,
            "seal": self._keys.form(cookie) if is_known else "",
            "here": request.url.path,
        }
        html = await self._render(name, common | values)
        return HTMLResponse(html, status)

    async def _render(self, name: str, values: dict[str, Any]) -> str:
        return self._templates.get_template(name).render(values)

    def rows(self, entries: Sequence[Entry], more: int = 0) -> str:
        """Return entries as the rows of a list, and of how many more nothing is shown."""
        return self._templates.get_template("_entries.html").render(entries=entries, more=more)

    async def word(self) -> str:
        return self._templates.get_template("_word.html").render(word=await self._daemon.word())
