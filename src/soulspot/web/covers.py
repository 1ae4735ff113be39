"""Serves the cover of a track or an album, read from the music file on request."""

import hashlib
import os
from dataclasses import dataclass
from typing import Final

from starlette.requests import Request
from starlette.responses import FileResponse, Response

from soulspot.infrastructure.filesystem import text_to_path
from soulspot.infrastructure.persistence.models import File
from soulspot.infrastructure.persistence.queries.browse import BrowseQueries
from soulspot.infrastructure.persistence.repositories import FileRepository
from soulspot.infrastructure.tags.readers.covers import Covers, kind_of_picture
from soulspot.web.pages import found_or_404
from soulspot.web.rendering import HERE

_CACHE_CONTROL: Final = "private, max-age=600"


@dataclass(frozen=True, slots=True)
class Pictures:
    covers: Covers
    browsing: BrowseQueries
    files: FileRepository

    async def of_track(self, request: Request) -> Response:
        return await self._respond(request, await self.files.with_id(request.path_params["id"]))

    async def of_album(self, request: Request) -> Response:
        return await self._respond(request, await self.browsing.file_with_cover(request.path_params["id"]))

    async def _respond(self, request: Request, row: File | None) -> Response:
        file = found_or_404(row)
        headers = {"ETag": _etag(file), "Cache-Control": _CACHE_CONTROL}
        if headers["ETag"] in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        content = await self.covers.read(text_to_path(file.full_path)) if file.missing_since is None else b""
        if (kind := kind_of_picture(content[:16])) is None:
            return FileResponse(HERE / "static" / "no-cover.svg", media_type="image/svg+xml", headers=headers)
        return Response(content, media_type=kind, headers=headers)


def _etag(file: File) -> str:
    """Return the ETag of a file's cover, which changes with the file."""
    signature = f"{file.id} {file.size} {file.mtime_ns} {file.ctime_ns} {file.inode}"
    return f'"{hashlib.blake2b(os.fsencode(signature), digest_size=12).hexdigest()}"'
