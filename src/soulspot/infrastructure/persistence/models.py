"""The tables of the catalogue, one class each; `docs/design.md` has the reasons.

Ids are UUIDs of version 7, so that new rows are neighbours in an index; times are UTC. The convention below names every
constraint, because alembic can only change named ones.
"""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship
from sqlalchemy.types import TypeEngine

from soulspot.infrastructure.filesystem import full_path
from soulspot.infrastructure.persistence.identity import NAME_LENGTH

NAMING_CONVENTION = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}
MOUNT_STATES = ("mounted", "unmounted")
"""The `status` of a file system that is mounted below a watched folder."""


class UTCDateTime(TypeDecorator[datetime]):
    """A moment in UTC, aware in Python; SQLite stores it without a time zone, PostgreSQL with one."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 - the base class's signature
        return value.replace(tzinfo=UTC) if value is not None and value.tzinfo is None else value


class JSONValue(TypeDecorator[Any]):
    """JSON; JSONB on PostgreSQL, whose dialect a start on SQLite does not load."""

    impl = JSON(none_as_null=True)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name != "postgresql":
            return super().load_dialect_impl(dialect)
        from sqlalchemy.dialects.postgresql import JSONB

        return dialect.type_descriptor(JSONB(none_as_null=True))


# Paths sort byte by byte, in the order in which the scanner walks them.
PathText = Text().with_variant(Text(collation="C"), "postgresql")
Sequence = BigInteger().with_variant(Integer, "sqlite")  # SQLite numbers only an INTEGER key


class Base(DeclarativeBase):
    metadata = MetaData(naming_convention=NAMING_CONVENTION)


def _partial_index(name: str, *columns: str, where: str, unique: bool = False) -> Index:
    return Index(name, *columns, unique=unique, sqlite_where=text(where), info={"where": where})


def set_postgresql_options() -> None:
    """Mark the partial indexes for PostgreSQL's dialect; their declaration would load it for SQLite as well."""
    for table in Base.metadata.tables.values():
        for index in table.indexes:
            if "where" in index.info:
                index.dialect_options["postgresql"]["where"] = text(index.info["where"])


class Artist(Base):
    """A person or group that tracks or albums credit.

    The MusicBrainz id identifies it, or without one the `name_key`: one artist for each name, until tags bring an id.
    """

    __tablename__ = "artists"
    __table_args__ = (
        _partial_index(
            "uq_artists_name_key_unidentified",
            "name_key",
            unique=True,
            where="musicbrainz_id IS NULL",
        ),
        Index(None, "name_key"),
    )

    id: Mapped[str] = mapped_column(String(255), primary_key=True)
    name: Mapped[str] = mapped_column(String(NAME_LENGTH))
    name_key: Mapped[str] = mapped_column(String(NAME_LENGTH))
    sort_name: Mapped[str | None] = mapped_column(String(NAME_LENGTH))
    musicbrainz_id: Mapped[str | None] = mapped_column(String(36), unique=True)
    created_at: Mapped[datetime] = mapped_column(UTCDateTime)

    tracks: Mapped[list["Track"]] = relationship(back_populates="artist", lazy="raise")


class Album(Base):
    """A release, by its MusicBrainz id, or by its folder and tags.

    `identity_key` is "mbid:" and the MusicBrainz release id, else a digest of folder, title, album artist and year.
    Title, dates and the rest come from the track that created or changed it last.
    """

    __tablename__ = "albums"

    id: Mapped[str] = mapped_column(String(255), primary_key=True)
    identity_key: Mapped[str] = mapped_column(String(100), unique=True)
    title: Mapped[str] = mapped_column(String(NAME_LENGTH))
    title_key: Mapped[str] = mapped_column(String(NAME_LENGTH), index=True)
    artist_id: Mapped[str | None] = mapped_column(ForeignKey("artists.id"), index=True)
    artist_credit: Mapped[str | None] = mapped_column(String(NAME_LENGTH))
    date: Mapped[str | None] = mapped_column(String(10))
    original_date: Mapped[str | None] = mapped_column(String(10))
    disc_total: Mapped[int | None] = mapped_column(Integer)
    compilation: Mapped[bool | None] = mapped_column(Boolean)
    musicbrainz_id: Mapped[str | None] = mapped_column(String(36), unique=True)
    musicbrainz_release_group_id: Mapped[str | None] = mapped_column(String(36))
    split_from: Mapped[str | None] = mapped_column(String(255))  # the album whose tracks are being retagged to this one
    created_at: Mapped[datetime] = mapped_column(UTCDateTime)

    artist: Mapped[Artist | None] = relationship(lazy="raise")
    tracks: Mapped[list["Track"]] = relationship(back_populates="album", lazy="raise")


class Track(Base):
    """A recording as one file holds it. It outlives its file's path: a rename, a move or a retag keeps the id."""

    __tablename__ = "tracks"

    id: Mapped[str] = mapped_column(String(255), primary_key=True)
    title: Mapped[str] = mapped_column(String(NAME_LENGTH))
    artist_id: Mapped[str] = mapped_column(ForeignKey("artists.id"), index=True)
    artist_credit: Mapped[str] = mapped_column(String(NAME_LENGTH))
    album_id: Mapped[str | None] = mapped_column(ForeignKey("albums.id"), index=True)
    track_number: Mapped[int | None] = mapped_column(Integer)
    track_total: Mapped[int | None] = mapped_column(Integer)
    disc_number: Mapped[int | None] = mapped_column(Integer)
    disc_total: Mapped[int | None] = mapped_column(Integer)
    date: Mapped[str | None] = mapped_column(String(10))
    original_date: Mapped[str | None] = mapped_column(String(10))
    genres: Mapped[list[str]] = mapped_column(JSONValue)
    compilation: Mapped[bool | None] = mapped_column(Boolean)
    duration_ms: Mapped[int | None] = mapped_column(BigInteger)
    bitrate: Mapped[int | None] = mapped_column(BigInteger)  # bits a second
    sample_rate: Mapped[int | None] = mapped_column(Integer)  # Hz
    channels: Mapped[int | None] = mapped_column(Integer)
    bits_per_sample: Mapped[int | None] = mapped_column(Integer)
    container: Mapped[str | None] = mapped_column(String(32))
    codec: Mapped[str | None] = mapped_column(String(32))
    lossless: Mapped[bool | None] = mapped_column(Boolean)
    has_cover: Mapped[bool] = mapped_column(Boolean)
    isrc: Mapped[str | None] = mapped_column(String(32))
    musicbrainz_recording_id: Mapped[str | None] = mapped_column(String(36), index=True)
    musicbrainz_track_id: Mapped[str | None] = mapped_column(String(36))
    replaygain_track_gain: Mapped[float | None] = mapped_column(Float)  # dB
    replaygain_track_peak: Mapped[float | None] = mapped_column(Float)
    replaygain_album_gain: Mapped[float | None] = mapped_column(Float)  # dB
    replaygain_album_peak: Mapped[float | None] = mapped_column(Float)
    search_text: Mapped[str] = mapped_column(Text)  # title, artist and album, normalized like a name_key
    tags: Mapped[dict[str, Any]] = mapped_column(JSONValue)  # every tag without a column of its own
    created_at: Mapped[datetime] = mapped_column(UTCDateTime)
    updated_at: Mapped[datetime] = mapped_column(UTCDateTime)

    artist: Mapped[Artist] = relationship(back_populates="tracks", lazy="raise")
    album: Mapped[Album | None] = relationship(back_populates="tracks", lazy="raise")
    credits: Mapped[list["TrackArtist"]] = relationship(
        back_populates="track", lazy="raise", order_by="(TrackArtist.role, TrackArtist.position)"
    )
    files: Mapped[list["File"]] = relationship(back_populates="track", lazy="raise")


class TrackArtist(Base):
    """One credit of one artist on one track, under the name that the tags give."""

    __tablename__ = "track_artists"

    track_id: Mapped[str] = mapped_column(ForeignKey("tracks.id"), primary_key=True)
    role: Mapped[str] = mapped_column(String(32), primary_key=True)
    position: Mapped[int] = mapped_column(Integer, primary_key=True)
    artist_id: Mapped[str] = mapped_column(ForeignKey("artists.id"), index=True)
    credited_as: Mapped[str] = mapped_column(String(NAME_LENGTH))
    instrument: Mapped[str | None] = mapped_column(String(255))  # of a performer, if the tags name it

    track: Mapped[Track] = relationship(back_populates="credits", lazy="raise")
    artist: Mapped[Artist] = relationship(lazy="raise")


class Folder(Base):
    """A watched folder, on its machine (`node`).

    File systems that are mounted below one have rows too: their files are not missing while they are unmounted.
    """

    __tablename__ = "folders"
    __table_args__ = (UniqueConstraint("node", "path"),)

    id: Mapped[str] = mapped_column(String(255), primary_key=True)
    node: Mapped[str] = mapped_column(String(255))
    path: Mapped[str] = mapped_column(PathText)
    file_system: Mapped[str] = mapped_column(String(64))  # the kernel's name of its type
    file_system_id: Mapped[str] = mapped_column(String(255))  # its UUID, else the device it was mounted from
    status: Mapped[str] = mapped_column(String(16))  # online, offline, held, or one of MOUNT_STATES
    status_reason: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(UTCDateTime)


class File(Base):
    """One file below a folder: its state when it was last read, and the outcome.

    A path is unique among present files; a missing file keeps its row beside that of its successor.
    """

    __tablename__ = "files"
    __table_args__ = (
        _partial_index(
            "uq_files_folder_id_path_present",
            "folder_id",
            "path",
            unique=True,
            where="missing_since IS NULL",
        ),
        _partial_index(
            "ix_files_folder_id_path_missing",
            "folder_id",
            "path",
            where="missing_since IS NOT NULL",
        ),
        _partial_index(
            "ix_files_failed_at",
            "failed_at",
            where="failed_at IS NOT NULL",
        ),
    )

    id: Mapped[str] = mapped_column(String(255), primary_key=True)
    folder_id: Mapped[str] = mapped_column(ForeignKey("folders.id"))
    path: Mapped[str] = mapped_column(PathText)  # below the folder, "/" between names, bytes that are not UTF-8 escaped
    size: Mapped[int] = mapped_column(BigInteger)
    mtime_ns: Mapped[int] = mapped_column(BigInteger)
    ctime_ns: Mapped[int] = mapped_column(BigInteger)
    inode: Mapped[int] = mapped_column(BigInteger, index=True)
    status: Mapped[str] = mapped_column(String(16))  # catalogued, failed, ignored, missing
    missing_since: Mapped[datetime | None] = mapped_column(UTCDateTime)
    error_code: Mapped[str | None] = mapped_column(String(32))
    error_text: Mapped[str | None] = mapped_column(Text)
    failed_at: Mapped[datetime | None] = mapped_column(UTCDateTime)  # the last failed attempt
    attempts: Mapped[int] = mapped_column(Integer)
    parser_version: Mapped[int] = mapped_column(Integer)  # of the reader, and of the settings that split names
    fingerprint: Mapped[str | None] = mapped_column(String(80), index=True)
    notes: Mapped[list[str]] = mapped_column(JSONValue)  # short codes for what the reader had to guess or cut
    track_id: Mapped[str | None] = mapped_column(ForeignKey("tracks.id"), unique=True)
    created_at: Mapped[datetime] = mapped_column(UTCDateTime)

    folder: Mapped[Folder] = relationship(lazy="raise")
    track: Mapped[Track | None] = relationship(back_populates="files", lazy="raise")

    @property
    def full_path(self) -> str:
        """The absolute path, escaped as in the catalogue."""
        return full_path(self.folder.path, self.path)


class AuditEntry(Base):
    """One event in the history, ordered by `sequence`; never changed."""

    __tablename__ = "audit_log"
    __table_args__ = (
        Index(None, "entity_id", "sequence"),
        {"sqlite_autoincrement": True},  # never reuse a number
    )

    sequence: Mapped[int] = mapped_column(Sequence, primary_key=True)
    at: Mapped[datetime] = mapped_column(UTCDateTime, index=True)
    action: Mapped[str] = mapped_column(String(32))
    entity_type: Mapped[str] = mapped_column(String(16))
    entity_id: Mapped[str] = mapped_column(String(255))
    path: Mapped[str | None] = mapped_column(PathText)  # the full path, escaped like files.path
    changes: Mapped[dict[str, Any] | None] = mapped_column(JSONValue)
    run: Mapped[str] = mapped_column(String(36))  # the start of soulspot that wrote it
