"""Connections to a PostgreSQL server: their timeouts and settings, and a dialect that saves round trips."""

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
"""Timeout for opening a connection, in seconds."""
ANSWER_LIMIT: Final = 60.0
"""Timeout for a statement, in seconds."""
LINK_LIMIT: Final = 20
"""Seconds of silence after which either side gives the connection up."""
READERS: Final = 4
"""Connections that only read."""

# Unacknowledged data and silence both end the connection after LINK_LIMIT, give or take one probe.
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
    # The same for the server, which would keep the locks of a dead client for two hours.
    "tcp_user_timeout": f"{LINK_LIMIT}s",
    "tcp_keepalives_idle": f"{LINK_LIMIT // 2}",
    "tcp_keepalives_interval": f"{LINK_LIMIT // 4}",
    "tcp_keepalives_count": "2",
    "idle_in_transaction_session_timeout": f"{ANSWER_LIMIT:.0f}s",
}

CUT_OFF: Final = (OSError, asyncpg.InterfaceError, asyncpg.InternalClientError)
"""The driver's errors for a lost connection; the last if it was lost while a statement was being prepared."""
NO_ANSWER: Final = "it does not answer"


class _Connection(asyncpg.Connection):  # type: ignore[misc]  # the driver ships no types
    """A connection that ends when the network is cut; TCP alone would wait for 15 minutes, or forever."""

    def __init__(self, protocol: Any, transport: asyncio.Transport, *more: Any) -> None:  # noqa: ANN401 - the driver's
        super().__init__(protocol, transport, *more)
        connected = transport.get_extra_info("socket")
        if connected.family != socket.AF_UNIX:
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in _LINK_OPTIONS.items():
                connected.setsockopt(socket.IPPROTO_TCP, option, value)


async def connect(*arguments: Any, **options: Any) -> asyncpg.Connection:  # noqa: ANN401 - the driver's own
    """Connect; raises UnreachableError, with the reason."""
    try:
        return await asyncpg.connect(*arguments, connection_class=_Connection, **options)
    except (asyncpg.PostgresError, *CUT_OFF) as error:  # the last of these if no host is the primary server
        reason = NO_ANSWER if isinstance(error, TimeoutError) else str(error) or type(error).__name__
        raise UnreachableError(reason) from error


class ServerDialect(PGDialect_asyncpg):
    """asyncpg's dialect, without the eight round trips in which each engine first inspects the server.

    It overrides methods that dialects are meant to override (SQLAlchemy's README.dialects.rst).
    """

    driver = "soulspot"
    supports_statement_cache = True

    def _get_server_version_info(self, connection: Connection) -> tuple[int, ...]:
        version = connection.connection.driver_connection.get_server_version()  # type: ignore[union-attr]
        return version.major, version.minor, version.micro

    def _get_default_schema_name(self, connection: Connection) -> str:
        raise NotImplementedError  # the server's search path decides, and no statement needs the name

    def get_default_isolation_level(self, dbapi_conn: Any) -> Literal["READ COMMITTED"]:  # noqa: ANN401, ARG002
        return "READ COMMITTED"  # as in _SETTINGS

    def _set_backslash_escapes(self, connection: Connection) -> None:  # noqa: ARG002
        self._backslash_escapes = False  # as in _SETTINGS


registry.register("postgresql.soulspot", __name__, "ServerDialect")


def engines(url: URL, connections: int) -> tuple[AsyncEngine, AsyncEngine]:
    """Return the engine of the connections that write, and of those that the server only lets read."""
    options: dict[str, Any] = {
        "json_serializer": to_json,
        "json_deserializer": msgspec.json.decode,
        "max_overflow": 0,
        "pool_timeout": ANSWER_LIMIT,
    }
    readers = _engine(url, _arguments(default_transaction_read_only="on"), pool_size=READERS, **options)
    event.listen(readers.sync_engine, "checkout", _refuse_lost)
    event.listen(readers.sync_engine, "before_cursor_execute", replace_nul, retval=True)
    return _engine(url, _arguments(), pool_size=connections, **options), readers


def unpooled(url: URL, *, answer_limit: float | None = ANSWER_LIMIT) -> AsyncEngine:
    """Return an engine that closes connections on release; `answer_limit` is the timeout of a statement, in seconds."""
    return _engine(url, _arguments() | {"command_timeout": answer_limit}, poolclass=NullPool)


@asynccontextmanager
async def reading(sessions: async_sessionmaker[AsyncSession]) -> AsyncIterator[AsyncSession]:
    """Yield a session that only reads; raises UnreachableError if no connection is free, or it does not answer."""
    try:
        async with sessions() as session:
            yield session
    except (PoolTimeoutError, *CUT_OFF) as error:
        raise UnreachableError(str(error) or NO_ANSWER) from error


def _engine(url: URL, arguments: dict[str, Any], **options: Any) -> AsyncEngine:  # noqa: ANN401 - the engine's own
    return create_async_engine(
        url.set(drivername=DRIVER), isolation_level="AUTOCOMMIT", connect_args=arguments, **options
    )


def _arguments(**server_settings: str) -> dict[str, Any]:
    return {
        "async_creator_fn": connect,
        "timeout": CONNECT_LIMIT,
        "command_timeout": ANSWER_LIMIT,
        "server_settings": _SETTINGS | server_settings,
    }


def _refuse_lost(connection: Any, *_more: object) -> None:  # noqa: ANN401 - SQLAlchemy's event
    """Make the pool replace a connection that the driver knows to be closed, without a round trip."""
    if connection.driver_connection.is_closed():
        raise DisconnectionError


def replace_nul(*occasion: Any, **_more: Any) -> tuple[str, Any]:  # noqa: ANN401 - SQLAlchemy's event
    """Replace NUL, which PostgreSQL refuses in every text, in a statement's parameters."""
    _connection, _cursor, statement, parameters, *_rest = occasion
    return statement, tuple(without_nul(list(parameters)))


def without_nul(value: Any) -> Any:  # noqa: ANN401 - anything that JSON can hold
    """Return a value with a replacement character for each NUL in its texts."""
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
