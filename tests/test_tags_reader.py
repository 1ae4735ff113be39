"""Tag readers on broken, mislabelled, oddly tagged and old files."""

import asyncio
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from mutagen.apev2 import APEv2
from mutagen.id3 import ID3, TIT2
from tests.support.fuzz_tags import id3, text_frame
from tests.support.tag_table import write_by_name, write_id3v1
from tests.test_tags_fingerprint import COVER, TEMPLATES, retag

from soulspot.infrastructure.tags import Picture, TrackTags
from soulspot.infrastructure.tags.reader import read_file
from soulspot.infrastructure.tags.readers import pool
from soulspot.infrastructure.tags.readers.pool import TagReaders
from soulspot.infrastructure.tags.texts import encoding_of

AUDIO = Path(__file__).parent / "audio"


def read(path: Path) -> TrackTags:
    reading = read_file(str(path))
    assert reading.tags is not None, reading.failure
    return reading.tags


def failure(path: Path) -> str:
    reading = read_file(str(path))
    assert reading.failure is not None
    assert reading.failure.message
    return reading.failure.code


def audio(extension: str) -> bytes:
    return (AUDIO / f"tone.{extension}").read_bytes()


@pytest.fixture
def song(tmp_path: Path) -> Path:
    return Path(shutil.copy(AUDIO / "tone.mp3", tmp_path / "song.mp3"))


def tagged(path: Path, title: str = "Title") -> Path:
    tag = ID3()
    tag.add(TIT2(3, title))
    tag.save(path)
    return path


def test_ape_tags_on_mp3_are_read_and_id3_has_priority(song: Path) -> None:
    ape = APEv2()
    ape["Title"], ape["Album"] = "of APE", "Album of APE"
    ape.save(song)
    tagged(song, "of ID3")

    tags = read(song)

    assert (tags.title, tags.album) == ("of ID3", "Album of APE")


def test_id3v1_fills_in_what_longer_tags_lack(song: Path) -> None:
    tagged(song, "A title of much more than thirty characters")
    write_id3v1(song, "title", ("A title of much more than thir",))

    assert read(song).title == "A title of much more than thirty characters"


@pytest.mark.parametrize("extension", ["mpc", "aac", "flac", "wv", "tta", "ogg", "m4a", "wma", "ac3"])
def test_a_leading_id3_tag_does_not_change_the_detected_format(extension: str, tmp_path: Path) -> None:
    path = tmp_path / f"tone.{extension}"
    path.write_bytes(id3(text_frame(b"TIT2", b"\3Title"), 4) + audio(extension))

    tags, bare = read(path), read(AUDIO / f"tone.{extension}")

    assert tags.title == "Title"
    assert (tags.container, tags.codec, tags.channels) == (bare.container, bare.codec, bare.channels)
    assert tags.duration == pytest.approx(bare.duration, abs=0.02)


@pytest.mark.parametrize("extension", ["mp3", "flac", "ogg", "m4a", "wav", "aiff", "wma", "wv", "mpc", "opus", "dsf"])
def test_a_wrong_extension_does_not_matter(extension: str, tmp_path: Path) -> None:
    path = Path(shutil.copy(AUDIO / f"tone.{extension}", tmp_path / ("tone.flac" if extension != "flac" else "x.mp3")))

    assert read(path).codec == read(AUDIO / f"tone.{extension}").codec


def test_the_tag_of_a_file_whose_audio_is_missing_is_kept(tmp_path: Path) -> None:
    path = tagged(tmp_path / "alone.mp3")

    tags = read(path)

    assert tags.title == "Title"
    assert tags.duration is None
    assert tags.notes == ("no-audio",)


def test_a_truncated_tag_is_read_to_the_end_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "cut.mp3"
    frames = text_frame(b"TIT2", b"\3Title") + text_frame(b"TALB", b"\3An album")
    path.write_bytes(id3(frames + bytes(5000), 4)[:40])

    assert read(path).title == "Title"


@pytest.mark.parametrize("version", [3, 4])
def test_a_plain_and_an_unsynchronised_tag_read_the_same(version: int, song: Path) -> None:
    frames = text_frame(b"TIT2", b"\1\xff\xfe" + "Ünï".encode("utf-16-le")) + text_frame(b"TALB", b"\0a\xff\xfeb")
    flags = bytearray(id3(frames.replace(b"\xff", b"\xff\0"), version))
    flags[5] = 0x80
    if version == 4:  # frame sizes and flags describe the bytes on disk
        stuffed = [
            text_frame(b"TIT2", b"\1\xff\0\xfe" + "Ünï".encode("utf-16-le")),
            text_frame(b"TALB", b"\0a\xff\0\xfeb"),
        ]
        flags = bytearray(id3(b"".join(each[:9] + b"\2" + each[10:] for each in stuffed), version))
        flags[5] = 0x80
    song.write_bytes(bytes(flags) + audio("mp3"))

    tags = read(song)

    assert (tags.title, tags.album) == ("Ünï", "aÿþb")


def test_id3_version_2_2_is_read(song: Path) -> None:
    def frame(name: bytes, body: bytes) -> bytes:
        return name + len(body).to_bytes(3, "big") + body

    frames = frame(b"TT2", b"\0Title") + frame(b"TP1", b"\0Artist") + frame(b"TYE", b"\x001999")
    song.write_bytes(id3(frames + frame(b"TCO", b"\0(17)"), 2) + audio("mp3"))

    tags = read(song)

    assert (tags.title, tags.artist, tags.date, tags.genres) == ("Title", "Artist", "1999", ("Rock",))


def test_the_day_of_an_old_tag_is_read(song: Path) -> None:
    frames = text_frame(b"TYER", b"\x001999") + text_frame(b"TDAT", b"\x003112") + text_frame(b"TORY", b"\x001967")
    song.write_bytes(id3(frames, 3) + audio("mp3"))

    assert (read(song).date, read(song).original_date) == ("1999-12-31", "1967")


def test_with_a_grp1_frame_the_tit1_frame_is_the_work(song: Path) -> None:
    frames = text_frame(b"TIT1", b"\3Symphony No. 5") + text_frame(b"GRP1", b"\3Favourites")
    song.write_bytes(id3(frames, 4) + audio("mp3"))

    assert (read(song).work, read(song).grouping) == ("Symphony No. 5", "Favourites")


def test_the_duration_of_a_wav_with_a_false_size_comes_from_its_length(tmp_path: Path) -> None:
    content = bytearray(audio("wav"))
    offset = content.find(b"data") + 4
    content[offset : offset + 4] = b"\xff\xff\xff\xff"
    path = tmp_path / "stream.wav"
    path.write_bytes(content)

    assert read(path).duration == pytest.approx(0.5)


def test_dts_in_wav_is_detected_as_dts(tmp_path: Path) -> None:
    content = bytearray(audio("wav"))
    offset = content.find(b"data") + 8
    content[offset : offset + 4] = b"\xff\x1f\x00\xe8"
    path = tmp_path / "dts.wav"
    path.write_bytes(content)

    assert (read(path).codec, read(path).lossless) == ("dts", False)


@pytest.mark.parametrize(
    ("extension", "codec", "is_lossless", "channels"),
    [
        ("mp3", "mp3", False, 1), ("mp2", "mp2", False, 1), ("flac", "flac", True, 1), ("oga", "flac", True, 1),
        ("ogg", "vorbis", False, 1), ("opus", "opus", False, 1), ("spx", "speex", False, 1), ("m4a", "aac", False, 1),
        ("alac.m4a", "alac", True, 1), ("wav", "pcm", True, 1), ("aiff", "pcm", True, 1), ("wv", "wavpack", True, 1),
        ("tta", "tta", True, 1), ("mpc", "musepack", False, 1), ("dsf", "dsd", True, 1), ("aac", "aac", False, 1),
        ("ac3", "ac3", False, 1),
    ],
)  # fmt: skip
def test_codec_lossless_and_channels_are_detected(extension: str, codec: str, is_lossless: bool, channels: int) -> None:
    tags = read(AUDIO / f"tone.{extension}")

    assert (tags.codec, tags.lossless) == (codec, is_lossless)
    assert tags.channels == channels or extension in {"mpc", "ac3"}  # mutagen reports two channels for each
    assert tags.bitrate
    assert tags.sample_rate
    if extension != "dsf":
        assert tags.duration == pytest.approx(0.5, abs=0.1)


def test_a_variable_bitrate_without_a_frame_count_is_measured(tmp_path: Path) -> None:
    quiet, loud = b"\xff\xfb\x50\xc4", b"\xff\xfb\x90\xc4"  # MPEG-1 layer 3, 44.1 kHz, 64 and 128 kbit/s
    frames = [quiet.ljust(208, b"\0")] * 300 + [loud.ljust(417, b"\0")] * 300
    path = tmp_path / "vbr.mp3"
    path.write_bytes(b"".join(frames))

    tags = read(path)

    assert tags.bitrate_mode == "vbr"
    assert tags.duration == pytest.approx(600 * 1152 / 44100, abs=0.03)


def test_gains_of_opus_are_converted_to_replaygain(tmp_path: Path) -> None:
    path = Path(shutil.copy(AUDIO / "tone.opus", tmp_path / "tone.opus"))
    write_by_name(path, "R128_TRACK_GAIN", ("-1792",))

    assert read(path).replaygain_track_gain == -2.0


def test_the_comment_of_a_file_with_video_is_read(tmp_path: Path) -> None:
    path = Path(shutil.copy(AUDIO / "tone.ogg", tmp_path / "film.ogv"))
    write_by_name(path, "TITLE", ("Title",))
    film = b"OggS\0\2" + bytes(8) + b"film" + bytes(8) + b"\1\x2a" + b"\x80theora" + bytes(35)
    path.write_bytes(film + path.read_bytes())

    tags = read(path)

    assert (tags.title, tags.codec) == ("Title", "vorbis")


@pytest.mark.parametrize(
    ("encoding", "title", "artist", "album"),
    [
        ("utf-8", "Für Elise", "Beyoncé", "Ágætis byrjun"),
        ("cp1251", "Группа крови", "Кино", "Звезда"),
        ("koi8-r", "Звезда по имени", "Земфира", "Ария"),
        ("gbk", "角落之歌", "苏云", "月亮代表我的心"),
        ("big5", "月亮代表我的心", "鄧麗君", "淡淡幽情"),
        ("shift-jis", "夜の列車", "東京事変", "ガラスの海"),
        ("euc-jp", "夜の列車", "東京事変", "ガラスの海"),
        ("euc-kr", "유리 정원", "소녀시대", "겨울 편지"),
        ("cp1252", "Don’t Stop", "“Heroes”", "Café – Live"),
    ],
)
def test_texts_in_a_legacy_encoding_are_decoded(encoding: str, title: str, artist: str, album: str, song: Path) -> None:
    frames = ((b"TIT2", title), (b"TPE1", artist), (b"TALB", album))
    song.write_bytes(id3(b"".join(text_frame(name, b"\0" + text.encode(encoding)) for name, text in frames), 3))
    song.write_bytes(song.read_bytes() + audio("mp3"))

    tags = read(song)

    assert (tags.title, tags.artist, tags.album) == (title, artist, album)
    assert tags.notes == (f"encoding-guessed-{encoding}",)


@pytest.mark.parametrize(
    "text",
    ["Beyoncé", "Motörhead", "Sigur Rós", "Mötley Crüe", "Édith Piaf", "Ágætis byrjun", "É", "ÅÄÖ", "æøå", "¿Qué?"],
)
def test_western_accents_are_not_decoded_as_another_script(text: str) -> None:
    assert encoding_of(text.encode("latin-1")) == "latin-1"


async def test_a_latin_1_text_passes_from_the_reader_process(song: Path) -> None:
    song.write_bytes(id3(text_frame(b"TIT2", b"\0Beyonc\xe9"), 3) + audio("mp3"))

    async with TagReaders(1) as readers:
        reading = await readers.read(str(song))

    assert reading.tags is not None
    assert reading.tags.title == "Beyoncé"


async def test_readers_are_replaced_without_a_failure_or_a_message(
    song: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(pool, "RECYCLE_AFTER", 2)

    async with TagReaders(1) as readers:
        readings = [await readers.read(str(song)) for _number in range(12)]

    assert [reading.failure for reading in readings] == [None] * 12
    assert caplog.messages == []


async def test_requests_in_quick_succession_are_batched(song: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    handed_out: list[int] = []
    send = pool._Reader.send

    def note(reader: pool._Reader, requests: list[pool._Request]) -> None:
        handed_out.append(len(requests))
        send(reader, requests)

    monkeypatch.setattr(pool._Reader, "send", note)
    monkeypatch.setattr(pool, "BATCH_INTERVAL", 0.5)

    async with TagReaders(1) as readers:
        await readers.read(str(song))
        reading = [asyncio.create_task(readers.read(str(song)))]
        for _number in range(pool.MIN_BATCH - 2):
            await asyncio.sleep(0.001)
            reading.append(asyncio.create_task(readers.read(str(song))))
        await asyncio.gather(*reading)

    assert handed_out == [1, pool.MIN_BATCH - 1]


async def test_urgent_files_are_read_first(song: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "IN_FLIGHT", 1)
    order: list[str] = []

    async def read(name: str, *, is_urgent: bool) -> None:
        await readers.read(str(song), is_urgent=is_urgent)
        order.append(name)

    async with TagReaders(1) as readers:
        asked = [(f"bulk {number}", False) for number in range(4)] + [("dropped", True), ("dropped too", True)]
        await asyncio.gather(*(read(name, is_urgent=is_urgent) for name, is_urgent in asked))

    assert order == ["dropped", "dropped too", "bulk 0", "bulk 1", "bulk 2", "bulk 3"]


def test_an_empty_file_fails_as_empty(tmp_path: Path) -> None:
    path = tmp_path / "empty.mp3"
    path.touch()

    assert failure(path) == "empty"


def test_a_folder_is_not_a_regular_file(tmp_path: Path) -> None:
    assert failure(tmp_path) == "not-regular"


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("text.mp3", b"this is a text " * 100, "corrupt"),
        ("text.flac", b"this is a text " * 100, "corrupt"),
        ("old.shn", b"ajkg" + bytes(100), "unsupported"),
        ("cut.m4a", b"\0\0\0\x20ftypM4A ", "truncated"),
        ("cut-later.m4a", audio("m4a")[:1000], "truncated"),
        ("cut.wav", audio("wav")[:30], "truncated"),
        ("cut.aiff", audio("aiff")[:30], "truncated"),
        ("cut.flac", audio("flac")[:30], "truncated"),
        ("claims.mp3", b"ID3\4\0\0\0\0\x40\0" + bytes(30), "truncated"),
    ],
)
def test_a_failure_has_a_code(name: str, content: bytes, code: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)

    assert failure(path) == code


@pytest.mark.parametrize("start", [b"this is a text ", b"\xff\xf1\x00\x00", b"\x0b\x77\x00", b"ID3\4\0\0\0\0\0\0", b""])
def test_a_file_that_is_not_audio_is_not_a_failure(start: bytes, tmp_path: Path) -> None:
    path = tmp_path / "notes"
    path.write_bytes(start + b"\x07\x80 and more " * 100)

    reading = read_file(str(path))

    assert (reading.tags, reading.failure) == (None, None)


def test_damaged_audio_without_an_extension_is_a_failure(tmp_path: Path) -> None:
    path = tmp_path / "track without extension"
    path.write_bytes(audio("flac")[:30])

    assert failure(path) == "truncated"


@pytest.mark.parametrize("template", [each for each in TEMPLATES if not each.endswith((".aac", ".ac3"))])
def test_a_cover_is_described_without_its_bytes(template: str, tmp_path: Path) -> None:
    path = Path(shutil.copy(AUDIO / template, tmp_path / template))
    retag(path, "text", COVER)

    (picture,) = read(path).pictures

    assert (picture.type, picture.size) == (3, len(COVER))


def test_a_cover_between_text_frames_is_skipped(song: Path) -> None:
    cover = b"APIC" + struct.pack(">IH", 1 << 20, 0) + (b"\0image/jpeg\0\3\0").ljust(1 << 20, b"\xff")
    frames = text_frame(b"TIT2", b"\3Title") + cover + text_frame(b"TALB", b"\3Album")
    song.write_bytes(id3(frames, 3) + audio("mp3"))

    tags = read(song)

    assert (tags.title, tags.album) == ("Title", "Album")
    assert tags.pictures == (Picture(3, "image/jpeg", (1 << 20) - 14),)


def test_the_reader_process_imports_little() -> None:
    code = "import sys, soulspot.infrastructure.tags.readers.reader_process; print(*sys.modules)"

    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()

    assert not {"asyncio", "sqlalchemy", "pydantic", "rich", "typer", "watchfiles"} & set(loaded)
