"""A generated collection, with names in many scripts and tags in every old form, against what its generator wrote.

SOULSPOT_TEST_FILES=10000 reads that many files instead of the 1,500 of a usual run.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from soulspot.infrastructure.tags.reader import read_file

from .conftest import SHARED

FIELDS = {
    "title": "title", "artist": "artists", "album": "album", "albumartist": "album_artist",
    "tracknumber": "track_number", "tracktotal": "track_total", "discnumber": "disc_number",
    "disctotal": "disc_total", "date": "date", "genre": "genres", "compilation": "compilation",
    "musicbrainz_albumid": "musicbrainz_album_id", "musicbrainz_artistid": "musicbrainz_artist_ids",
    "musicbrainz_albumartistid": "musicbrainz_album_artist_ids", "musicbrainz_trackid": "musicbrainz_recording_id",
    "_cover": "has_cover",
}  # fmt: skip
ENCODERS = ("ffmpeg", "flac", "lame", "oggenc", "opusenc", "wavpack", "mpcenc")
ID3V1 = {"title": 30, "artist": 30, "album": 30, "date": 4, "tracknumber": 3}


@pytest.fixture
def collection(tmp_path: Path) -> Path:
    tool = SHARED / "tools" / "make_collection.py"
    missing = [each for each in ENCODERS if shutil.which(each) is None]
    if not tool.exists() or missing:
        pytest.skip(f"the collection writer beside this checkout, or an encoder, is not there: {missing}")
    folder = tmp_path / "collection"
    files = os.environ.get("SOULSPOT_TEST_FILES", "500")
    command = [sys.executable, str(tool), "--files", files, "--out", str(folder), "--templates", str(tmp_path / "t")]
    subprocess.run([*command, "--jobs", "1"], check=True, capture_output=True, timeout=900)
    return folder


@pytest.mark.library_tool
@pytest.mark.timeout(1800)
def test_a_generated_collection_is_read_as_it_was_written(collection: Path) -> None:
    rows = [json.loads(line) for line in Path(f"{collection}.truth.jsonl").read_text().splitlines()]
    compared = 0
    wrong = []
    for row in rows:
        tags = read_file(str(collection / row["path"])).tags
        for name, expected in expectations(row):
            found = getattr(tags, FIELDS[name])
            compared += 1
            if found != expected:
                wrong.append((row["path"], name, expected, found))

    print(f"{compared - len(wrong)} of {compared} fields of {len(rows)} files are as they were written")  # noqa: T201
    assert wrong == []
    assert compared > 10 * len(rows)


def expectations(row: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the expected value of each field of a file, without what its tag format cannot hold."""
    for name, values in row["said"].items():
        if name == "_id3v1":
            continue
        if name == "_cover":
            yield name, values
        elif row["id3"] == "1" and name not in ID3V1:
            yield name, no_value(name)
        elif row["fmt"] == "wma" and name == "tracktotal":
            yield name, None  # the generator writes no total there
        elif row["id3"] == "1":
            yield name, typed(name, [cut(values[0], ID3V1[name])])
        elif row["id3"] == "2.3" and name in {"artist", "genre"}:
            yield name, typed(name, ["/".join(values)])  # one text: its slash may belong to AC/DC
        else:
            yield name, typed(name, values)


def no_value(name: str) -> Any:
    if name == "genre":
        return ("Rock",)  # the generator gives every file the number 17
    return () if name.endswith("artistid") else None


def cut(text: str, length: int) -> str:
    """Return a text as ID3v1 holds it: its first 30 characters, in Latin-1."""
    return text.encode("latin-1", "replace")[:length].decode("latin-1").strip()


def typed(name: str, values: list[str]) -> Any:
    if name in {"artist", "genre"} or name.endswith("artistid"):
        return tuple(values)
    if name == "compilation":
        return values[0] == "1"
    return int(values[0]) if name.endswith(("number", "total")) else values[0]
