"""Views for other programs, and an index that orders the history of each entity

The views are a stable interface (docs/schema.md): columns may be added at the end, but none is removed or changes its
meaning. They are written once for both databases; `WORDS` has the expressions that differ.

A later migration that only adds columns, or replaces a table on SQLite by batch mode, leaves the views alone (env.py).
One that drops, renames or retypes a column of a view drops the view first and creates it again from a copy of its text;
the text here must not change, because it fits the tables of this revision.

Revision ID: 5d0c3b9a7e42
Revises: 1f24947f7a74
Create Date: 2026-11-24 18:00:00.000000+00:00
"""

import sqlalchemy as sa
from alembic import op

revision = "5d0c3b9a7e42"
down_revision = "1f24947f7a74"
branch_labels = None
depends_on = None

WORDS = {
    "sqlite": {
        "modified_at": "strftime('%Y-%m-%d %H:%M:%f', f.mtime_ns / 1000000000.0, 'unixepoch')",
        "genres": "(SELECT group_concat(value, '; ') FROM json_each(t.genres))",
        "changed": "(SELECT group_concat(key, ', ') FROM (SELECT key FROM json_each(a.changes) ORDER BY key))",
        "path_before": "json_extract(a.changes, '$.path[0]')",
        **{name: f"json_extract(a.changes, '$.{name}')" for name in ("code", "reason", "title", "artist", "name")},
    },
    "postgresql": {
        "modified_at": "to_timestamp(f.mtime_ns / 1000000000.0)",
        "genres": "(SELECT string_agg(value, '; ' ORDER BY place)"
        " FROM jsonb_array_elements_text(t.genres) WITH ORDINALITY AS each (value, place))",
        "changed": """(SELECT string_agg(key, ', ' ORDER BY key COLLATE "C")
                FROM jsonb_object_keys(a.changes) AS key)""",
        "path_before": "a.changes #>> '{path,0}'",
        **{name: f"(a.changes ->> '{name}')" for name in ("code", "reason", "title", "artist", "name")},
    },
}
SHARED = {
    "whole_path": "rtrim(d.path, '/') || '/' || f.path",
    # An album whose tags name no artist belongs to the artist of more than half of its tracks, else to Various Artists.
    "album_artist": """
    CASE
        WHEN al.artist_credit IS NOT NULL THEN al.artist_credit
        WHEN al.compilation OR EXISTS (SELECT 1 FROM tracks t WHERE t.album_id = al.id AND t.compilation)
            THEN 'Various Artists'
        ELSE coalesce(
            (SELECT ar.name FROM artists ar WHERE ar.id = (
                SELECT t.artist_id FROM tracks t WHERE t.album_id = al.id GROUP BY t.artist_id
                HAVING 2 * count(*) > (SELECT count(*) FROM tracks other WHERE other.album_id = al.id))),
            'Various Artists')
    END""",
    "on_album": "FROM tracks t JOIN files f ON f.track_id = t.id WHERE t.album_id = al.id AND",
    "by_artist": """
    FROM track_artists c JOIN tracks t ON t.id = c.track_id JOIN files f ON f.track_id = t.id
    WHERE c.artist_id = ar.id AND f.missing_since IS NULL""",
}

VIEWS = {
    "catalogue_tracks": """
        SELECT t.id AS track_id, t.title, t.artist_credit AS artist, al.title AS album,
            al.artist_credit AS album_artist, t.disc_number, t.disc_total, t.track_number, t.track_total,
            t.date, t.original_date, {genres} AS genres, t.compilation,
            CAST(t.duration_ms AS DOUBLE PRECISION) / 1000 AS duration_seconds,
            t.container, t.codec, t.lossless, t.bitrate, t.sample_rate, t.bits_per_sample, t.channels, t.has_cover,
            t.replaygain_track_gain, t.replaygain_track_peak, t.replaygain_album_gain, t.replaygain_album_peak,
            t.isrc, t.musicbrainz_recording_id, t.musicbrainz_track_id, al.musicbrainz_id AS musicbrainz_release_id,
            {whole_path} AS path, d.node, d.path AS folder, f.path AS path_in_folder,
            f.status, f.missing_since, f.size, {modified_at} AS modified_at, f.fingerprint,
            t.created_at AS added_at, t.updated_at, t.artist_id, t.album_id, f.id AS file_id
        FROM tracks t
        JOIN files f ON f.track_id = t.id
        JOIN folders d ON d.id = f.folder_id
        LEFT JOIN albums al ON al.id = t.album_id""",
    "catalogue_credits": """
        SELECT c.track_id, t.title, c.role, c.position, ar.name AS artist, c.credited_as, c.instrument,
            ar.musicbrainz_id AS musicbrainz_artist_id, c.artist_id
        FROM track_artists c
        JOIN tracks t ON t.id = c.track_id
        JOIN artists ar ON ar.id = c.artist_id""",
    "catalogue_artists": """
        SELECT ar.id AS artist_id, ar.name, ar.sort_name,
            (SELECT count(DISTINCT t.id) {by_artist}) AS tracks,
            (SELECT count(DISTINCT t.album_id) {by_artist}) AS albums,
            ar.musicbrainz_id, ar.created_at AS added_at
        FROM artists ar""",
    "catalogue_albums": """
        SELECT al.id AS album_id, al.title, {album_artist} AS artist, al.date, al.original_date, al.compilation,
            (SELECT count(*) {on_album} f.missing_since IS NULL) AS tracks,
            (SELECT count(*) {on_album} f.missing_since IS NOT NULL) AS tracks_missing,
            (SELECT count(DISTINCT coalesce(t.disc_number, 1)) {on_album} f.missing_since IS NULL) AS discs,
            (SELECT CAST(coalesce(sum(t.duration_ms), 0) AS DOUBLE PRECISION) / 1000
                {on_album} f.missing_since IS NULL) AS duration_seconds,
            (SELECT CAST(coalesce(sum(f.size), 0) AS BIGINT) {on_album} f.missing_since IS NULL) AS size,
            (SELECT count(*) {on_album} f.missing_since IS NULL AND NOT t.has_cover) AS tracks_without_cover,
            al.musicbrainz_id AS musicbrainz_release_id, al.musicbrainz_release_group_id,
            al.created_at AS added_at, al.artist_id
        FROM albums al""",
    "catalogue_folders": """
        SELECT d.id AS folder_id, d.node, d.path, d.status, d.status_reason, d.file_system,
            coalesce(n.catalogued, 0) AS catalogued, coalesce(n.failed, 0) AS failed,
            coalesce(n.missing, 0) AS missing, coalesce(n.ignored, 0) AS ignored,
            CAST(coalesce(n.size, 0) AS BIGINT) AS size, d.created_at AS added_at
        FROM folders d
        LEFT JOIN (
            SELECT folder_id,
                count(*) FILTER (WHERE status = 'catalogued') AS catalogued,
                count(*) FILTER (WHERE status = 'failed') AS failed,
                count(*) FILTER (WHERE status = 'missing') AS missing,
                count(*) FILTER (WHERE status = 'ignored') AS ignored,
                sum(size) FILTER (WHERE status <> 'missing') AS size
            FROM files GROUP BY folder_id
        ) n ON n.folder_id = d.id""",
    "catalogue_failures": """
        SELECT {whole_path} AS path, f.error_code AS code, f.error_text AS reason, f.attempts, f.failed_at,
            f.status = 'ignored' AS ignored, f.size, {modified_at} AS modified_at,
            d.node, d.path AS folder, f.path AS path_in_folder, f.track_id, f.id AS file_id
        FROM files f
        JOIN folders d ON d.id = f.folder_id
        WHERE f.failed_at IS NOT NULL AND f.status IN ('failed', 'ignored')""",
    "catalogue_history": """
        SELECT a.sequence, a.at, a.action, a.path, {path_before} AS path_before,
            CASE
                WHEN t.id IS NOT NULL THEN t.artist_credit || ' – ' || t.title
                WHEN ar.id IS NOT NULL THEN ar.name
                WHEN al.id IS NOT NULL THEN al.title
                WHEN a.action IN ('track_added', 'track_purged') THEN {artist} || ' – ' || {title}
                WHEN a.action IN ('artist_added', 'artist_removed') THEN {name}
                WHEN a.action IN ('album_added', 'album_removed') THEN {title}
            END AS name,
            {code} AS code, {reason} AS reason, {changed} AS changed, a.changes,
            a.entity_type, a.entity_id, a.run
        FROM audit_log a
        LEFT JOIN tracks t ON t.id = a.entity_id
        LEFT JOIN artists ar ON ar.id = a.entity_id
        LEFT JOIN albums al ON al.id = a.entity_id""",
}


def upgrade() -> None:
    # The view of failures needs this column; it is empty where audit entries were deleted by hand.
    op.execute("UPDATE files SET failed_at = created_at WHERE error_code IS NOT NULL AND failed_at IS NULL")
    op.drop_index("ix_audit_log_entity_id", table_name="audit_log")
    op.create_index("ix_audit_log_entity_id_sequence", "audit_log", ["entity_id", "sequence"], unique=False)
    words = SHARED | WORDS[op.get_context().dialect.name]
    for name, query in VIEWS.items():
        op.execute(sa.text(f"CREATE VIEW {name} AS{query.format_map(words)}".replace(":", r"\:")))


def downgrade() -> None:
    for name in reversed(VIEWS):
        op.execute(f"DROP VIEW {name}")
    op.drop_index("ix_audit_log_entity_id_sequence", table_name="audit_log")
    op.create_index("ix_audit_log_entity_id", "audit_log", ["entity_id"], unique=False)
