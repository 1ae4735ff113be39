"""How a PostgreSQL server is connected to: how long it may take, what it is told, and what it need not be asked."""

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, Literal

import asyncpg
import msgspec
from sqlalchemy import URL, Connection, NullPool, event
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine

from soulspot.errors import UnreachableError

DRIVER: Final = "postgresql+soulspot"
CONNECT_LIMIT: Final = 10.0
"""Seconds that the server has to take a connection in."""
ANSWER_LIMIT: Final = 60.0
"""Seconds that it has to answer a statement in."""
LINK_LIMIT: Final = 20
"""Seconds without a sign of life after which either side takes the network for cut."""

READERS: Final = 4
"""Connections that only read."""

# Sooner or later than LINK_LIMIT by as much as the last probe takes: what was sent and not confirmed, and silence.
_LINK_OPTIONS: Final = {
    getattr(socket, name): value
    for name, value in (
        ("TCP_USER_TIMEOUT", LINK_LIMIT * 1000),
        ("TCP_KEEPIDLE", LINK_LIMIT // 2),
        ("TCP_KEEPINTVL", LINK_LIMIT // 4),
        ("TCP_KEEPCNT", 2),
    )
    if hasattr(socket, name)
}
_SETTINGS: Final = {
    "application_name": "soulspot",
    "standard_conforming_strings": "on",
    "default_transaction_isolation": "read committed",
    # As above for the server, which would hold the locks of somebody who is gone for two hours.
    "tcp_user_timeout": f"{LINK_LIMIT}s",
    "tcp_keepalives_idle": f"{LINK_LIMIT // 2}",
    "tcp_keepalives_interval": f"{LINK_LIMIT // 4}",
    "tcp_keepalives_count": "2",
    "idle_in_transaction_session_timeout": f"{ANSWER_LIMIT:.0f}s",
}

CUT_OFF: Final = (OSError, asyncpg.InterfaceError, asyncpg.InternalClientError)
"""What the driver raises for a lost connection; the last where it was lost while a statement was being prepared."""


class _Connection(asyncpg.Connection):  # type: ignore[misc]  # the driver ships no types
    """One that is lost when the network is cut: by itself, TCP would wait for a quarter of an hour, or for ever."""

    def __init__(self, protocol: Any, transport: asyncio.Transport, *more: Any) -> None:  # noqa: ANN401 - the driver's
        super().__init__(protocol, transport, *more)
        line = transport.get_extra_info("socket")
        if line.family != socket.AF_UNIX:
            line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in _LINK_OPTIONS.items():
                line.setsockopt(socket.IPPROTO_TCP, option, value)


async def connect(*arguments: Any, **options: Any) -> asyncpg.Connection:  # noqa: ANN401 - the driver's own
    """Connect; raises UnreachableError that says why the server cannot be had, whatever the reason."""
    try:
        return await asyncpg.connect(*arguments, connection_class=_Connection, **options)
    except (asyncpg.PostgresError, *CUT_OFF) as error:  # the last of these where no host is the primary server
        why = "it does not answer" if isinstance(error, TimeoutError) else str(error) or type(error).__name__
        raise UnreachableError(why) from error


class ServerDialect(PGDialect_asyncpg):
    """asyncpg's dialect, which knows what each engine otherwise asks first, in eight round trips.

    What is overridden are the methods that a dialect is asked by (SQLAlchemy's README.dialects.rst).
    """

    driver = "soulspot"
    supports_statement_cache = True

    def _get_server_version_info(self, connection: Connection) -> tuple[int, ...]:
        version = connection.connection.driver_connection.get_server_version()  # type: ignore[union-attr]
        return version.major, version.minor, version.micro

    def _get_default_schema_name(self, connection: Connection) -> str:
        raise NotImplementedError  # the server's search path says it, and nobody here wants to know

    def get_default_isolation_level(self, dbapi_conn: Any) -> Literal["READ COMMITTED"]:  # noqa: ANN401, ARG002
        return "READ COMMITTED"  # as _SETTINGS have it

    def _set_backslash_escapes(self, connection: Connection) -> None:  # noqa: ARG002
        self._backslash_escapes = False  # as _SETTINGS have it


registry.register("postgresql.soulspot", __name__, "ServerDialect")


def engines(url: URL, connections: int) -> tuple[AsyncEngine, AsyncEngine]:
    """Return the engine of the connections that write, and of those that the server lets do nothing but read."""
    options: dict[str, Any] = {"json_serializer": to_json, "json_deserializer": msgspec.json.decode}
    options |= {"max_overflow": 0, "pool_timeout": ANSWER_LIMIT}
    reading = _arguments(default_transaction_read_only="on")
    readers = _engine(url, reading, pool_size=READERS, **options)
    event.listen(readers.sync_engine, "checkout", _refuse_lost)
    event.listen(readers.sync_engine, "before_cursor_execute", keep_nul_out, retval=True)
    return _engine(url, _arguments(), pool_size=connections, **options), readers


def unpooled(url: URL, *, answer_limit: float | None = ANSWER_LIMIT) -> AsyncEngine:
    """Return an engine whose connections are closed when they are let go; a statement may take so many seconds."""
    return _engine(url, _arguments() | {"command_timeout": answer_limit}, poolclass=NullPool)


@asynccontextmanager
async def reading(sessions: async_sessionmaker[AsyncSession]) -> AsyncIterator[AsyncSession]:
    """Yield a session that only reads; raises UnreachableError when no connection is to be had, or none answers."""
    try:
        async with sessions() as session:
            yield session
    except (PoolTimeoutError, *CUT_OFF) as error:
        raise UnreachableError(str(error) or "it does not answer") from error


def _engine(url: URL, arguments: dict[str, Any], **options: Any) -> AsyncEngine:  # noqa: ANN401 - the engine's own
    url = url.set(drivername=DRIVER)
    return create_async_engine(url, isolation_level="AUTOCOMMIT", connect_args=arguments, **options)


def _arguments(**server_settings: str) -> dict[str, Any]:
    return {
        "async_creator_fn": connect,
        "timeout": CONNECT_LIMIT,
        "command_timeout": ANSWER_LIMIT,
        "server_settings": _SETTINGS | server_settings,
    }


def _refuse_lost(connection: Any, *_more: object) -> None:  # noqa: ANN401 - SQLAlchemy's event
    """Have the pool open another connection: the driver knows of one that was closed, and need not ask the server."""
    if connection.driver_connection.is_closed():
        raise DisconnectionError


def keep_nul_out(*occasion: Any, **_more: Any) -> tuple[str, Any]:  # noqa: ANN401 - SQLAlchemy's event
    _connection, _cursor, statement, parameters, *_rest = occasion
    return statement, tuple(without_nul(list(parameters)))


def without_nul(value: Any) -> Any:  # noqa: ANN401 - whatever JSON can hold
    """Return a value in which no text holds NUL, which PostgreSQL refuses in every text."""
    if isinstance(value, str):
        return value.replace("\0", "\ufffd")
    if isinstance(value, Mapping):
        return {without_nul(key): without_nul(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [without_nul(each) for each in value]
    return value


def to_json(value: object) -> str:
    text = msgspec.json.encode(value).decode()
    return text if r"\u0000" not in text else msgspec.json.encode(without_nul(value)).decode()
