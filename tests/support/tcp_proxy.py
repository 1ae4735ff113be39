"""A line between soulspot and a server, in a thread of its own, that a test can break as networks and failovers do."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress


class Line:
    """Passes bytes on to a port of this machine. It always has the same port of its own, whatever it leads to."""

    def __init__(self, leads_to: int) -> None:
        self.port = 0
        self._leads_to: int | None = leads_to
        self._ends: list[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = []
        self._kept: set[asyncio.StreamWriter] = set()
        self._is_up = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self._thread.start()
        assert self._is_up.wait(10)

    def close(self) -> None:
        self._do(self._end.set)
        self._thread.join(10)

    def lead_to(self, port: int | None) -> None:
        """Break what there is, and lead new connections to another port, or nowhere."""

        def change() -> None:
            self._leads_to = port
            self._hang_up()

        self._do(change)

    def break_this_side(self) -> None:
        """Break the connections of soulspot, and let the server think that they are well."""

        def change() -> None:
            self._kept = {there for _here, there in self._ends}
            for here, _there in self._ends:
                here.transport.abort()

        self._do(change)

    async def _serve(self) -> None:
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._is_up.set()
        await self._end.wait()
        server.close()
        self._hang_up()
        await asyncio.sleep(0.01)

    async def _accept(self, reader: asyncio.StreamReader, here: asyncio.StreamWriter) -> None:
        if self._leads_to is None:
            here.transport.abort()
            return
        answers, there = await asyncio.open_connection("127.0.0.1", self._leads_to)
        self._ends.append((here, there))
        with suppress(ConnectionError):
            await asyncio.gather(self._pass_on(reader, there), self._pass_on(answers, here))

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(65536):
            writer.write(piece)
            await writer.drain()
        if writer not in self._kept:
            writer.close()

    def _hang_up(self) -> None:
        for each in self._ends:
            for end in each:
                end.transport.abort()
        self._ends.clear()

    def _do(self, act: Callable[[], object]) -> None:
        done = threading.Event()

        def acting() -> None:
            act()
            done.set()

        self._loop.call_soon_threadsafe(acting)
        assert done.wait(10)
