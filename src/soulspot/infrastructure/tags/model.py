"""The tags and stream of a file as plain values that cross a pipe. Fields are named as in MusicBrainz Picard."""

from dataclasses import dataclass, field

from soulspot.infrastructure.filesystem import Signature

PARSER_VERSION = 2
"""Raise it when the reader reads more or better: soulspot then reads every file again."""


@dataclass(frozen=True, slots=True)
class Picture:
    """An embedded picture: its type as ID3 numbers it (3 is the front cover), MIME type and size in bytes."""

    type: int
    mime: str
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackTags:
    """Everything that soulspot reads from one file. Texts contain no NUL and no lone surrogate.

    Dates are ISO at the precision of the tag: "1999", "1999-12" or "1999-12-31". `duration` is in seconds, `bitrate` in
    bits a second, `sample_rate` in Hz; gains are in dB and follow ReplayGain 2. `performer_instruments` has one text
    for each of the `performers`, or is empty if no instrument is known. `synced_lyrics` has the lines of an LRC file.
    `other` keeps every tag that has no field, by its own name.
    """

    title: str | None = None
    title_sort: str | None = None
    subtitle: str | None = None
    artist: str | None = None
    artists: tuple[str, ...] = ()
    artist_sort: str | None = None
    album: str | None = None
    album_sort: str | None = None
    album_artist: str | None = None
    album_artists: tuple[str, ...] = ()
    album_artist_sort: str | None = None
    composers: tuple[str, ...] = ()
    composer_sort: str | None = None
    lyricists: tuple[str, ...] = ()
    writers: tuple[str, ...] = ()
    conductors: tuple[str, ...] = ()
    arrangers: tuple[str, ...] = ()
    performers: tuple[str, ...] = ()
    performer_instruments: tuple[str, ...] = ()
    remixers: tuple[str, ...] = ()
    producers: tuple[str, ...] = ()
    engineers: tuple[str, ...] = ()
    mixers: tuple[str, ...] = ()
    dj_mixers: tuple[str, ...] = ()
    directors: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    catalog_numbers: tuple[str, ...] = ()
    barcode: str | None = None
    asin: str | None = None
    isrcs: tuple[str, ...] = ()
    track_number: int | None = None
    track_total: int | None = None
    disc_number: int | None = None
    disc_total: int | None = None
    disc_subtitle: str | None = None
    date: str | None = None
    original_date: str | None = None
    release_date: str | None = None
    original_album: str | None = None
    original_artist: str | None = None
    genres: tuple[str, ...] = ()
    bpm: float | None = None
    key: str | None = None
    moods: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()
    script: str | None = None
    grouping: str | None = None
    work: str | None = None
    movement: str | None = None
    movement_number: int | None = None
    movement_total: int | None = None
    comment: str | None = None
    lyrics: str | None = None
    synced_lyrics: str | None = None
    copyright: str | None = None
    license: str | None = None
    website: str | None = None
    compilation: bool | None = None
    release_types: tuple[str, ...] = ()
    release_status: str | None = None
    release_country: str | None = None
    media: str | None = None
    musicbrainz_recording_id: str | None = None
    musicbrainz_track_id: str | None = None
    musicbrainz_album_id: str | None = None
    musicbrainz_release_group_id: str | None = None
    musicbrainz_work_id: str | None = None
    musicbrainz_disc_id: str | None = None
    musicbrainz_artist_ids: tuple[str, ...] = ()
    musicbrainz_album_artist_ids: tuple[str, ...] = ()
    musicbrainz_original_album_id: str | None = None
    musicbrainz_original_artist_ids: tuple[str, ...] = ()
    acoustid_id: str | None = None
    acoustid_fingerprint: str | None = None
    replaygain_track_gain: float | None = None
    replaygain_track_peak: float | None = None
    replaygain_album_gain: float | None = None
    replaygain_album_peak: float | None = None
    encoder: str | None = None
    encoder_settings: str | None = None
    encoded_by: str | None = None
    container: str | None = None
    codec: str | None = None
    profile: str | None = None
    lossless: bool | None = None
    duration: float | None = None
    bitrate: int | None = None
    bitrate_mode: str | None = None
    sample_rate: int | None = None
    channels: int | None = None
    bits_per_sample: int | None = None
    pictures: tuple[Picture, ...] = ()
    fingerprint: str | None = None
    other: dict[str, tuple[str, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def has_cover(self) -> bool:
        return bool(self.pictures)


FAILURE_CODES = frozenset(
    ("not-regular", "unreadable", "vanished", "changed", "empty", "truncated", "corrupt", "unsupported")
    + ("too-large", "timeout", "crashed-parser")
)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why soulspot could not read a file: one of `FAILURE_CODES`, and a reason for people."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Reading:
    """The result of reading one file; without tags and failure, the file is not audio.

    `signature` is that of the open file, the same before and after reading.
    """

    signature: Signature | None = None
    tags: TrackTags | None = None
    failure: Failure | None = None
