"""Covers, read on demand in a process of their own: a hang, a bomb or a crash costs one picture."""

import asyncio
import os
import sys
from contextlib import suppress
from typing import Final

from soulspot.infrastructure.privileges import child_user
from soulspot.infrastructure.tags.readers.frames import LENGTH
from soulspot.infrastructure.tags.readers.pool import reader_environment

MEMORY_LIMIT: Final = 384 << 20
TIME_LIMIT: Final = 8.0
"""Seconds to extract one picture."""
MAX_WAITING: Final = 64
"""Requests that may wait; any further one gets no picture."""
IDLE_SECONDS: Final = 30.0
"""Time without a request after which the process ends."""


def kind_of_picture(start: bytes) -> str | None:
    """Return the MIME type of a picture from its first bytes, None for an unknown format."""
    if start.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if start.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return "image/webp"
    return "image/gif" if start[:6] in {b"GIF87a", b"GIF89a"} else None


class Covers:
    """Extracts pictures from files, one at a time; starts its process on the first request, ends it when idle."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._waiting = 0
        self._process: asyncio.subprocess.Process | None = None
        self._idle_timer: asyncio.TimerHandle | None = None

    async def read(self, path: str) -> bytes:
        """Return the cover of a file, a JPEG, PNG, WebP or GIF; b"" if it has none or reading fails."""
        if self._waiting >= MAX_WAITING:
            return b""
        self._waiting += 1
        try:
            async with self._lock:
                return await self._request(path)
        finally:
            self._waiting -= 1

    async def _request(self, path: str) -> bytes:
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        try:
            if self._process is None or self._process.returncode is not None:
                self._process = await asyncio.create_subprocess_exec(
                    sys.executable, "-m", "soulspot.infrastructure.tags.readers.cover_process", str(MEMORY_LIMIT),
                    stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
                    env=reader_environment(), **child_user(),
                )  # fmt: skip
            content = await asyncio.wait_for(_exchange(self._process, os.fsencode(path)), TIME_LIMIT)
        except (TimeoutError, asyncio.IncompleteReadError, ConnectionError):
            self._kill()
            return b""
        except asyncio.CancelledError:
            self._kill()  # else the next request would get the answer to this one
            raise
        self._idle_timer = asyncio.get_running_loop().call_later(IDLE_SECONDS, self._kill)
        return content

    def _kill(self) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.kill()
            self._process = None

    async def aclose(self) -> None:
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        process = self._process
        self._kill()
        if process is not None:
            await process.wait()


async def _exchange(process: asyncio.subprocess.Process, path: bytes) -> bytes:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(LENGTH.pack(len(path)) + path)
    await process.stdin.drain()
    (length,) = LENGTH.unpack(await process.stdout.readexactly(LENGTH.size))
    return await process.stdout.readexactly(length)
