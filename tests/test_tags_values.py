"""Tags survive the pipe from a reader and the JSON of the catalogue unchanged."""

import os
from dataclasses import fields
from typing import Any

import pytest
from tests.support.tag_table import ROWS, WRITERS

from soulspot.infrastructure.filesystem import Signature
from soulspot.infrastructure.tags import Failure, Picture, Reading, TrackTags
from soulspot.infrastructure.tags.fields import tags_from
from soulspot.infrastructure.tags.readers.frames import LENGTH, decode_readings, frame

from .conftest import Soulspot, write_song

SAMPLES: dict[str, Any] = {
    "str | None": "a text",
    "int | None": 7,
    "float | None": -7.25,
    "bool | None": True,
    "tuple[str, ...]": ("one", "two"),
    "tuple[Picture, ...]": (Picture(3, "image/jpeg", 1000), Picture(4, "", 1)),
    "dict[str, tuple[str, ...]]": {"mood board": ("a", "b")},
}


def test_readings_are_decoded_as_they_were_encoded() -> None:
    types = {each.name: str(each.type).replace("soulspot.infrastructure.tags.model.", "") for each in fields(TrackTags)}
    whole = TrackTags(**{name: SAMPLES[kind] for name, kind in types.items()})
    readings = [Reading(Signature(1, 2, 3, 4), whole), Reading(failure=Failure("corrupt", "a reason")), Reading()]

    content = frame(readings)

    assert decode_readings(content[LENGTH.size :]) == readings


def test_reading_the_same_tags_again_changes_nothing(soulspot: Soulspot) -> None:
    song = write_song(soulspot.music / "song.mp3", title="Title", artist="Artist")
    for row in ROWS:
        WRITERS["ID3v2"](song, row.name_in("ID3v2"), row.written)
    WRITERS["ID3v2"](song, "TXXX:mood board", ("a", "b"))
    soulspot.scan()

    os.utime(song)
    soulspot.scan()

    assert soulspot.actions("track_added") == 1
    assert soulspot.actions("track_updated") == 0


@pytest.mark.parametrize(
    ("name", "text", "field", "value"),
    [
        ("bpm", "9" * 400, "bpm", None),
        ("tracknumber", "-3", "track_number", None),
        ("tracknumber", "0/0", "track_number", None),
        ("tracknumber", "A1", "track_number", None),
        ("tracknumber", "07/11", "track_total", 11),
        ("date", "2004-11-02T10:11:12", "date", "2004-11-02"),
        ("date", "20041102", "date", "2004-11-02"),
        ("date", "2004-13-02", "date", "2004"),
        ("date", "31.12.1999", "date", "1999"),
        ("date", "0000", "date", None),
        ("date", "2004-11", "date", "2004-11"),
        ("genre", "(17)Rock", "genres", ("Rock",)),
        ("genre", "(51)(39)", "genres", ("Techno-Industrial", "Noise")),
        ("genre", "((Bracketed)", "genres", ("(Bracketed)",)),
        ("replaygaintrackgain", "-7,25 dB", "replaygain_track_gain", -7.25),
        ("replaygaintrackgain", "9" * 400, "replaygain_track_gain", None),
        ("r128trackgain", "-1280", "replaygain_track_gain", 0.0),
        ("musicbrainzalbumid", "not an id", "musicbrainz_album_id", None),
        ("performer", "Ann (guitar, vocals)", "performer_instruments", ("guitar, vocals",)),
        ("compilation", "0", "compilation", False),
        ("lyrics", "[00:01.00]la", "synced_lyrics", "[00:01.00]la"),
    ],
)
def test_a_text_becomes_the_value_of_its_field(name: str, text: str, field: str, value: object) -> None:
    assert getattr(tags_from({name: [text]}, {}), field) == value


@pytest.mark.parametrize(("name", "text"), [("date", "soon"), ("tracknumber", "A1"), ("musicbrainzalbumid", "none")])
def test_a_text_that_its_field_cannot_hold_is_kept_in_the_extra_tags(name: str, text: str) -> None:
    assert tags_from({name: [text]}, {}).other == {name: (text,)}


def test_replaygain_tags_have_priority_over_gains_of_opus() -> None:
    names = {"r128trackgain": ["256"], "replaygaintrackgain": ["-3 dB"]}

    assert tags_from(names, {}).replaygain_track_gain == -3.0


def test_the_instruments_of_one_performer_are_joined() -> None:
    tags = tags_from({"performer": ["Ann (guitar)", "Bob", "Ann (vocals)"]}, {})

    assert tags.performers == ("Ann", "Bob")
    assert tags.performer_instruments == ("guitar, vocals", "")


def test_a_value_of_a_megabyte_is_cut_with_a_note() -> None:
    tags = tags_from({"comment": ["x" * (1 << 20)]}, {})

    assert tags.comment == "x" * 65536
    assert tags.notes == ("value-capped",)


def test_a_file_cannot_fill_the_catalogue_with_names() -> None:
    tags = tags_from({f"name{number}": ["x"] for number in range(60_000)}, {})

    assert 1000 < len(tags.other) < 20_000
    assert tags.notes == ("value-capped",)


def test_a_very_long_list_is_cut_with_a_note() -> None:
    tags = tags_from({"artists": [f"Artist {number}" for number in range(40_000)]}, {})

    assert len(tags.artists) == 500
    assert tags.notes == ("value-capped",)


def test_invalid_text_is_replaced_with_a_note() -> None:
    tags = tags_from({"title": ["a\0b\ud800c"], "artist": ["\0\0"]}, {})

    assert tags.title == "a b\ufffdc"
    assert tags.artist is None
    assert tags.notes == ("invalid-text",)


def test_a_surrogate_pair_becomes_its_character() -> None:
    assert tags_from({"title": ["\ud83c\udfa7"]}, {}).title == "🎧"
