"""SQL that fills a catalogue with many tracks, for tests of query plans and migrations and for measurements.

An album has twelve tracks, and every thousandth album is a duplicate of the same one; one file in a hundred is missing,
and one in two hundred is a failure. The history has at least two entries for each track, over the last three years.
"""

from collections.abc import Iterator

_NUMBERS = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count})"
_WORDS = {
    "sqlite": {
        "id": "printf('01900000-0000-7000-8000-%s%011d', '{kind}', {number})",
        "ago": "strftime('%Y-%m-%d %H:%M:%f000', 'now', -({number}) || ' seconds')",
        "json": "'{text}'",
    },
    "postgresql": {
        "id": "'01900000-0000-7000-8000-{kind}' || lpad(({number})::text, 11, '0')",
        "ago": "now() - ({number}) * interval '1 second'",
        "json": "'{text}'::jsonb",
    },
}
THREE_YEARS = 3 * 365 * 86400


def statements(dialect: str, tracks: int, *, entries: int = 2) -> Iterator[str]:
    """Yield the statements that fill an empty catalogue with `tracks` tracks, and `entries` audit entries for each."""
    words = _WORDS[dialect]

    def key(kind: str, number: str = "i") -> str:
        return words["id"].format(kind=kind, number=number)

    def rows(count: int, table: str, **columns: str) -> str:
        names, values = ", ".join(columns), ", ".join(columns.values())
        numbers = _NUMBERS.format(count=count)
        return f"INSERT INTO {table} ({names}) {numbers} SELECT {values} FROM n"

    twice = "CASE WHEN i / 12 % 1000 = 0 THEN i % 12 ELSE i END"
    now, artists, albums = words["ago"].format(number="0"), max(1, tracks // 20), max(1, tracks // 12)
    history = tracks * entries
    when = words["ago"].format(number=f"({history} - i) * ({THREE_YEARS} / {history})")
    title, nothing = "'Song ' || (i % 5000)", words["json"].format(text="[]")
    yield rows(1, "folders", id=key("d"), node="'here'", path="'/srv/music'", file_system="'ext4'",
               file_system_id="'uuid'", status="'online'", created_at=now)  # fmt: skip
    yield rows(artists, "artists", id=key("a"), name="'Artist ' || i", name_key="'artist ' || i", created_at=now)
    yield rows(albums, "albums", id=key("b"), identity_key="'key ' || i", title="'Album ' || i",
               title_key="'album ' || i", artist_id=key("a", f"1 + i % {artists}"),
               artist_credit=f"CASE WHEN i % 3 > 0 THEN 'Artist ' || (1 + i % {artists}) END", date="'1999'",
               created_at=now)  # fmt: skip
    yield rows(tracks, "tracks", id=key("c"), title=title, artist_id=key("a", f"1 + i / 12 % {artists}"),
               artist_credit=f"'Artist ' || (1 + i / 12 % {artists})", album_id=key("b", f"1 + i / 12 % {albums}"),
               track_number="1 + i % 12", genres=words["json"].format(text='["Rock"]'), bitrate="320000", codec="'mp3'",
               duration_ms="180000 + i % 60000", has_cover="i % 10 > 0", search_text="'song ' || (i % 5000)",
               musicbrainz_recording_id=f"CASE WHEN i % 2 = 0 THEN {key('e', twice)} END",
               tags=words["json"].format(text="{}"), created_at=now, updated_at=now)  # fmt: skip
    yield rows(tracks, "track_artists", track_id=key("c"), role="'main'", position="0",
               artist_id=key("a", f"1 + i / 12 % {artists}"), credited_as="'A'")  # fmt: skip
    yield rows(tracks, "track_artists", track_id=key("c"), role="'album artist'", position="0",
               artist_id=key("a", f"1 + i / 12 % {artists}"), credited_as="'A'")  # fmt: skip
    missing, failed = "i % 100 = 0", "i % 200 = 1"
    yield rows(tracks, "files", id=key("f"), folder_id=key("d", "1"),
               path="'Artist ' || (i / 144) || '/Album ' || (i / 12) || '/' || i || '.mp3'", size="6000000 + i % 9999",
               mtime_ns="1700000000000000000 + i", ctime_ns="1700000000000000000", inode="i",
               status=f"CASE WHEN {missing} THEN 'missing' WHEN {failed} THEN 'failed' ELSE 'catalogued' END",
               missing_since=f"CASE WHEN {missing} THEN {now} END", error_code=f"CASE WHEN {failed} THEN 'corrupt' END",
               error_text=f"CASE WHEN {failed} THEN 'bad' END", failed_at=f"CASE WHEN {failed} THEN {now} END",
               attempts="0", parser_version="1", fingerprint=f"'b2:' || ({twice})",
               notes=nothing, track_id=key("c"), created_at=now)  # fmt: skip
    changes = words["json"].format(text='{"title": "Song", "artist": "Artist", "album": "Album"}')
    yield rows(history, "audit_log", at=when, entity_type="'track'", path="'/srv/music/Artist/Album/' || i",
               action=f"CASE WHEN i <= {tracks} THEN 'track_added' ELSE 'track_updated' END",
               entity_id=key("c", f"1 + (i - 1) % {tracks}"),
               changes=changes, run="'run'")  # fmt: skip
    yield "ANALYZE"
