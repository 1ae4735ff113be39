"""Builds the web application: its routes, error pages and middleware."""

import asyncio
import logging
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
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
from soulspot.web.activity_chart import ActivityCounts
from soulspot.web.covers import Pictures
from soulspot.web.daemon_client import DaemonClient
from soulspot.web.live_updates import CHECK_INTERVAL, SEND_TIMEOUT, LiveUpdates
from soulspot.web.middleware import Activity, RequestGuard
from soulspot.web.pages import Pages, parse_sequence
from soulspot.web.rendering import HERE, Rendering
from soulspot.web.sessions import WebToken

logger = logging.getLogger(__name__)


def build_app(  # noqa: PLR0913 - everything that the pages need, by name
    database: Database,
    daemon: DaemonClient,
    token: WebToken,
    *,
    advice: Mapping[str, str],
    hosts: Collection[str],
    activity: Activity,
) -> ASGIApp:
    browsing, files = BrowseQueries(database.session), FileRepository(database.session)
    rendering = Rendering(daemon, FolderRepository(database.session), token)
    covers, activity_counts = Covers(), ActivityCounts(browsing)
    live = LiveUpdates(
        browsing,
        AuditLogQueries(database.session),
        changes=partial(CatalogueChanges.of, database, daemon.find_socket, check_interval=CHECK_INTERVAL),
        render=rendering.rows,
        health_line=rendering.health_line,
    )
    pages = Pages(
        rendering, browsing, TrackRepository(database.session), files, AlbumRepository(database.session),
        ArtistRepository(database.session), daemon, activity_counts, advice,
    )  # fmt: skip
    actions, pictures = Actions(rendering, files, daemon, token), Pictures(covers, browsing, files)

    async def show_error(request: Request, error: Exception) -> Response:
        status, text = 500, "Something went wrong. The log of the page has the details."
        if isinstance(error, HTTPException):
            status, text = error.status_code, error.detail
        elif isinstance(error, SQLAlchemyError | UnreachableError):
            status, text = 503, "The catalogue cannot be read at the moment. Try again in a minute."
            logger.warning("the catalogue cannot be read: %s", error)
        return await rendering.page(request, "problem.html", status=status, text=text, code=status)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        try:
            yield
        finally:
            live.stop()
            activity_counts.stop()
            await covers.aclose()

    routes = [
        Route("/", pages.stream, name="stream"),
        Route("/entry/{sequence:int}", pages.entry),
        Route("/search", pages.search),
        Route("/track/{id}", pages.track, name="track"),
        Route("/track/{id}/whole/{name}", pages.full_value),
        Route("/albums", pages.all_albums),
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
    handlers: Mapping[Any, Any] = dict.fromkeys(
        (HTTPException, SQLAlchemyError, UnreachableError, Exception), show_error
    )
    app = Starlette(routes=routes, exception_handlers=handlers, lifespan=lifespan)
    return RequestGuard(app, hosts, activity)


async def favicon(_request: Request) -> Response:
    return Response(status_code=204)


class _Static(StaticFiles):
    """The static files, which change only with the version."""

    def file_response(self, *arguments: Any, **options: Any) -> Response:  # noqa: ANN401 - the base class's
        response = super().file_response(*arguments, **options)
        response.headers["Cache-Control"] = "no-cache"  # cached, and revalidated by ETag
        return response


@dataclass(frozen=True, slots=True)
class Events:
    """The endpoint of server-sent events: an ASGI application, because its response never ends."""

    live: LiveUpdates

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope)
        if request.method != "GET":
            await PlainTextResponse("use GET for the event stream\n", 405, {"Allow": "GET"})(scope, receive, send)
            return
        if self.live.is_full:
            await PlainTextResponse("too many pages are open\n", 503, {"Retry-After": "10"})(scope, receive, send)
            return
        after = parse_sequence(request.headers.get("last-event-id") or request.query_params.get("after"))
        tasks = [
            asyncio.create_task(_wait_for_disconnect(receive), name="page: wait for disconnect"),
            asyncio.create_task(self._send(after, send), name="page: send updates"),
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _send(self, after: int | None, send: Send) -> None:
        headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-store")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        with suppress(TimeoutError, OSError), self.live.page() as page:
            await _put(send, b"retry: 2000\n\n")
            if after is not None:
                async for message in self.live.missed(after):
                    await _put(send, message.encoded())
            while not page.is_lost:
                update = await page.next()
                await _put(send, b": still here\n\n" if update is None else update.encoded())
            await _put(send, b"", is_last=True)


async def _put(send: Send, content: bytes, *, is_last: bool = False) -> None:
    """Send a part of the response; raise TimeoutError if the client does not read it in time."""
    async with asyncio.timeout(SEND_TIMEOUT):
        await send({"type": "http.response.body", "body": content, "more_body": not is_last})


async def _wait_for_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
