"""The native parsers return what mutagen returns for every real file and every template, with named exceptions."""

import shutil
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from tests.support.tag_table import AUDIO, ROWS, TEMPLATES, WRITERS

from soulspot.infrastructure.tags import Reading, TrackTags, reader
from soulspot.infrastructure.tags.formats import id3
from soulspot.infrastructure.tags.formats.parsed import NeedsMutagenError

NATIVE_SUFFIXES = {"mp3", "mp2", "flac", "ogg", "opus", "spx", "oga", "m4a", "mp4", "wav", "aiff", "x"}
# mutagen has no name for these, or another one.
NOT_COMPARED = {"encoder", "bitrate_mode", "profile", "fingerprint"}
_TAIL = "mutagen counts the tag behind the audio in, which is as long as this sample"
_TEXTS = "mutagen does not read RIFF INFO, AIFF text chunks and XMP"
_CODEC = "mutagen takes every WAV and AIFC for PCM"
_AVERAGE = "the stream gives no average: mutagen leaves it open, and the file's size has the tags in it"
_FAILS = "mutagen opens it not at all"
EXCEPTIONS: dict[str, tuple[str, str]] = {
    "dhowden-tag/sample_ms932_v1.1.mp3": ("duration", _TAIL),
    "dhowden-tag/sample_ms932_v1.mp3": ("duration", _TAIL),
    "dhowden-tag/sample_usascii_v1.1.mp3": ("duration", _TAIL),
    "dhowden-tag/sample_usascii_v1.mp3": ("duration", _TAIL),
    "dhowden-tag/sample_utf8_v1.1.mp3": ("duration", _TAIL),
    "dhowden-tag/sample_utf8_v1.mp3": ("duration", _TAIL),
    "dhowden-tag/with_sample.m4a": ("bitrate", _AVERAGE),
    "dhowden-tag/with_sample.mp4": ("bitrate", _AVERAGE),
    "dhowden-tag/without_sample.m4a": ("bitrate", _AVERAGE),
    "lofty/fuzz_aiff_full_test_IDX_5_RAND_89430166450532348786207.aiff": ("artist artists", _TEXTS),
    "lofty/fuzz_mp4_steam_at_mention_IDX_97_RAND_34488648178055098192895.m4a": ("fails", _FAILS),
    "lofty/hound_fuzz_crash-24728523ef4be15c838293b676f6853e73723bf4.wav": ("bitrate codec lossless", _CODEC),
    "mediafile/backup.wav": (
        "album artist artists date encoded_by genres title track_number track_total",
        _TEXTS,
    ),
    "mediafile/mpeglayer3.wav": ("bitrate codec duration lossless", _CODEC),
    "mediafile/unparseable.mp3": ("other", "its date is no ISO date; mutagen drops what soulspot keeps beside"),
    "rust-id3/padding.aiff": ("bitrate codec comment lossless notes", _CODEC),
    "rust-id3/tagged-mid-corrupted.wav": ("codec lossless", _CODEC),
    "rust-id3/tagless-corrupted-2.wav": ("fails", _FAILS),
    "rust-id3/tagless-corrupted.wav": ("codec lossless", _CODEC),
    "rust-id3/tagless.wav": ("codec lossless", _CODEC),
    "tinytag/detect_aiff.x": ("comment copyright title", _TEXTS),
    "tinytag/duplicate_fields.mp3": ("lyrics other", "of several lyrics mutagen keeps the last"),
    "tinytag/gsm_6_10.wav": ("bitrate codec duration lossless", _CODEC),
    "tinytag/id3_frames.mp3": ("bitrate duration", "mutagen guesses at the length of this damaged stream"),
    "tinytag/id3_genre_id_out_of_bounds.mp3": ("genres other", "mutagen calls a number that names nothing Unknown"),
    "tinytag/invalid_sample_rate.aiff": ("fails", _FAILS),
    "tinytag/mp3_audio.wav": ("bitrate codec duration lossless", _CODEC),
    "tinytag/mpeg4_with_image.m4a": ("pictures", "mutagen takes each cover that is no PNG for a JPEG"),
    "tinytag/no_audio_data_compressed.wav": ("bitrate codec duration lossless", _CODEC),
    "tinytag/riff_extra_zero.wav": ("album artist artists date genres title track_number", _TEXTS),
    "tinytag/riff_extra_zero_2.wav": ("album artist artists genres title track_number", _TEXTS),
    "tinytag/synced_lyrics_no_terminator_latin1.mp3": ("fails", _FAILS),
    "tinytag/test-riff-tags.wav": ("artist artists comment date genres title", _TEXTS),
    "tinytag/utf-8-id3v2-invalid-string.mp3": ("notes title", "mutagen drops a text with one wrong byte"),
    "tinytag/wav_invalid_track_number.wav": ("other", _TEXTS),
    "tinytag/xmp_data.wav": ("album artist artists title", _TEXTS),
    "tinytag/zero_value_properties.flac": ("fails", _FAILS),
    "tinytag/zero_value_properties.wav": ("codec lossless", _CODEC),
}


def by_mutagen(path: Path, monkeypatch: pytest.MonkeyPatch) -> Reading:
    """Read a file as if every native parser left it to mutagen."""

    def leave_to_mutagen(*_arguments: object) -> None:
        raise NeedsMutagenError

    with monkeypatch.context() as patch:
        patch.setattr(reader, "NATIVE_PARSERS", {})
        patch.setattr(id3, "_walk", leave_to_mutagen)
        return reader.read_file(str(path))


def differences(path: Path, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    native, foreign = reader.read_file(str(path)), by_mutagen(path, monkeypatch)
    if foreign.tags is None or native.tags is None:
        return set() if (foreign.tags, foreign.failure) == (native.tags, native.failure) else {"fails"}
    names = {each.name for each in fields(TrackTags)} - NOT_COMPARED
    return {name for name in names if not same(name, getattr(native.tags, name), getattr(foreign.tags, name))}


def same(name: str, native: Any, foreign: Any) -> bool:
    if name == "duration" and native and foreign:
        return abs(native - foreign) < 0.05
    if name == "bitrate" and native and foreign:
        return abs(native - foreign) <= max(2000, foreign * 0.06)
    if name == "channels" and (native, foreign) == (1, 2):
        return True  # for mono AAC mutagen trusts the container, which always says two channels
    return bool(native == foreign)


@pytest.mark.corpus
def test_real_files_are_read_as_mutagen_reads_them(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = sorted(path for path in corpus.glob("*/*") if path.suffix[1:] in NATIVE_SUFFIXES)
    found = {str(path.relative_to(corpus)): differences(path, monkeypatch) for path in files}

    different = {file: names for file, names in found.items() if names}
    assert different == {file: set(names.split()) for file, (names, _reason) in EXCEPTIONS.items()}
    assert len(files) > 200


BY_BOTH = ("ID3v2", "APEv2", "Vorbis", "MP4", "ASF")  # mutagen reads nothing of the others, or they have one reader


@pytest.mark.parametrize(("kind", "template"), [(kind, each) for kind in BY_BOTH for each in TEMPLATES[kind]])
def test_a_file_with_every_field_is_read_as_mutagen_reads_it(
    kind: str, template: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Path(shutil.copy(AUDIO / template, tmp_path / template))
    for row in ROWS:
        if row.name_in(kind):
            WRITERS[kind](path, row.name_in(kind), row.written)

    # mutagen has no bitrate for FLAC in Ogg, and the bitrate of the whole file includes the tags.
    assert differences(path, monkeypatch) == ({"bitrate"} if template == "tone.oga" else set())
