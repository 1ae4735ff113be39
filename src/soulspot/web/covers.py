"""Covers: the picture of one track, or of one album, read from the file when somebody looks."""

import hashlib
import os
from dataclasses import dataclass
from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response

from soulspot.infrastructure.filesystem import text_to_path
from soulspot.infrastructure.persistence.models import File
from soulspot.infrastructure.persistence.queries.browse import BrowseQueries
from soulspot.infrastructure.persistence.repositories import FileRepository
from soulspot.infrastructure.tags.readers.covers import Covers, kind_of_picture
from soulspot.web.pages import NOT_FOUND
from soulspot.web.rendering import HERE

_KEPT: Final = "private, max-age=600"


@dataclass(frozen=True, slots=True)
class Pictures:
    covers: Covers
    browsing: BrowseQueries
    files: FileRepository

    async def of_track(self, request: Request) -> Response:
        return await self._answer(request, await self.files.with_id(request.path_params["id"]))

    async def of_album(self, request: Request) -> Response:
        return await self._answer(request, await self.browsing.file_with_cover(request.path_params["id"]))

    async def _answer(self, request: Request, file: File | None) -> Response:
        if file is None:
            raise HTTPException(404, NOT_FOUND)
        headers = {"ETag": _tag(file), "Cache-Control": _KEPT}
        if headers["ETag"] in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        path = text_to_path(file.full_path)
        content = await self.covers.read(path) if file.missing_since is None else b""
        kind = kind_of_picture(content[:16])
        if kind is None:
            return FileResponse(HERE / "static" / "no-cover.svg", media_type="image/svg+xml", headers=headers)
        return Response(content, media_type=kind, headers=headers)


def _tag(file: File) -> str:
    """Return the ETag of a file's cover: another one when the file has changed."""
    signature = f"{file.id} {file.size} {file.mtime_ns} {file.ctime_ns} {file.inode}"
    return f'"{hashlib.blake2b(os.fsencode(signature), digest_size=12).hexdigest()}"'
