"""Runs a program of the user with a text on its standard input and a time limit; it never outlives the caller.

Only the last line of its output is kept. soulspot does not wait for children that it leaves running.
"""

import asyncio
import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Final

from soulspot.infrastructure.privileges import child_user

KEPT_OUTPUT: Final = 2048
"""Last bytes of a program's output that are kept."""
KILL_AFTER: Final = 1.0
"""Seconds between SIGTERM and SIGKILL."""
_PASSED_ON: Final = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TZ", "TMPDIR")


def plain_environment(*also: str) -> dict[str, str]:
    """Return the environment variables that every program needs, without those for soulspot."""
    return {name: os.environ[name] for name in (*_PASSED_ON, *also) if name in os.environ}


async def run(argv: Sequence[str], text: bytes, *, within: float, environment: Mapping[str, str]) -> str | None:
    """Run a program to its end; return in one line what went wrong, None on success."""
    printed = bytearray()
    with _as_file(text) as given, _gathering(printed) as output:
        try:
            process = await asyncio.create_subprocess_exec(
                *argv,
                stdin=given,
                stdout=output,
                stderr=output,
                env=environment,
                cwd="/",
                start_new_session=True,
                **child_user(),
            )
        except OSError as error:
            return f"{argv[0]} cannot be run: {(error.strerror or str(error)).lower()}"
        finally:
            os.close(output)
        try:
            async with asyncio.timeout(within):
                code = await process.wait()
        except TimeoutError:
            return f"it took longer than {within:g} s"
        finally:
            if process.returncode is None:
                await _end(process)
    if code == 0:
        return None
    last_line = bytes(printed).decode(errors="replace").strip().rpartition("\n")[2]
    how = f"exit code {code}" if code > 0 else f"ended by {signal.Signals(-code).name}"
    return f"{how}: {last_line}" if last_line else how


@contextmanager
def _as_file(text: bytes) -> Iterator[int]:
    """Yield a descriptor to read a text from; unlike a pipe, it does not block if the program never reads it."""
    descriptor = os.memfd_create("soulspot")
    try:
        os.write(descriptor, text)
        os.lseek(descriptor, 0, os.SEEK_SET)
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _gathering(printed: bytearray) -> Iterator[int]:
    """Yield a descriptor to write to, which the caller closes; `printed` gets the end of what is written.

    Not an asyncio pipe: asyncio would wait for every process that inherits it.
    """
    loop = asyncio.get_running_loop()
    read, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    os.set_blocking(write, True)

    def gather() -> None:
        with suppress(BlockingIOError):
            if not (some := os.read(read, 65_536)):
                loop.remove_reader(read)
            printed.extend(some[-KEPT_OUTPUT:])
            del printed[:-KEPT_OUTPUT]

    loop.add_reader(read, gather)
    try:
        yield write
        gather()
    finally:
        loop.remove_reader(read)
        os.close(read)


async def _end(process: asyncio.subprocess.Process) -> None:
    """End a program and its process group; kill them at once if cancelled."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
        try:
            async with asyncio.timeout(KILL_AFTER):
                await process.wait()
        except TimeoutError:
            pass
        finally:
            os.killpg(process.pid, signal.SIGKILL)
    await process.wait()
