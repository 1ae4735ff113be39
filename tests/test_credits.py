"""The credits in a file's tags, and the artist that each name becomes."""

from datetime import UTC, datetime
from typing import Any

import pytest
from tests.support.tagged_catalogue import FIRST, SECOND, Catalogue

from soulspot.infrastructure.persistence.repositories import FileRepository
from soulspot.infrastructure.tags import TrackTags
from soulspot.ingest.catalogue.credits import Credit, CreditRules, credits_of


def names(tags: TrackTags, **rules: Any) -> list[tuple[str, str]]:
    return [(each.role, each.name) for each in credits_of(tags, tags.artist or "", CreditRules(**rules))]


# Credits in the tags


@pytest.mark.parametrize(
    "name", ["AC/DC", "Earth, Wind & Fire", "Simon & Garfunkel", "Tyler, The Creator", "A feat. B"]
)
def test_a_name_is_not_split_by_default(name: str) -> None:
    assert names(TrackTags(artist=name, artists=(name,))) == [("main", name)]


@pytest.mark.parametrize(
    ("text", "split"),
    [
        ("A; B", ["A", "B"]),
        ("A;B ; C", ["A", "B", "C"]),
        ("A/B", ["A", "B"]),
        ("AC/DC", ["AC/DC"]),
        ("ac/dc; B", ["ac/dc", "B"]),
        ("B/AC/DC/C", ["B", "AC/DC", "C"]),
        ("A VS. B", ["A", "B"]),
        ("; A", ["A"]),
        (";", [";"]),
        ("A; A", ["A"]),
    ],
)
def test_a_text_is_split_at_set_separators_outside_names_to_keep_whole(text: str, split: list[str]) -> None:
    rules = {"separators": [";", "/", " vs. "], "keep_whole": ["AC/DC"]}

    assert names(TrackTags(artist=text, artists=(text,)), **rules) == [("main", name) for name in split]


def test_names_with_one_id_each_are_not_split() -> None:
    tags = TrackTags(artist="A/B, C", artists=("A/B", "C"), musicbrainz_artist_ids=(FIRST, SECOND))

    found = credits_of(tags, "A/B, C", CreditRules(separators=["/"]))

    assert found == [Credit("main", "A/B", FIRST), Credit("main", "C", SECOND)]


def test_ids_are_paired_with_names_only_in_equal_numbers() -> None:
    tags = TrackTags(artist="A & B", artists=("A & B",), musicbrainz_artist_ids=(FIRST, SECOND))

    assert credits_of(tags, "A & B") == [Credit("main", "A & B")]
    assert credits_of(tags, "A & B", CreditRules(separators=[" & "])) == [
        Credit("main", "A", FIRST),
        Credit("main", "B", SECOND),
    ]


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        (TrackTags(artist="A feat. B"), [("main", "A"), ("featured", "B")]),
        (TrackTags(artist="A ft B", title="T"), [("main", "A"), ("featured", "B")]),
        (TrackTags(artist="A (featuring B)"), [("main", "A"), ("featured", "B")]),
        (TrackTags(artist="A", title="T (feat. B & C) [Remix]"), [("main", "A"), ("featured", "B & C")]),
        (TrackTags(artist="A feat. B", title="T (feat. B)"), [("main", "A"), ("featured", "B")]),
        (TrackTags(artist="A feat. B", artists=("A", "B")), [("main", "A"), ("featured", "B")]),
        (TrackTags(artist="Little Feat"), [("main", "Little Feat")]),
        (TrackTags(artist="Little Feat & A"), [("main", "Little Feat & A")]),
        (TrackTags(artist="Defeat. Us"), [("main", "Defeat. Us")]),
    ],
)
def test_featured_artists_are_read_only_with_the_setting(tags: TrackTags, expected: list[tuple[str, str]]) -> None:
    assert names(tags, featured=True) == expected
    assert "featured" not in dict(names(tags))


def test_a_featured_artist_gets_its_id_from_the_tags() -> None:
    tags = TrackTags(artist="A feat. B", artists=("A feat. B",), musicbrainz_artist_ids=(FIRST, SECOND))

    found = credits_of(tags, "A feat. B", CreditRules(featured=True))

    assert found == [Credit("main", "A", FIRST), Credit("featured", "B", SECOND)]


def test_a_name_without_an_id_takes_the_id_it_has_in_another_role() -> None:
    tags = TrackTags(
        artist="A", artists=("A",), album_artist="a", musicbrainz_artist_ids=(FIRST,), composers=("A", "B")
    )

    assert [(each.role, each.musicbrainz_id) for each in credits_of(tags, "A")] == [
        ("main", FIRST),
        ("album artist", FIRST),
        ("composer", FIRST),
        ("composer", None),
    ]


def test_every_role_is_a_credit_and_performers_have_instruments() -> None:
    tags = TrackTags(
        artist="M",
        album_artist="AA",
        composers=("C",),
        lyricists=("L",),
        conductors=("K",),
        arrangers=("R",),
        performers=("P", "Q (2)"),
        performer_instruments=("violin", ""),
        remixers=("X",),
        producers=("D",),
        mixers=("I",),
        engineers=("E",),
    )

    assert [(each.role, each.name, each.instrument) for each in credits_of(tags, "M")] == [
        ("main", "M", None),
        ("album artist", "AA", None),
        ("composer", "C", None),
        ("lyricist", "L", None),
        ("conductor", "K", None),
        ("arranger", "R", None),
        ("performer", "P", "violin"),
        ("performer", "Q (2)", None),
        ("remixer", "X", None),
        ("producer", "D", None),
        ("mixer", "I", None),
        ("engineer", "E", None),
    ]


# The artist of a name


async def test_two_ids_with_one_name_are_two_artists(catalogue: Catalogue) -> None:
    await catalogue.put("1", "Nirvana", musicbrainz_artist_ids=(FIRST,))
    await catalogue.put("2", "Nirvana", musicbrainz_artist_ids=(SECOND,))

    assert await catalogue.artists() == [("Nirvana", FIRST), ("Nirvana", SECOND)]


async def test_two_bands_of_one_name_without_ids_are_one_artist(catalogue: Catalogue) -> None:
    await catalogue.put("1", "Nirvana", album="Nevermind")
    await catalogue.put("2", "Nirvana", album="Local Anaesthetic")

    assert await catalogue.artists() == [("Nirvana", None)]


async def test_one_id_with_two_names_is_one_artist_credited_under_each(catalogue: Catalogue) -> None:
    await catalogue.put("1", "Prince", musicbrainz_artist_ids=(FIRST,))
    await catalogue.put("2", "The Artist", musicbrainz_artist_ids=(FIRST,))

    assert await catalogue.artists() == [("Prince", FIRST)]
    assert await catalogue.credited("2") == [("main", "Prince", FIRST, "The Artist")]


async def test_an_id_that_arrives_later_is_given_to_the_existing_artist(catalogue: Catalogue) -> None:
    await catalogue.put("1", "A")
    await catalogue.put("2", "A")
    before = await catalogue.rows("SELECT id FROM artists")

    await catalogue.put("2", "A", musicbrainz_artist_ids=(FIRST,))

    assert await catalogue.rows("SELECT id FROM artists") == before
    assert await catalogue.credited("1") == [("main", "A", FIRST, "A")]
    assert await catalogue.rows("SELECT path FROM audit_log WHERE action = 'artist_updated'") == [("/music/2",)]


async def test_an_ambiguous_name_is_the_artist_of_the_same_album(catalogue: Catalogue) -> None:
    await catalogue.put("a/1", "A", album="X", musicbrainz_artist_ids=(FIRST,))
    await catalogue.put("b/1", "A", album="Y", musicbrainz_artist_ids=(SECOND,))

    await catalogue.put("b/2", "A", album="Y")

    assert await catalogue.credited("b/2") == [("main", "A", SECOND, "A")]
    assert (await catalogue.actions()).count("artist_ambiguous") == 1


async def test_an_ambiguous_name_becomes_an_artist_of_its_own(catalogue: Catalogue) -> None:
    await catalogue.put("1", "A", musicbrainz_artist_ids=(FIRST,))
    await catalogue.put("2", "A", musicbrainz_artist_ids=(SECOND,))

    await catalogue.put("3", "A")
    await catalogue.put("3", "A", title="Another")
    third = "c55193fb-f5d2-4839-a263-4c044fca1456"
    await catalogue.put("4", "A", musicbrainz_artist_ids=(third,))

    assert await catalogue.credited("3") == [("main", "A", None, "A")]
    assert await catalogue.artists() == [("A", FIRST), ("A", SECOND), ("A", None), ("A", third)]
    assert (await catalogue.actions()).count("artist_ambiguous") == 1


async def test_a_name_becomes_ambiguous_as_soon_as_a_second_id_arrives(catalogue: Catalogue) -> None:
    await catalogue.put("1", "A", musicbrainz_artist_ids=(FIRST,))
    await catalogue.put("2", "A")
    await catalogue.put("3", "A", musicbrainz_artist_ids=(SECOND,))

    await catalogue.put("4", "A")

    assert await catalogue.credited("2") == [("main", "A", FIRST, "A")]
    assert await catalogue.credited("4") == [("main", "A", None, "A")]


async def test_retagging_one_track_does_not_rename_the_artist_of_another(catalogue: Catalogue) -> None:
    await catalogue.put("1", "The Beatles")
    await catalogue.put("2", "The Beatles")

    await catalogue.put("2", "the beatles")
    assert await catalogue.artists() == [("The Beatles", None)]
    await catalogue.put("2", "Beatles")

    assert await catalogue.credited("1") == [("main", "The Beatles", None, "The Beatles")]
    assert await catalogue.credited("2") == [("main", "Beatles", None, "Beatles")]


async def test_an_artist_takes_a_new_spelling_once_no_credit_uses_the_old(catalogue: Catalogue) -> None:
    await catalogue.put("1", "the beatles")
    await catalogue.put("2", "the beatles")

    await catalogue.put("1", "The Beatles")
    before = await catalogue.artists()
    await catalogue.put("2", "The Beatles")

    assert (before, await catalogue.artists()) == ([("the beatles", None)], [("The Beatles", None)])
    assert (await catalogue.actions()).count("artist_updated") == 1


async def test_a_sort_name_changes_only_when_its_own_track_is_retagged(catalogue: Catalogue) -> None:
    await catalogue.put("1", "Björk Guðmundsdóttir")
    await catalogue.put("2", "Björk Guðmundsdóttir", artist_sort="Bjork")
    await catalogue.put("3", "Björk Guðmundsdóttir", artist_sort="another")
    assert await catalogue.rows("SELECT sort_name FROM artists") == [("Bjork",)]

    await catalogue.put("2", "Björk Guðmundsdóttir", artist_sort="Gudmundsdottir, Bjork")

    assert await catalogue.rows("SELECT sort_name FROM artists") == [("Gudmundsdottir, Bjork",)]


async def test_two_spellings_of_one_artist_are_one_credit(catalogue: Catalogue) -> None:
    spellings = ("Beyonc\u00e9", "Beyonce\u0301")

    await catalogue.put("1", ", ".join(spellings), artists=spellings)

    assert await catalogue.credited("1") == [("main", spellings[0], None, spellings[0])]


async def test_purging_a_file_removes_only_its_own_album_and_artists(catalogue: Catalogue) -> None:
    await catalogue.put("1", "A", album="X", composers=("C",))
    await catalogue.put("2", "A", album="Y")
    known = await catalogue.known("1")
    assert known is not None

    await catalogue.service.lose(known)
    [gone] = await FileRepository(catalogue.database.session).missing_since(datetime.now(UTC))
    await catalogue.service.purge(gone)

    assert await catalogue.artists() == [("A", None)]
    assert await catalogue.rows("SELECT title FROM albums") == [("Y",)]
    assert await catalogue.rows("SELECT path FROM files") == [("2",)]
    assert (await catalogue.actions())[-3:] == ["track_purged", "album_removed", "artist_removed"]


async def test_a_file_without_an_artist_takes_the_album_artist(catalogue: Catalogue) -> None:
    await catalogue.put("1", album="X", album_artist="A", album_artists=("A",))
    await catalogue.put("2", album="X", album_artist="Various Artists", album_artists=("Various Artists",))

    assert await catalogue.rows("SELECT artist_credit FROM tracks ORDER BY title") == [("A",), ("[unknown]",)]
    assert await catalogue.rows("SELECT notes FROM files ORDER BY path") == [
        ('["artist-from-album-artist"]',),
        ('["artist-unknown"]',),
    ]


async def test_a_text_too_long_for_its_column_stays_whole_in_the_tags(
    catalogue: Catalogue,
) -> None:
    long = {name: name * 200 for name in ("title", "artist", "album", "album_artist", "composer")}
    tags = {name: long[name] for name in ("title", "album", "album_artist")}

    await catalogue.put(
        "1", long["artist"], **tags, album_artists=(long["album_artist"],), composers=(long["composer"],)
    )

    [(title, credit, kept)] = await catalogue.rows("SELECT title, artist_credit, tags FROM tracks")
    assert (title, credit) == (long["title"][:500], long["artist"][:500])
    assert all(text in kept for text in long.values())
    assert await catalogue.rows("SELECT max(length(credited_as)) FROM track_artists") == [(500,)]
    assert await catalogue.rows("SELECT max(length(name)) FROM artists") == [(500,)]


async def test_an_absurd_number_of_names_is_cut_but_stays_in_the_tags(catalogue: Catalogue) -> None:
    people = tuple(f"Person {number}" for number in range(5_000))

    await catalogue.put("1", "A", composers=people)

    assert await catalogue.rows("SELECT count(*) FROM track_artists") == [(500,)]
    assert await catalogue.rows("SELECT notes FROM files") == [('["credits-capped"]',)]
    assert "Person 4999" in (await catalogue.rows("SELECT tags FROM tracks"))[0][0]
