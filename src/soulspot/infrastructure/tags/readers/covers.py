"""Covers, read from their files on demand, in a process of their own: a hang, a bomb or a crash costs one picture."""

import asyncio
import os
import sys
from contextlib import suppress
from typing import Final

from soulspot.infrastructure.privileges import child_user
from soulspot.infrastructure.tags.readers.frames import LENGTH
from soulspot.infrastructure.tags.readers.pool import environment

MEMORY_LIMIT: Final = 384 << 20
TIME_LIMIT: Final = 8.0
"""Seconds that taking one picture out of a file may take."""
WAITING: Final = 64
"""Who may wait for a picture at once; one more gets none."""
IDLE: Final = 30.0
"""Seconds without a question after which the process ends."""


def kind_of_picture(start: bytes) -> str | None:
    """Return the MIME type of a picture by its first bytes, None for whatever else."""
    if start.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if start.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return "image/webp"
    return "image/gif" if start[:6] in {b"GIF87a", b"GIF89a"} else None


class Covers:
    """Takes pictures out of files, one after the other; the process starts at the first, and ends when it is idle."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()
        self._waiting = 0
        self._process: asyncio.subprocess.Process | None = None
        self._farewell: asyncio.TimerHandle | None = None

    async def read(self, path: str) -> bytes:
        """Return the cover of a file: a JPEG, PNG, WebP or GIF; b"" where there is none to be had."""
        if self._waiting >= WAITING:
            return b""
        self._waiting += 1
        try:
            async with self._turn:
                return await self._ask(path)
        finally:
            self._waiting -= 1

    async def _ask(self, path: str) -> bytes:
        if self._farewell is not None:
            self._farewell.cancel()
        is_answered = False
        try:
            if self._process is None or self._process.returncode is not None:
                self._process = await asyncio.create_subprocess_exec(
                    sys.executable, "-m", "soulspot.infrastructure.tags.readers.cover_process", str(MEMORY_LIMIT),
                    stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
                    env=environment(), **child_user(),
                )  # fmt: skip
            content = await asyncio.wait_for(_question(self._process, os.fsencode(path)), TIME_LIMIT)
            is_answered = True
        except (TimeoutError, asyncio.IncompleteReadError, ConnectionError):
            return b""
        else:
            self._farewell = asyncio.get_running_loop().call_later(IDLE, self._end)
            return content
        finally:
            if not is_answered:  # also when who asked has gone: the answer would be taken for that to another question
                self._end()

    def _end(self) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.kill()
            self._process = None

    async def aclose(self) -> None:
        if self._farewell is not None:
            self._farewell.cancel()
        process = self._process
        self._end()
        if process is not None:
            await process.wait()


async def _question(process: asyncio.subprocess.Process, path: bytes) -> bytes:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(LENGTH.pack(len(path)) + path)
    await process.stdin.drain()
    (length,) = LENGTH.unpack(await process.stdout.readexactly(LENGTH.size))
    return await process.stdout.readexactly(length)
