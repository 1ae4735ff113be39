"""What the authors of real files expect of them: each field that they assert, or a named reason why not."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from soulspot.infrastructure.tags import TrackTags
from soulspot.infrastructure.tags.reader import read_file

FIELDS = {
    "title": lambda tags: tags.title,
    "artist": lambda tags: tags.artists[0] if tags.artists else None,
    "artists": lambda tags: list(tags.artists) or None,
    "album": lambda tags: tags.album,
    "album_artist": lambda tags: tags.album_artist,
    "track": lambda tags: tags.track_number,
    "track_total": lambda tags: tags.track_total,
    "disc": lambda tags: tags.disc_number,
    "disc_total": lambda tags: tags.disc_total,
    "date": lambda tags: tags.date,
    "year": lambda tags: int(tags.date[:4]) if tags.date else None,
    "genre": lambda tags: list(tags.genres) or None,
    "compilation": lambda tags: tags.compilation,
    "has_picture": lambda tags: tags.has_cover,
    "mb_recording_id": lambda tags: tags.musicbrainz_recording_id,
    "mb_release_track_id": lambda tags: tags.musicbrainz_track_id,
    "mb_album_id": lambda tags: tags.musicbrainz_album_id,
    "mb_artist_ids": lambda tags: list(tags.musicbrainz_artist_ids) or None,
    "isrc": lambda tags: list(tags.isrcs) or None,
    "duration_s": lambda tags: tags.duration,
    "samplerate_hz": lambda tags: tags.sample_rate,
    "channels": lambda tags: tags.channels,
}

_EMPTY = "mutagen raises an error without text on this ID3 tag, and reads nothing of it"
_CHUNKS = "mutagen does not read RIFF INFO, AIFF text chunks and XMP"
_VBR = "mutagen estimates the duration of a VBR stream from the file's size; it is off by less than 2 %"
_CUT = "mutagen finds no stream in this cut, old or damaged file"
_LAYER = "mutagen reads no MPEG layer of this kind without its extension"
# file: the fields that may differ ("*" for all), and why.
EXCEPTIONS: dict[str, tuple[str, str]] = {
    "tinytag/UTF16.mp3": ("*", _EMPTY),
    "tinytag/id3_genre_id_out_of_bounds.mp3": ("*", _EMPTY),
    "tinytag/id3v1_does_not_overwrite_id3v2.mp3": ("*", _EMPTY),
    "tinytag/id3v22.TCO.genre.mp3": ("*", _EMPTY),
    "tinytag/utf16_no_bom.mp3": ("*", _EMPTY),
    "tinytag/detect_aiff.x": ("title duration_s", _CHUNKS),
    "tinytag/riff_extra_zero.wav": ("title artist artists album track date year genre", _CHUNKS),
    "tinytag/riff_extra_zero_2.wav": ("title artist artists album track date year genre", _CHUNKS),
    "tinytag/test-riff-tags.wav": ("title artist artists date year genre", _CHUNKS),
    "tinytag/xmp_data.wav": ("title artist artists album", _CHUNKS),
    "tinytag/detect_mp1_mpeg1.x": ("duration_s samplerate_hz channels", _LAYER),
    "tinytag/detect_mp2_mpeg1.x": ("duration_s samplerate_hz channels", _LAYER),
    "tinytag/detect_mp4_m4a.x": ("duration_s", _CUT),
    "tinytag/invalid_sample_rate.aiff": ("channels", _CUT),
    "tinytag/zero_value_properties.flac": ("channels", _CUT),
    "tinytag/synced_lyrics_no_terminator_latin1.mp3": ("duration_s samplerate_hz channels", _CUT),
    "tinytag/no_audio_data_compressed.wav": (
        "duration_s",
        "no audio has no duration: left out, where the author says 0",
    ),
    "tinytag/mp3_audio.wav": ("duration_s", "mutagen takes MP3 in WAV for PCM"),
    "tinytag/gsm_6_10.wav": ("duration_s", "mutagen takes GSM in WAV for PCM"),
    "tinytag/detect_mp3_mpeg2.x": ("duration_s", _VBR.partition(";")[0] + ", of a file of 0.1 s by far"),
    "tinytag/mpeg25_8khz_vbr.mp3": ("duration_s", _VBR.partition(";")[0] + ", of a file of 0.1 s by far"),
    "tinytag/mpeg2_24khz_vbr.mp3": ("duration_s", _VBR.partition(";")[0] + ", of a file of 0.1 s by far"),
    "tinytag/mpeg2_id3v2.mp3": ("duration_s", _VBR.partition(";")[0] + ", of a file of 0.1 s by far"),
    "tinytag/id3_frames.mp3": ("duration_s", "mutagen finds other frames in this damaged stream"),
    "tinytag/chinese_id3.mp3": ("duration_s", _VBR),
    "tinytag/vbr11.mp3": ("duration_s", _VBR),
    "tinytag/vbr11stereo.mp3": ("duration_s", _VBR),
    "tinytag/vbr22.mp3": ("duration_s", _VBR),
    "tinytag/vbr22stereo.mp3": ("duration_s", _VBR),
    "tinytag/vbr32.mp3": ("duration_s", _VBR),
    "tinytag/vbr44stereo.mp3": ("duration_s", _VBR),
    "tinytag/vbr8.mp3": ("duration_s", _VBR),
    "tinytag/vbr8stereo.mp3": ("duration_s", _VBR),
    "tinytag/grouping.wma": (
        "track track_total",
        "WM/TrackNumber is there and says 1/2; its author's reader takes no text",
    ),
    "tinytag/id3_broken_frame_size.mp3": ("title", "mutagen repairs the size of the frame and reads the title"),
    "tinytag/id3_xxx_lang.mp3": ("date", "TDRC says 2004-11-02; its author's reader keeps the year of TYER"),
    "tinytag/no_bitrate.spx": ("artist artists", "mutagen's Speex comment is cut before the artist"),
    "tinytag/utf-8-id3v2-invalid-string.mp3": (
        "title disc_total",
        "an invalid UTF-8 title is dropped by mutagen; 0 is none",
    ),
    "lofty/issue_87_duplicate_id3v2.mp3": (
        "artist",
        "of two ID3v2 tags in a row the first counts, as the reader states",
    ),
    "lofty/full_test.ape": ("artist duration_s samplerate_hz channels", "mutagen opens no APE behind a leading ID3v2"),
    "mediafile/full.wv": ("channels", "mutagen says True for one channel; what is no number is left out"),
}


@pytest.mark.corpus
def test_each_asserted_field_is_right_or_a_named_exception(corpus: Path) -> None:
    found = list(differences(corpus))

    surprises = [each for each in found if not excused(each[0], each[1])]
    needless = EXCEPTIONS.keys() - {each[0] for each in found}
    assert surprises == []
    assert needless == set()


def excused(file: str, field: str) -> bool:
    fields = EXCEPTIONS.get(file, ("", ""))[0]
    return fields == "*" or field in fields.split()


def differences(corpus: Path) -> Iterator[tuple[str, str, Any, Any]]:
    for line in (corpus / "expected.jsonl").read_text().splitlines():
        row = json.loads(line)
        tags = read_file(str(corpus / row["file"])).tags or TrackTags()
        for name, read in FIELDS.items():
            if name in row and not agree(name, row[name], read(tags), row):
                yield row["file"], name, row[name], read(tags)


def agree(name: str, expected: Any, found: Any, row: dict[str, Any]) -> bool:
    if name == "duration_s" and expected is not None and found is not None:
        return abs(expected - found) <= (row.get("duration_tol") or 0.05)
    if isinstance(expected, list) and not expected:
        expected = None
    return bool(expected == found)
