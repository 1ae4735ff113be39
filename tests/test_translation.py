"""What the tags of one file become in the catalogue, tested without a database."""

import json
from dataclasses import FrozenInstanceError
from typing import Any

import pytest
from tests.support.tagged_catalogue import FIRST, SECOND

from soulspot.infrastructure.persistence.records import Credited
from soulspot.infrastructure.tags import Picture, TrackTags
from soulspot.ingest.catalogue.columns import retitled
from soulspot.ingest.catalogue.credits import CreditRules
from soulspot.ingest.catalogue.entry import TrackEntry, translate
from soulspot.ingest.catalogue.rows import album_row, credit_differences, differences, track_row

LONG = "long " * 200


def entry_of(path: str = "a/song.mp3", folder_id: str = "folder", **tags: Any) -> TrackEntry:
    return translate(TrackTags(**tags), folder_id=folder_id, path=path)


def credited(entry: TrackEntry) -> list[Credited]:
    """Return the credits of an entry, as if each name were a separate artist."""
    return [Credited(each.role, f"id of {each.name}", each.name, each.instrument) for each in entry.credits]


@pytest.mark.parametrize(
    ("tags", "title", "artist", "notes"),
    [
        ({"title": "T", "artist": "A"}, "T", "A", []),
        ({"title": "T", "artists": ("A", "B")}, "T", "A, B", []),
        ({"artist": "A"}, "song", "A", ["title-from-name"]),
        ({"title": "T", "album_artist": "B"}, "T", "B", ["artist-from-album-artist"]),
        ({"title": "T", "album_artist": "Various Artists"}, "T", "[unknown]", ["artist-unknown"]),
        ({"notes": ("cut",)}, "song", "[unknown]", ["cut", "title-from-name", "artist-unknown"]),
    ],
)
def test_title_and_artist_are_guessed_with_a_note(
    tags: dict[str, Any], title: str, artist: str, notes: list[str]
) -> None:
    entry = entry_of(**tags)

    assert (entry.track["title"], entry.track["artist_credit"], entry.file["notes"]) == (title, artist, notes)
    assert entry.credits[0].name == tags.get("artists", (artist,))[0]


@pytest.mark.parametrize(
    ("path", "title"), [("a/b.c.mp3", "b.c"), ("song", "song"), (".mp3", ".mp3"), ("a.b/song", "song")]
)
def test_a_title_from_a_file_name_has_no_folder_and_no_extension(path: str, title: str) -> None:
    assert entry_of(path).track["title"] == title


def test_albums_differ_by_folder_name_and_year() -> None:
    tags = {"album": "X", "album_artist": "A", "date": "1999-05-01"}
    key = entry_of("X/1.mp3", **tags).album_key

    assert entry_of("X/2.mp3", **tags | {"date": "1999", "album": "x"}).album_key == key
    assert entry_of("X/CD 2/1.mp3", **tags).album_key == key
    others = [
        entry_of("Y/1.mp3", **tags),
        entry_of("X/1.mp3", "another", **tags),
        entry_of("X/1.mp3", **tags | {"album": "Y"}),
        entry_of("X/1.mp3", **tags | {"album_artist": "B"}),
        entry_of("X/1.mp3", **tags | {"date": "2000"}),
    ]
    assert len({key, *(each.album_key for each in others)}) == 6


def test_a_release_id_is_the_album_key_in_any_folder() -> None:
    here, there = (entry_of(path, album=path, musicbrainz_album_id=FIRST) for path in ("X/1.mp3", "Y/1.mp3"))

    assert here.album_key == there.album_key == f"mbid:{FIRST}"


def test_a_file_without_an_album_has_none() -> None:
    entry = entry_of(artist="A", album_artist="B", date="1999")

    assert (entry.album, entry.album_key, album_row(entry, credited(entry))) == (None, None, None)
    assert list(entry.keys()) == ["a", "b"]


def test_the_keys_of_an_entry_are_its_artists_ids_or_names_and_its_album() -> None:
    entry = entry_of(
        artist="A", musicbrainz_artist_ids=(FIRST,), composers=("Cafe\u0301",), album="X", album_artist="V  V"
    )

    assert list(entry.keys()) == [FIRST, "v v", "caf\u00e9", entry.album_key]


def test_a_text_too_long_for_its_column_is_kept_whole_in_the_tags() -> None:
    entry = entry_of(title=LONG, artist=LONG, album=LONG, album_artist="A")

    assert entry.album is not None
    cut = (entry.track["title"], entry.track["artist_credit"], entry.album["title"], entry.album["title_key"])
    assert [len(text) for text in cut] == [500] * 4
    assert entry.track["tags"] == {"title": LONG, "artist": LONG, "album": LONG}


def test_too_many_credits_in_one_file_are_cut_with_a_note() -> None:
    people = tuple(f"Person {number}" for number in range(600))

    entry = entry_of(title="T", artist="A", composers=people)

    assert (len(entry.credits), entry.credits[-1].name) == (500, "Person 498")
    assert entry.file["notes"] == ["credits-capped"]
    assert entry.track["tags"]["composers"] == list(people)


def test_a_tag_without_a_column_survives_json() -> None:
    entry = entry_of(
        title="T",
        artist="A",
        moods=("calm",),
        bpm=120.5,
        pictures=(Picture(3, "image/png", 10),),
        other={"TXXX:x": ("1", "2")},
        isrcs=("ISRC1", "ISRC2"),
    )

    tags = entry.track["tags"]
    assert tags == {
        "moods": ["calm"],
        "bpm": 120.5,
        "pictures": [{"type": 3, "mime": "image/png", "size": 10}],
        "other": {"TXXX:x": ["1", "2"]},
        "isrcs": ["ISRC1", "ISRC2"],
    }
    assert json.loads(json.dumps(tags)) == tags
    assert (entry.track["isrc"], entry.track["has_cover"]) == ("ISRC1", True)


def value_for(field: str) -> Any:
    """Return a value of a tag that no file has by default."""
    special = {"pictures": (Picture(3, "image/png", 10),), "other": {"x": ("y",)}, "duration": 1234.0}
    return special.get(field, ("new",) if isinstance(getattr(TrackTags(), field), tuple) else "new")


@pytest.mark.parametrize("field", TrackTags.__dataclass_fields__)
def test_every_field_of_the_tags_reaches_the_entry(field: str) -> None:
    """A new field of the tag model must have a column, be kept in `tags`, or be a name."""
    tags: dict[str, Any] = {"title": "T", "artist": "A", "album": "X", "performers": ("P",)}

    assert entry_of(**tags | {field: value_for(field)}) != entry_of(**tags)


def test_artists_are_kept_as_written_only_if_the_credits_differ() -> None:
    entry = entry_of(artist="A, B", artists=("A", "B"), album="X", album_artist="V & W", album_artists=("V", "W"))
    credits = credited(entry)

    same, merged = track_row(entry, credits), track_row(entry, [credits[0], *credits[2:]])

    assert same["tags"] == {"album_artist": "V & W"}
    assert merged["tags"] == {"album_artist": "V & W", "artists": ["A", "B"]}
    assert same["artist_id"] == "id of A"
    assert entry.track["tags"] == {}


def test_an_album_belongs_to_its_first_album_artist() -> None:
    entry = entry_of(artist="A", album="X", album_artist="V", album_artists=("V", "W"))

    album = album_row(entry, credited(entry))

    assert album is not None
    assert (album["artist_id"], album["artist_credit"]) == ("id of V", "V")


def test_names_are_split_by_the_given_rules() -> None:
    tags = TrackTags(title="T", artist="A; B", artists=("A; B",), musicbrainz_artist_ids=(FIRST, SECOND))

    entry = translate(tags, folder_id="folder", path="a.mp3", rules=CreditRules(separators=[";"]))

    assert [(each.name, each.musicbrainz_id) for each in entry.credits] == [("A", FIRST), ("B", SECOND)]
    assert entry.track["artist_credit"] == "A; B"


def test_equal_tags_give_equal_immutable_entries() -> None:
    entry = entry_of(artist="A", album="X")

    assert entry == entry_of(artist="A", album="X")
    with pytest.raises(FrozenInstanceError):
        entry.album = None  # type: ignore[misc]  # must be refused


def test_differences_name_each_tag_but_not_search_columns() -> None:
    before, after = (
        entry_of(title=title, artist="A", moods=moods).track for title, moods in (("T", ("a",)), ("U", ()))
    )

    assert differences(before, after) == {"title": ["T", "U"], "tags.moods": [["a"], None]}
    assert differences(before, before) == {}


def test_credits_differ_by_role_and_name_but_not_by_order() -> None:
    main, composer = Credited("main", "1", "A", None), Credited("composer", "2", "C", None)

    assert credit_differences([main, composer], [composer, main]) == {}
    assert credit_differences([main], [main, composer]) == {
        "credits": [[["main", "1", "A"]], [["composer", "2", "C"], ["main", "1", "A"]]]
    }


def test_a_track_is_found_by_its_new_title() -> None:
    track = entry_of("Old.mp3", artist="A", album="X").track

    assert retitled(track, "New") == {"title": "New", "search_text": "new a x"}
    assert retitled(track, "Old") == {}
