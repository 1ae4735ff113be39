"""A TCP proxy between soulspot and a server, which a test can break as networks and failovers do."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress


class TcpProxy:
    """Passes bytes on to a port of this machine, from a port that stays the same; it runs in a thread of its own."""

    def __init__(self, target_port: int) -> None:
        self.port = 0
        self._target_port: int | None = target_port
        self._connections: list[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = []
        self._kept_open: set[asyncio.StreamWriter] = set()
        self._is_up = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self._thread.start()
        assert self._is_up.wait(10)

    def close(self) -> None:
        self._run_in_loop(self._end.set)
        self._thread.join(10)

    def redirect(self, target_port: int | None) -> None:
        """Break all connections, and pass new ones on to another port; None refuses them."""

        def change() -> None:
            self._target_port = target_port
            self._abort_all()

        self._run_in_loop(change)

    def break_client_side(self) -> None:
        """Break the connections of soulspot only: the server does not notice."""

        def change() -> None:
            self._kept_open = {server for _client, server in self._connections}
            for client, _server in self._connections:
                client.transport.abort()

        self._run_in_loop(change)

    async def _serve(self) -> None:
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._is_up.set()
        await self._end.wait()
        server.close()
        self._abort_all()
        await asyncio.sleep(0.01)

    async def _accept(self, from_client: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        if self._target_port is None:
            client.transport.abort()
            return
        from_server, server = await asyncio.open_connection("127.0.0.1", self._target_port)
        self._connections.append((client, server))
        with suppress(ConnectionError):
            await asyncio.gather(self._pass_on(from_client, server), self._pass_on(from_server, client))

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(65536):
            writer.write(piece)
            await writer.drain()
        if writer not in self._kept_open:
            writer.close()

    def _abort_all(self) -> None:
        for connection in self._connections:
            for end in connection:
                end.transport.abort()
        self._connections.clear()

    def _run_in_loop(self, act: Callable[[], object]) -> None:
        """Run a function in the proxy's thread, and wait until it has run."""
        done = threading.Event()

        def run() -> None:
            act()
            done.set()

        self._loop.call_soon_threadsafe(run)
        assert done.wait(10)
