"""Every field in every format: written with mutagen, read by soulspot, and documented."""

from dataclasses import fields
from pathlib import Path

import pytest
from tests.support.tag_table import FORMATS, ROWS, TEMPLATES, Row, file_with, table, write_id3

from soulspot.infrastructure.tags import TrackTags
from soulspot.infrastructure.tags.fields import MANY, ONE
from soulspot.infrastructure.tags.formats.id3 import NAMES as ID3_NAMES
from soulspot.infrastructure.tags.formats.mp4 import NAMES as MP4_NAMES
from soulspot.infrastructure.tags.formats.riff import AIFF_TEXTS
from soulspot.infrastructure.tags.formats.with_mutagen import ASF_NAMES
from soulspot.infrastructure.tags.reader import read_file

DOCUMENT = Path(__file__).parents[1] / "docs" / "tags.md"
NOT_A_TAG = {
    "container", "codec", "profile", "lossless", "duration", "bitrate", "bitrate_mode", "sample_rate", "channels",
    "bits_per_sample", "pictures", "fingerprint", "other", "notes",
}  # fmt: skip
CASES = [(kind, template) for kind in FORMATS for template in TEMPLATES[kind]]


@pytest.mark.parametrize(("kind", "template"), CASES)
def test_a_tag_is_read_as_the_field_of_its_name(kind: str, template: str, tmp_path: Path) -> None:
    wrong = []
    for row in (each for each in ROWS if each.name_in(kind)):
        found = getattr(read_file(str(file_with(row, kind, template, tmp_path))).tags, row.field)
        if found != expected_of(row, kind):
            wrong.append((row.field, row.name_in(kind), found))

    assert wrong == []


def expected_of(row: Row, kind: str) -> object:
    """Return what a format can hold of a row: ID3v1 has no Unicode, no second genre and no days."""
    if kind == "ID3v1" and isinstance(row.read, str):
        return {"date": "1999"}.get(row.field, "Кино")
    return row.read[:1] if kind == "ID3v1" and isinstance(row.read, tuple) else row.read


@pytest.mark.parametrize("row", [row for row in ROWS if row.name_in("ID3v2")], ids=lambda row: row.field)
def test_id3_version_2_3_is_read(row: Row, tmp_path: Path) -> None:
    no_frame_in_2_3 = {"TSOT", "TSOA", "TSOP", "TSST", "TMOO", "TDRL"}
    path = tmp_path / "tone.mp3"
    path.write_bytes((Path(__file__).parent / "audio" / "tone.mp3").read_bytes())
    name = row.name_in("ID3v2")
    write_id3(path, name, row.written, version=3)

    found = getattr(read_file(str(path)).tags, row.field)

    # A person's name may contain a slash, so the values that this version joins stay one text.
    joined = (
        ("/".join(row.written),)
        if len(row.written) > 1 and name[0] == "T" and "TIPL" not in name and "TMCL" not in name
        else row.read
    )
    wanted = {"original_date": "1967", "release_types": row.read}.get(row.field, joined)
    assert found == (getattr(TrackTags(), row.field) if name in no_frame_in_2_3 else wanted)


def test_the_documented_table_matches_these_tests() -> None:
    begin, end = "<!-- fields -->\n", "<!-- /fields -->"
    documented = DOCUMENT.read_text().partition(begin)[2].partition(end)[0]

    assert documented == "\n" + table() + "\n"


def test_the_table_has_every_field_and_name_that_the_reader_knows() -> None:
    in_table = {kind: {row.name_in(kind) for row in ROWS} for kind in FORMATS}
    aliases = {"TORY", "GRP1", "XSOP", "XSOA", "XSOT", "XDOR", "©cpy", "©pub", "©con", "©arg", "©prd", "©lyi", "desc"}
    aliases |= {"ldes", "WM/Text", "WM/OriginalReleaseYear", "WM/PartOfACompilation", "WM/Lyrics_Synchronised"}
    aliases |= {"WM/ToolName", "WM/OriginalLyricist"}

    assert [row.field for row in ROWS] == [each.name for each in fields(TrackTags) if each.name not in NOT_A_TAG]
    assert {field for table in (ONE, MANY) for field in table.values()} <= {row.field for row in ROWS}
    assert ID3_NAMES.keys() - in_table["ID3v2"] - aliases == set()
    assert MP4_NAMES.keys() - in_table["MP4"] - aliases == set()
    assert ASF_NAMES.keys() - in_table["ASF"] - aliases == set()
    assert AIFF_TEXTS.keys() == in_table["AIFF"] - {""}
