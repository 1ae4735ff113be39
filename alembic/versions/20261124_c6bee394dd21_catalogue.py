"""Catalogue of artists, albums, tracks, files and their history

Revision ID: c6bee394dd21
Revises:
Create Date: 2026-11-24 00:00:04.767858+00:00
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "c6bee394dd21"
down_revision = None
branch_labels = None
depends_on = None

json_value = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")
path_text = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
sequence = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "artists",
        sa.Column("id", sa.String(length=255), nullable=False),
        sa.Column("name", sa.String(length=500), nullable=False),
        sa.Column("name_key", sa.String(length=500), nullable=False),
        sa.Column("sort_name", sa.String(length=500), nullable=True),
        sa.Column("musicbrainz_id", sa.String(length=36), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_artists")),
        sa.UniqueConstraint("musicbrainz_id", name=op.f("uq_artists_musicbrainz_id")),
    )
    op.create_index(op.f("ix_artists_name_key"), "artists", ["name_key"], unique=False)
    op.create_index(
        "uq_artists_name_key_unidentified",
        "artists",
        ["name_key"],
        unique=True,
        sqlite_where=sa.text("musicbrainz_id IS NULL"),
        postgresql_where=sa.text("musicbrainz_id IS NULL"),
    )

    op.create_table(
        "audit_log",
        sa.Column("sequence", sequence, nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("action", sa.String(length=32), nullable=False),
        sa.Column("entity_type", sa.String(length=16), nullable=False),
        sa.Column("entity_id", sa.String(length=255), nullable=False),
        sa.Column("path", path_text, nullable=True),
        sa.Column("changes", json_value, nullable=True),
        sa.Column("run", sa.String(length=36), nullable=False),
        sa.PrimaryKeyConstraint("sequence", name=op.f("pk_audit_log")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_audit_log_at"), "audit_log", ["at"], unique=False)
    op.create_index(op.f("ix_audit_log_entity_id"), "audit_log", ["entity_id"], unique=False)

    op.create_table(
        "folders",
        sa.Column("id", sa.String(length=255), nullable=False),
        sa.Column("node", sa.String(length=255), nullable=False),
        sa.Column("path", path_text, nullable=False),
        sa.Column("file_system", sa.String(length=64), nullable=False),
        sa.Column("file_system_id", sa.String(length=255), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("status_reason", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_folders")),
        sa.UniqueConstraint("node", "path", name=op.f("uq_folders_node_path")),
    )
    op.create_table(
        "albums",
        sa.Column("id", sa.String(length=255), nullable=False),
        sa.Column("identity_key", sa.String(length=100), nullable=False),
        sa.Column("title", sa.String(length=500), nullable=False),
        sa.Column("title_key", sa.String(length=500), nullable=False),
        sa.Column("artist_id", sa.String(length=255), nullable=True),
        sa.Column("artist_credit", sa.String(length=500), nullable=True),
        sa.Column("date", sa.String(length=10), nullable=True),
        sa.Column("original_date", sa.String(length=10), nullable=True),
        sa.Column("disc_total", sa.Integer(), nullable=True),
        sa.Column("compilation", sa.Boolean(), nullable=True),
        sa.Column("musicbrainz_id", sa.String(length=36), nullable=True),
        sa.Column("musicbrainz_release_group_id", sa.String(length=36), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["artist_id"], ["artists.id"], name=op.f("fk_albums_artist_id_artists")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_albums")),
        sa.UniqueConstraint("identity_key", name=op.f("uq_albums_identity_key")),
        sa.UniqueConstraint("musicbrainz_id", name=op.f("uq_albums_musicbrainz_id")),
    )
    op.create_index(op.f("ix_albums_artist_id"), "albums", ["artist_id"], unique=False)
    op.create_index(op.f("ix_albums_title_key"), "albums", ["title_key"], unique=False)

    op.create_table(
        "tracks",
        sa.Column("id", sa.String(length=255), nullable=False),
        sa.Column("title", sa.String(length=500), nullable=False),
        sa.Column("artist_id", sa.String(length=255), nullable=False),
        sa.Column("artist_credit", sa.String(length=500), nullable=False),
        sa.Column("album_id", sa.String(length=255), nullable=True),
        sa.Column("track_number", sa.Integer(), nullable=True),
        sa.Column("track_total", sa.Integer(), nullable=True),
        sa.Column("disc_number", sa.Integer(), nullable=True),
        sa.Column("disc_total", sa.Integer(), nullable=True),
        sa.Column("date", sa.String(length=10), nullable=True),
        sa.Column("original_date", sa.String(length=10), nullable=True),
        sa.Column("genres", json_value, nullable=False),
        sa.Column("compilation", sa.Boolean(), nullable=True),
        sa.Column("duration_ms", sa.BigInteger(), nullable=True),
        sa.Column("bitrate", sa.BigInteger(), nullable=True),
        sa.Column("sample_rate", sa.Integer(), nullable=True),
        sa.Column("channels", sa.Integer(), nullable=True),
        sa.Column("bits_per_sample", sa.Integer(), nullable=True),
        sa.Column("container", sa.String(length=32), nullable=True),
        sa.Column("codec", sa.String(length=32), nullable=True),
        sa.Column("lossless", sa.Boolean(), nullable=True),
        sa.Column("has_cover", sa.Boolean(), nullable=False),
        sa.Column("isrc", sa.String(length=32), nullable=True),
        sa.Column("musicbrainz_recording_id", sa.String(length=36), nullable=True),
        sa.Column("musicbrainz_track_id", sa.String(length=36), nullable=True),
        sa.Column("replaygain_track_gain", sa.Float(), nullable=True),
        sa.Column("replaygain_track_peak", sa.Float(), nullable=True),
        sa.Column("replaygain_album_gain", sa.Float(), nullable=True),
        sa.Column("replaygain_album_peak", sa.Float(), nullable=True),
        sa.Column("search_text", sa.Text(), nullable=False),
        sa.Column("tags", json_value, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["album_id"], ["albums.id"], name=op.f("fk_tracks_album_id_albums")),
        sa.ForeignKeyConstraint(["artist_id"], ["artists.id"], name=op.f("fk_tracks_artist_id_artists")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tracks")),
    )
    op.create_index(op.f("ix_tracks_album_id"), "tracks", ["album_id"], unique=False)
    op.create_index(op.f("ix_tracks_artist_id"), "tracks", ["artist_id"], unique=False)
    op.create_index(op.f("ix_tracks_musicbrainz_recording_id"), "tracks", ["musicbrainz_recording_id"], unique=False)

    op.create_table(
        "files",
        sa.Column("id", sa.String(length=255), nullable=False),
        sa.Column("folder_id", sa.String(length=255), nullable=False),
        sa.Column("path", path_text, nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("mtime_ns", sa.BigInteger(), nullable=False),
        sa.Column("ctime_ns", sa.BigInteger(), nullable=False),
        sa.Column("inode", sa.BigInteger(), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("missing_since", sa.DateTime(timezone=True), nullable=True),
        sa.Column("error_code", sa.String(length=32), nullable=True),
        sa.Column("error_text", sa.Text(), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("parser_version", sa.Integer(), nullable=False),
        sa.Column("fingerprint", sa.String(length=80), nullable=True),
        sa.Column("notes", json_value, nullable=False),
        sa.Column("track_id", sa.String(length=255), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["folder_id"], ["folders.id"], name=op.f("fk_files_folder_id_folders")),
        sa.ForeignKeyConstraint(["track_id"], ["tracks.id"], name=op.f("fk_files_track_id_tracks")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_files")),
        sa.UniqueConstraint("track_id", name=op.f("uq_files_track_id")),
    )
    op.create_index(op.f("ix_files_fingerprint"), "files", ["fingerprint"], unique=False)
    op.create_index(
        "ix_files_folder_id_path_missing",
        "files",
        ["folder_id", "path"],
        unique=False,
        sqlite_where=sa.text("missing_since IS NOT NULL"),
        postgresql_where=sa.text("missing_since IS NOT NULL"),
    )
    op.create_index(op.f("ix_files_inode"), "files", ["inode"], unique=False)
    op.create_index(
        "uq_files_folder_id_path_present",
        "files",
        ["folder_id", "path"],
        unique=True,
        sqlite_where=sa.text("missing_since IS NULL"),
        postgresql_where=sa.text("missing_since IS NULL"),
    )

    op.create_table(
        "track_artists",
        sa.Column("track_id", sa.String(length=255), nullable=False),
        sa.Column("role", sa.String(length=32), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("artist_id", sa.String(length=255), nullable=False),
        sa.Column("credited_as", sa.String(length=500), nullable=False),
        sa.ForeignKeyConstraint(["artist_id"], ["artists.id"], name=op.f("fk_track_artists_artist_id_artists")),
        sa.ForeignKeyConstraint(["track_id"], ["tracks.id"], name=op.f("fk_track_artists_track_id_tracks")),
        sa.PrimaryKeyConstraint("track_id", "role", "position", name=op.f("pk_track_artists")),
    )
    op.create_index(op.f("ix_track_artists_artist_id"), "track_artists", ["artist_id"], unique=False)


def downgrade() -> None:
    op.drop_index(op.f("ix_track_artists_artist_id"), table_name="track_artists")

    op.drop_table("track_artists")
    op.drop_index(
        "uq_files_folder_id_path_present",
        table_name="files",
        sqlite_where=sa.text("missing_since IS NULL"),
        postgresql_where=sa.text("missing_since IS NULL"),
    )
    op.drop_index(op.f("ix_files_inode"), table_name="files")
    op.drop_index(
        "ix_files_folder_id_path_missing",
        table_name="files",
        sqlite_where=sa.text("missing_since IS NOT NULL"),
        postgresql_where=sa.text("missing_since IS NOT NULL"),
    )
    op.drop_index(op.f("ix_files_fingerprint"), table_name="files")

    op.drop_table("files")
    op.drop_index(op.f("ix_tracks_musicbrainz_recording_id"), table_name="tracks")
    op.drop_index(op.f("ix_tracks_artist_id"), table_name="tracks")
    op.drop_index(op.f("ix_tracks_album_id"), table_name="tracks")

    op.drop_table("tracks")
    op.drop_index(op.f("ix_albums_title_key"), table_name="albums")
    op.drop_index(op.f("ix_albums_artist_id"), table_name="albums")

    op.drop_table("albums")
    op.drop_table("folders")
    op.drop_index(op.f("ix_audit_log_entity_id"), table_name="audit_log")
    op.drop_index(op.f("ix_audit_log_at"), table_name="audit_log")

    op.drop_table("audit_log")
    op.drop_index(
        "uq_artists_name_key_unidentified",
        table_name="artists",
        sqlite_where=sa.text("musicbrainz_id IS NULL"),
        postgresql_where=sa.text("musicbrainz_id IS NULL"),
    )
    op.drop_index(op.f("ix_artists_name_key"), table_name="artists")

    op.drop_table("artists")
