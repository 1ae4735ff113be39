"""Builds the web application: its routes, error pages and middleware."""

import asyncio
import logging
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

from sqlalchemy.exc import SQLAlchemyError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

from soulspot.errors import UnreachableError
from soulspot.infrastructure.catalogue_changes import CatalogueChanges
from soulspot.infrastructure.persistence.database import Database
from soulspot.infrastructure.persistence.queries.audit_log import AuditLogQueries
from soulspot.infrastructure.persistence.queries.browse import BrowseQueries
from soulspot.infrastructure.persistence.repositories import (
    AlbumRepository,
    ArtistRepository,
    FileRepository,
    FolderRepository,
    TrackRepository,
)
from soulspot.infrastructure.tags.readers.covers import Covers
from soulspot.web.actions import Actions
from soulspot.web.activity_chart import Arrivals
from soulspot.web.covers import Pictures
from soulspot.web.daemon_client import DaemonClient
from soulspot.web.live_updates import CHECK_INTERVAL, SEND_TIMEOUT, LiveUpdates
from soulspot.web.middleware import Activity, RequestGuard
from soulspot.web.pages import Pages
from soulspot.web.rendering import HERE, Rendering
from soulspot.web.sessions import WebToken

logger = logging.getLogger(__name__)


def build_app(  # noqa: PLR0913 - what all pages take, by name
    database: Database,
    daemon: DaemonClient,
    token: WebToken,
    *,
    advice: Mapping[str, str],
    hosts: Collection[str],
    activity: Activity,
) -> ASGIApp:
    browsing, files = BrowseQueries(database.session), FileRepository(database.session)
    folders = FolderRepository(database.session)
    rendering, covers, arrivals = Rendering(daemon, folders, token), Covers(), Arrivals(browsing)
    live = LiveUpdates(
        browsing,
        AuditLogQueries(database.session),
        changes=partial(CatalogueChanges.of, database, daemon.find_socket, check_interval=CHECK_INTERVAL),
        render=rendering.rows,
        health_line=rendering.word,
    )
    pages = Pages(
        rendering, browsing, TrackRepository(database.session), files, AlbumRepository(database.session),
        ArtistRepository(database.session), daemon, arrivals, advice,
    )  # fmt: skip
    actions, pictures = Actions(rendering, files, daemon, token), Pictures(covers, browsing, files)

    async def failed(request: Request, error: Exception) -> Response:
        status, says = 500, "Something went wrong here; the log says what."
        if isinstance(error, HTTPException):
            status, says = error.status_code, error.detail
        elif isinstance(error, SQLAlchemyError | UnreachableError):
            status, says = 503, "The catalogue cannot be read at the moment."
            logger.warning("the catalogue cannot be read: %s", error)
        return await rendering.page(request, "problem.html", status=status, says=says, code=status)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        try:
            yield
        finally:
            live.stop()
            arrivals.stop()
            await covers.aclose()

    routes = [
        Route("/", pages.stream, name="stream"),
        Route("/entry/{sequence:int}", pages.entry),
        Route("/search", pages.search),
        Route("/track/{id}", pages.track, name="track"),
        Route("/track/{id}/whole/{name}", pages.whole),
        Route("/albums", pages.newest_albums),
        Route("/album/{id}", pages.album),
        Route("/artists", pages.all_artists),
        Route("/artist/{id}", pages.artist),
        Route("/failures", pages.failures),
        Route("/health", pages.health),
        Route("/login", actions.login, methods=["GET", "POST"]),
        Route("/logout", actions.logout, methods=["POST"]),
        Route("/failures/retry", actions.retry, methods=["POST"]),
        Route("/cover/track/{id}", pictures.of_track),
        Route("/cover/album/{id}", pictures.of_album),
        Route("/events", Events(live)),
        Mount("/static", _Static(directory=HERE / "static")),
        Route("/favicon.ico", favicon),
    ]
    handlers: Mapping[Any, Any] = {
        HTTPException: failed, SQLAlchemyError: failed, UnreachableError: failed, Exception: failed
    }  # fmt: skip
    app = Starlette(routes=routes, exception_handlers=handlers, lifespan=lifespan)
    return RequestGuard(app, hosts, activity)


async def favicon(_request: Request) -> Response:
    return Response(status_code=204)


class _Static(StaticFiles):
    """Our own files, which change only with the version."""

    def file_response(self, *arguments: Any, **options: Any) -> Response:  # noqa: ANN401 - the base class's
        response = super().file_response(*arguments, **options)
        response.headers["Cache-Control"] = "no-cache"  # kept, and asked for again by its ETag
        return response


class Events:
    """The endpoint of server-sent events: an ASGI application of its own, because its response never ends."""

    def __init__(self, live: LiveUpdates) -> None:
        self._live = live

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope)
        if request.method != "GET":
            await PlainTextResponse("this is followed by GET\n", 405, {"Allow": "GET"})(scope, receive, send)
            return
        if self._live.is_full:
            await PlainTextResponse("too many pages are open\n", 503, {"Retry-After": "10"})(scope, receive, send)
            return
        gone = asyncio.create_task(_gone(receive), name="page: wait until it leaves")
        sending = asyncio.create_task(self._send(_last_seen(request), send), name="page: send updates")
        try:
            await asyncio.wait([gone, sending], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (gone, sending):
                task.cancel()
            await asyncio.gather(gone, sending, return_exceptions=True)

    async def _send(self, after: int | None, send: Send) -> None:
        headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-store")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        with suppress(TimeoutError, OSError), self._live.page() as page:
            await _put(send, b"retry: 2000\n\n")
            if after is not None:
                async for message in self._live.missed(after):
                    await _put(send, message.encoded())
            while not page.is_lost:
                update = await page.next()
                await _put(send, b": still here\n\n" if update is None else update.encoded())
            await _put(send, b"", is_last=True)


async def _put(send: Send, content: bytes, *, is_last: bool = False) -> None:
    """Send a part of the response; raise TimeoutError if the client does not take it in time."""
    async with asyncio.timeout(SEND_TIMEOUT):
        await send({"type": "http.response.body", "body": content, "more_body": not is_last})


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _last_seen(request: Request) -> int | None:
    text = request.headers.get("last-event-id") or request.query_params.get("after", "")
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 19 else None  # noqa: PLR2004 - of 64 bits
