"""Runs the migrations: by alembic's own command, or by soulspot itself at start.

The URL is the settings' own, an async one; alembic is sync, so the driver is exchanged here, on the parsed URL: text
surgery would break on a `%` or an `@` in a password. soulspot passes its URL as the attribute "url" of the config.
"""

from logging.config import fileConfig
from typing import Any, Literal

import sqlalchemy as sa
from alembic import context

from soulspot.infrastructure.persistence import models

SYNC_DRIVERS = {"sqlite": "sqlite", "postgresql": "postgresql+psycopg"}


def sync_url() -> sa.URL:
    async_url = context.config.attributes.get("url")
    if async_url is None:
        from soulspot.config import get_settings

        async_url = get_settings().database.url
    url = sa.make_url(async_url)
    return url.set(drivername=SYNC_DRIVERS[url.get_backend_name()])


def render_item(kind: str, item: object, autogen_context: Any) -> str | Literal[False]:
    """Write our column types into a migration as the plain types they are, so that it never depends on our code."""
    if kind == "type" and isinstance(item, models.UTCDateTime):
        return "sa.DateTime(timezone=True)"
    if kind == "type" and isinstance(item, models.JSONValue):
        autogen_context.imports.add("from sqlalchemy.dialects import postgresql")
        return 'sa.JSON().with_variant(postgresql.JSONB(), "postgresql")'
    return False


def include_name(name: str | None, kind: str, _parents: object) -> bool:
    """Leave the parts of an audit log that was parted alone: `soulspot db partition` makes them, not the models."""
    return not (kind == "table" and (name or "").startswith("audit_log_"))


models.tell_postgresql()
OPTIONS: dict[str, Any] = {
    "target_metadata": models.Base.metadata,
    "render_as_batch": True,  # SQLite cannot alter most things in place
    "render_item": render_item,
    "include_name": include_name,
    "compare_type": True,
    "transaction_per_migration": True,
}


def print_migrations() -> None:
    context.configure(url=sync_url(), literal_binds=True, dialect_opts={"paramstyle": "named"}, **OPTIONS)
    with context.begin_transaction():
        context.run_migrations()


def run_migrations() -> None:
    url = sync_url()
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    if url.get_backend_name() == "sqlite":
        make_ddl_transactional(engine)
    with engine.connect() as connection:
        context.configure(connection=connection, **OPTIONS)
        with context.begin_transaction():
            context.run_migrations()
    engine.dispose()


def make_ddl_transactional(engine: sa.Engine) -> None:
    """Let a migration that is cut short leave nothing behind: the driver by itself would commit each statement.

    Foreign keys stay off, as a table that batch mode exchanges would take its referring rows along.
    """

    @sa.event.listens_for(engine, "connect")
    def connect(connection: Any, _record: object) -> None:
        connection.isolation_level = None
        connection.execute("PRAGMA busy_timeout=5000")
        # Batch mode drops a table and gives its name to a new one; the views on it are not to be in the way meanwhile.
        connection.execute("PRAGMA legacy_alter_table=ON")
        # A file's transaction touches some twenty pages a little, and each goes into the log whole. New databases only.
        connection.execute("PRAGMA page_size=2048")

    @sa.event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")


if context.config.config_file_name is not None and not context.config.attributes.get("embedded"):
    fileConfig(context.config.config_file_name, disable_existing_loggers=False)

if context.is_offline_mode():
    print_migrations()
else:
    run_migrations()
