"""Instruments of performers, time of failure, and the album that another was split from

Revision ID: 1f24947f7a74
Revises: c6bee394dd21
Create Date: 2026-11-24 15:05:49.263051+00:00
"""

import sqlalchemy as sa
from alembic import op

revision = "1f24947f7a74"
down_revision = "c6bee394dd21"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("albums", sa.Column("split_from", sa.String(length=255), nullable=True))
    op.add_column("track_artists", sa.Column("instrument", sa.String(length=255), nullable=True))
    op.add_column("files", sa.Column("failed_at", sa.DateTime(timezone=True), nullable=True))
    op.create_index(
        "ix_files_failed_at",
        "files",
        ["failed_at"],
        unique=False,
        sqlite_where=sa.text("failed_at IS NOT NULL"),
        postgresql_where=sa.text("failed_at IS NOT NULL"),
    )
    op.execute(
        "UPDATE files SET failed_at = (SELECT max(audit_log.at) FROM audit_log"
        " WHERE audit_log.entity_id = files.id AND audit_log.action = 'file_failed') WHERE error_code IS NOT NULL"
    )


def downgrade() -> None:
    op.drop_index(
        "ix_files_failed_at",
        table_name="files",
        sqlite_where=sa.text("failed_at IS NOT NULL"),
        postgresql_where=sa.text("failed_at IS NOT NULL"),
    )
    op.execute("UPDATE files SET status = 'failed' WHERE status = 'ignored'")
    op.drop_column("files", "failed_at")
    op.drop_column("track_artists", "instrument")
    op.drop_column("albums", "split_from")
