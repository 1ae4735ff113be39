"""Runs the migrations, for the alembic command and for soulspot at start.

soulspot passes its URL as the attribute "url" of the config; the alembic command takes it from the settings. The URL
names an async driver and alembic is sync, so the driver is replaced in the parsed URL: replacing text would break on a
`%` or an `@` in a password.
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
    """Write our column types into a migration as the plain types they wrap, so that it never imports our code."""
    if kind == "type" and isinstance(item, models.UTCDateTime):
        return "sa.DateTime(timezone=True)"
    if kind == "type" and isinstance(item, models.JSONValue):
        autogen_context.imports.add("from sqlalchemy.dialects import postgresql")
        return 'sa.JSON().with_variant(postgresql.JSONB(), "postgresql")'
    return False


def include_name(name: str | None, kind: str, _parents: object) -> bool:
    """Ignore the partitions of the audit log: `soulspot db partition` creates them, not the models."""
    return not (kind == "table" and (name or "").startswith("audit_log_"))


models.set_postgresql_options()
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
    """Run each migration in one transaction, so that an interrupted one leaves nothing behind.

    By default the driver commits after each statement. Foreign keys stay off: when batch mode replaces a table, they
    would delete the rows that refer to it.
    """

    @sa.event.listens_for(engine, "connect")
    def connect(connection: Any, _record: object) -> None:
        connection.isolation_level = None
        connection.execute("PRAGMA busy_timeout=5000")
        # Lets batch mode drop a table and rename a new one to it while views refer to it.
        connection.execute("PRAGMA legacy_alter_table=ON")
        # A transaction changes a little in some twenty pages, and the log stores whole pages. For new databases only.
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
