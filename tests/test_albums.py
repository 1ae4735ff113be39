"""Which album a file belongs to, what a retag or a move does to an album, and which of its tracks are missing."""

import asyncio
from typing import Any

import pytest
from tests.support.tagged_catalogue import FIRST, SECOND, Catalogue

from soulspot.cli.actions.albums import contents_of
from soulspot.infrastructure.persistence.identity import album_folder
from soulspot.infrastructure.persistence.queries.search import OnAlbum
from soulspot.infrastructure.tags import TrackTags


@pytest.mark.parametrize(
    ("path", "folder"),
    [
        ("A/The Wall/01.mp3", "A/The Wall"),
        ("A/The Wall/CD 2/01.mp3", "A/The Wall"),
        ("A/The Wall/Disc 1 - Live/01.mp3", "A/The Wall"),
        ("A/The Wall/cd01/01.mp3", "A/The Wall"),
        ("A/The Wall/Диск 2/01.mp3", "A/The Wall"),
        ("A/The Wall (Disc 1)/01.mp3", "A/The Wall"),
        ("A/The Wall [CD2]/01.mp3", "A/The Wall"),
        ("A/The Wall - CD 3/01.mp3", "A/The Wall"),
        ("A/Discovery/01.mp3", "A/Discovery"),
        ("A/CD Collection/01.mp3", "A/CD Collection"),
        ("A/ABCD 2/01.mp3", "A/ABCD 2"),
        ("A/Disco 2000s/01.mp3", "A/Disco 2000s"),
        ("01.mp3", ""),
    ],
)
def test_a_disc_folder_counts_as_its_album_folder(path: str, folder: str) -> None:
    assert album_folder(path) == folder


async def test_equal_titles_in_two_folders_or_years_are_separate_albums(catalogue: Catalogue) -> None:
    await catalogue.put("Blue/1", "Weezer", album="Weezer", date="1994-05-10")
    await catalogue.put("Blue/2", "Weezer", album="Weezer", date="1994")
    await catalogue.put("Green/1", "Weezer", album="Weezer", date="2001")
    await catalogue.put("Blue/3", "Weezer", album="Weezer", date="2008")

    assert await catalogue.rows("SELECT count(*) FROM albums") == [(3,)]
    assert (await catalogue.albums())["Weezer 1994-05-10"] == ["Blue/1", "Blue/2"]


async def test_a_release_id_identifies_the_album_in_any_folder(catalogue: Catalogue) -> None:
    await catalogue.put("a/1", "A", album="X", musicbrainz_album_id=FIRST)
    await catalogue.put("b/2", "A", album="X", musicbrainz_album_id=FIRST)
    await catalogue.put("b/3", "A", album="X", musicbrainz_album_id=SECOND)

    assert await catalogue.rows("SELECT count(*) FROM albums") == [(2,)]


@pytest.mark.parametrize("tags", [{"compilation": True}, {"album_artist": "Various Artists"}])
async def test_a_compilation_of_songs_from_several_years_is_one_album(
    catalogue: Catalogue, tags: dict[str, object]
) -> None:
    for number in range(5):
        await catalogue.put(f"Hits/{number}", f"Artist {number}", album="Hits", date=str(1980 + number), **tags)

    assert await catalogue.rows("SELECT count(*) FROM albums") == [(1,)]


async def test_an_album_retagged_file_by_file_keeps_its_id(catalogue: Catalogue) -> None:
    for number in range(4):
        await catalogue.put(f"a/{number}", "A", album="Wrnog", album_artist="A")
    before = await catalogue.rows("SELECT id FROM albums")

    for number in range(4):
        await catalogue.put(f"a/{number}", "A", album="Wrong", album_artist="A", musicbrainz_album_id=FIRST)

    assert await catalogue.rows("SELECT id FROM albums") == before
    assert await catalogue.rows("SELECT title, musicbrainz_id FROM albums") == [("Wrong", FIRST)]
    assert (await catalogue.changes("album_updated"))[0]["title"] == ["Wrnog", "Wrong"]
    assert (await catalogue.actions()).count("album_removed") == 1


async def test_retagging_some_tracks_splits_the_album(catalogue: Catalogue) -> None:
    for number in range(3):
        await catalogue.put(f"a/{number}", "A", album="X")

    await catalogue.put("a/0", "A", album="Y")

    assert await catalogue.albums() == {"X": ["a/1", "a/2"], "Y": ["a/0"]}


async def test_a_retagged_track_changes_album_and_an_empty_album_is_removed(catalogue: Catalogue) -> None:
    await catalogue.put("a/0", "A", album="X")
    await catalogue.put("a/1", "A", album="Y")

    await catalogue.put("a/1", "A", album="X")
    await catalogue.put("a/1", "A", title="no album")

    assert await catalogue.albums() == {"X": ["a/0"]}
    assert await catalogue.rows("SELECT title FROM albums") == [("X",)]


async def test_a_retag_updates_the_album_itself(catalogue: Catalogue) -> None:
    await catalogue.put("a/0", "A", album="x", album_artist="A", disc_total=1)

    await catalogue.put(
        "a/0", "A", album="X", album_artist="A", disc_total=2, musicbrainz_album_artist_ids=(SECOND,), compilation=False
    )

    assert await catalogue.rows(
        "SELECT l.title, l.disc_total, a.musicbrainz_id FROM albums l JOIN artists a ON a.id = l.artist_id"
    ) == [("X", 2, SECOND)]


async def test_rereading_tracks_that_disagree_does_not_change_their_album(
    catalogue: Catalogue,
) -> None:
    tags: dict[str, Any] = {"album": "Hits", "compilation": True}
    for number in range(3):
        await catalogue.put(f"a/{number}", "A", **tags, original_date=str(1980 + number))
    before = await catalogue.rows("SELECT * FROM albums")

    for number in range(3):
        known = await catalogue.known(f"a/{number}")
        assert known is not None
        same = catalogue.found(f"a/{number}")._replace(signature=known.signature)
        again = TrackTags(title=f"a/{number}", artist="A", artists=("A",), **tags, original_date=str(1980 + number))
        assert (await catalogue.service.ingest(same, again, known)).kind == "unchanged"

    assert await catalogue.rows("SELECT * FROM albums") == before
    assert "album_updated" not in await catalogue.actions()


async def test_an_album_in_a_renamed_folder_keeps_its_id_and_takes_new_files(catalogue: Catalogue) -> None:
    for number in range(3):
        await catalogue.put(f"a/{number}", "A", album="X")

    for number in range(3):
        await catalogue.move(f"a/{number}", f"b/{number}")
    await catalogue.put("b/3", "A", album="X")
    await catalogue.put("a/0", "A", album="X")

    query = "SELECT f.path FROM files f JOIN tracks t ON t.id = f.track_id JOIN albums l ON l.id = t.album_id"
    by_album = await catalogue.rows(f"{query} ORDER BY l.created_at, f.path")
    assert by_album == [("b/0",), ("b/1",), ("b/2",), ("b/3",), ("a/0",)]
    assert await catalogue.rows("SELECT count(*) FROM tracks GROUP BY album_id ORDER BY 1") == [(1,), (4,)]
    assert (await catalogue.actions()).count("album_added") == 2


@pytest.mark.parametrize("departure", ["goes missing", "changes album", "moves elsewhere", "moves at the same time"])
async def test_an_album_moves_when_its_last_file_moves(catalogue: Catalogue, departure: str) -> None:
    for number in range(4):
        await catalogue.put(f"a/{number}", "A", album="X")
    await catalogue.move("a/0", "b/0")
    known = await catalogue.known("a/1")
    assert known is not None

    if departure == "goes missing":
        await catalogue.service.lose(known)
        await catalogue.move("a/2", "b/2")
    elif departure == "changes album":
        await catalogue.put("a/1", "A", album="Y")
        await catalogue.move("a/2", "b/2")
    elif departure == "moves elsewhere":
        await catalogue.move("a/1", "c/1")
        await catalogue.move("a/2", "b/2")
    else:
        await asyncio.gather(*[catalogue.move(f"a/{number}", f"b/{number}") for number in (1, 2)])
    await catalogue.move("a/3", "b/3")
    await catalogue.put("b/4", "A", album="X")

    query = "SELECT count(*) FROM albums WHERE title = 'X'"
    assert await catalogue.rows(query) == [(1,)]
    assert (await catalogue.albums())["X"][-1] in {"b/4", "c/1"}


async def test_files_of_an_album_that_move_at_once_take_it_along(catalogue: Catalogue) -> None:
    for number in range(6):
        await catalogue.put(f"a/{number}", "A", album="X")

    await asyncio.gather(*[catalogue.move(f"a/{number}", f"b/{number}") for number in range(6)])
    await catalogue.put("b/6", "A", album="X")

    assert await catalogue.albums() == {"X": [f"b/{number}" for number in range(7)]}


async def test_a_file_moved_into_the_folder_of_its_album_joins_it(catalogue: Catalogue) -> None:
    await catalogue.put("a/0", "A", album="X")
    await catalogue.put("b/1", "A", album="X")

    await catalogue.move("b/1", "a/1")

    assert await catalogue.albums() == {"X": ["a/0", "a/1"]}
    assert await catalogue.rows("SELECT count(*) FROM albums") == [(1,)]
    assert list((await catalogue.changes("track_moved"))[0]) == ["path", "album_id"]


# Missing tracks and discs


def on_album(disc: int | None, number: int | None, total: int | None = None, discs: int | None = None) -> OnAlbum:
    return OnAlbum(disc, number, total, discs, compilation=None, artist="A", is_present=True)


def numbered(disc: int | None, numbers: range, total: int | None = None, discs: int | None = None) -> list[OnAlbum]:
    return [on_album(disc, number, total, discs) for number in numbers]


@pytest.mark.parametrize(
    ("tracks", "missing", "discs", "complete"),
    [
        (numbered(1, range(1, 13), 12), {}, (), True),
        (numbered(None, range(1, 13)), {}, (), None),
        ([*numbered(1, range(1, 3), 12), *numbered(1, range(5, 11), 12)], {1: ((3, 4), (11, 12))}, (), False),
        ([on_album(None, 1), on_album(None, 4)], {1: ((2, 3),)}, (), False),
        (numbered(1, range(1, 6), 5, 3) + numbered(3, range(1, 4), 4, 3), {3: ((4, 4),)}, ((2, 2),), False),
        (numbered(2, range(1, 6), 5), {}, ((1, 1),), False),
        ([on_album(None, None, 3), on_album(None, None, 3), on_album(None, 1, 3)], {}, (), True),
        ([on_album(1, 1, 999_999, 999_999)], {1: ((2, 999_999),)}, ((2, 999_999),), False),
        (numbered(1, range(1, 11), 20, 2) + numbered(2, range(11, 21), 20, 2), {}, (), True),
        (numbered(1, range(1, 11), 20, 2) + numbered(2, range(11, 19), 20, 2), {2: ((19, 20),)}, (), False),
        ([], {}, (), None),
    ],
)
def test_numbers_and_totals_in_the_tags_show_which_tracks_are_missing(
    tracks: list[OnAlbum],
    missing: dict[int, tuple[tuple[int, int], ...]],
    discs: tuple[tuple[int, int], ...],
    complete: bool | None,
) -> None:
    contents = contents_of(tracks)

    assert {disc.number: disc.missing for disc in contents.discs if disc.missing} == missing
    assert contents.missing_discs == discs
    assert contents.is_complete is complete
