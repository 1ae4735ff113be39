"""A realistic collection in real files, and what the commands show of it."""

import json
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import Soulspot, write_song

FIRST, SECOND = "7cf0ea9d-86b9-4dad-ba9e-2355a64899ea", "664c3e0e-42d8-48c1-b209-1efca19c0325"
WHOLE = ("AC/DC", "Earth, Wind & Fire", "Simon & Garfunkel", "Tyler, The Creator")


def write_collection(music: Path) -> None:
    for number, name in enumerate(WHOLE):
        write_song(music / "whole" / f"{number}.{('mp3', 'flac', 'ogg', 'm4a')[number]}", title="Whole", artist=name)
    for form in ("NFC", "NFD"):
        write_song(music / f"{form}.mp3", title="Halo", artist=unicodedata.normalize(form, "Beyoncé"))
    for name, title in (("Кино", "Группа крови"), ("椎名林檎", "歌舞伎町の女王"), ("فيروز", "نسم علينا الهوى")):
        write_song(music / name / f"{title}.flac", title=title, artist=name)
    for number in range(1, 41):
        song = {"title": f"Hit {number}", "artist": f"Singer {number}", "date": str(1960 + number)}
        write_song(
            music / "Hits" / f"{number:02}.mp3", album="Hits", tracknumber=f"{number}/40", compilation="1", **song
        )
    for disc in (1, 2, 3):
        for number in (1, 2):
            tags = {"album": "The Ring", "albumartist": "R", "tracknumber": f"{number}/2", "discnumber": f"{disc}/3"}
            if (disc, number) != (3, 2):
                write_song(music / "The Ring" / f"CD {disc}" / f"{number}.ogg", artist="R", **tags)
    for colour, year in (("Blue", "1994"), ("Green", "2001")):
        for number in (1, 2):
            tags = {"artist": "Weezer", "albumartist": "Weezer", "album": "Weezer", "date": year}
            write_song(music / f"Weezer ({colour})" / f"{number}.mp3", title=f"{colour} {number}", **tags)
    for place, identity in (("seattle", FIRST), ("london", SECOND)):
        write_song(music / place / "1.flac", title=place, artist="Nirvana", musicbrainz_artistid=identity)
    write_song(
        music / "classical.flac",
        title="Violin Concerto in D major, op. 61: II. Larghetto",
        artist="Ludwig van Beethoven; Yehudi Menuhin, Philharmonia Orchestra, Wilhelm Furtwängler",
        composer="Ludwig van Beethoven",
        composersort="Beethoven, Ludwig van",
        conductor="Wilhelm Furtwängler",
        performer=["Yehudi Menuhin (violin)", "Philharmonia Orchestra (orchestra)"],
        work="Violin Concerto in D major, op. 61",
        movementname="Larghetto",
    )


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Soulspot:
    command = Soulspot(tmp_path_factory.mktemp("collection"))
    write_collection(command.music)
    command.scan()
    return command


def listed(soulspot: Soulspot, *arguments: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in soulspot.run(*arguments, "--json").stdout.splitlines()]


def shown(soulspot: Soulspot, path: str) -> dict[str, Any]:
    [found] = listed(soulspot, "track", str(soulspot.music / path))
    return found


def test_names_with_commas_slashes_and_ampersands_are_not_split(collection: Soulspot) -> None:
    query = "SELECT a.name FROM artists a JOIN tracks t ON t.artist_id = a.id WHERE t.title = 'Whole' ORDER BY a.name"

    assert collection.rows(query) == [(name,) for name in WHOLE]


def test_beyonce_is_one_artist_in_every_unicode_form(collection: Soulspot) -> None:
    found = listed(collection, "artists", unicodedata.normalize("NFD", "BEYONCÉ"))

    assert [(artist["name"], artist["tracks"]) for artist in found] == [("Beyoncé", 2)]


@pytest.mark.parametrize(
    ("word", "artist", "title"),
    [("КИНО", "Кино", "группа"), ("林檎", "椎名林檎", "女王"), ("فيروز", "فيروز", "الهوى")],
)
def test_cyrillic_japanese_and_arabic_names_are_found(collection: Soulspot, word: str, artist: str, title: str) -> None:
    assert [each["name"] for each in listed(collection, "artists", word)] == [artist]
    assert [each["artist"] for each in listed(collection, "tracks", title)] == [artist]


def test_a_compilation_of_forty_artists_is_one_album_of_various_artists(collection: Soulspot) -> None:
    [album] = listed(collection, "albums", "hits")

    assert (album["artist"], album["compilation"], album["tracks"]) == ("Various Artists", True, 40)
    assert album["complete"] is True


def test_three_disc_folders_are_one_album_and_gaps_are_reported(collection: Soulspot) -> None:
    [album] = listed(collection, "albums", "--incomplete")

    assert (album["title"], album["tracks"], len(album["discs"])) == ("The Ring", 5, 3)
    assert [disc["missing"] for disc in album["discs"]] == [[], [], [[2, 2]]]
    assert collection.run("albums", "ring").stdout == "R\tThe Ring\t\t5\tdisc 3: 2\n"


def test_weezer_blue_and_weezer_green_are_two_albums(collection: Soulspot) -> None:
    found = listed(collection, "albums", "weezer")

    assert [(album["title"], album["date"], album["tracks"]) for album in found] == [
        ("Weezer", "1994", 2),
        ("Weezer", "2001", 2),
    ]


def test_two_bands_with_one_name_but_different_ids_are_two_artists(collection: Soulspot) -> None:
    found = listed(collection, "artists", "nirvana")

    assert {(artist["musicbrainz_id"], artist["tracks"]) for artist in found} == {(FIRST, 1), (SECOND, 1)}


def test_a_classical_recording_has_its_composer_conductor_and_soloists(collection: Soulspot) -> None:
    track = shown(collection, "classical.flac")

    assert [(each["role"], each["artist"], each["instrument"]) for each in track["credits"][1:]] == [
        ("composer", "Ludwig van Beethoven", None),
        ("conductor", "Wilhelm Furtwängler", None),
        ("performer", "Yehudi Menuhin", "violin"),
        ("performer", "Philharmonia Orchestra", "orchestra"),
    ]
    assert (track["tags"]["work"], track["tags"]["movement"]) == ("Violin Concerto in D major, op. 61", "Larghetto")
    assert [each["name"] for each in listed(collection, "artists", "menuhin")][-1] == "Yehudi Menuhin"


def test_a_track_is_shown_in_a_readable_form(collection: Soulspot) -> None:
    by_path = collection.run("track", str(collection.music / "classical.flac")).stdout
    by_id = collection.run("track", shown(collection, "classical.flac")["id"]).stdout

    assert by_path == by_id
    assert [" ".join(line.split()) for line in by_path.splitlines() if line.startswith(("perf", "work", "sound"))] == [
        "performer Yehudi Menuhin, violin",
        "performer Philharmonia Orchestra, orchestra",
        "work Violin Concerto in D major, op. 61",
        "sound flac, lossless, 0:00, 47 kbit/s, 16 kHz, 16 bit, mono",
    ]
    assert "track_added" in by_path


def test_showing_an_unknown_file_fails_with_the_reason(collection: Soulspot) -> None:
    result = collection.run("track", str(collection.music / "none.mp3"))

    assert result.returncode == 1
    assert "the catalogue has no file" in result.stderr


def test_a_track_shows_its_failure_and_its_history(soulspot: Soulspot) -> None:
    song = write_song(soulspot.music / "song.mp3", title="One", artist="A")
    soulspot.scan()
    song.write_bytes(b"no audio at all" * 100)
    soulspot.scan()

    track = shown(soulspot, "song.mp3")

    assert (track["title"], track["file"]["status"], track["file"]["error_code"]) == ("One", "failed", "corrupt")
    assert [entry["action"] for entry in track["history"]] == ["track_added", "file_failed"]


def test_new_split_settings_apply_to_unchanged_files(soulspot: Soulspot) -> None:
    write_song(soulspot.music / "song.mp3", title="T (feat. D)", artist="A; B/C; AC/DC")
    write_song(soulspot.music / "other.mp3", title="T", artist="A")
    soulspot.scan()
    before = shown(soulspot, "song.mp3")
    rules = {"SEPARATORS": '["; ", "/"]', "KEEP_WHOLE": "ac/dc", "FEATURED": "true"}
    settings = {f"SOULSPOT_ARTISTS__{name}": value for name, value in rules.items()}

    [changed, again] = [
        json.loads(soulspot.run("scan", str(soulspot.music), "--json", **settings).stdout) for _number in range(2)
    ]

    after = shown(soulspot, "song.mp3")
    assert [each["artist"] for each in before["credits"]] == ["A; B/C; AC/DC"]
    assert [(each["role"], each["artist"]) for each in after["credits"]] == [
        ("main", "A"),
        ("main", "B"),
        ("main", "C"),
        ("main", "AC/DC"),
        ("featured", "D"),
    ]
    assert (after["id"], after["artist"]) == (before["id"], "A; B/C; AC/DC")
    assert after["tags"]["artists"] == ["A; B/C; AC/DC"]
    assert (changed["updated"], changed["unchanged"], again["unchanged"]) == (1, 1, 2)
