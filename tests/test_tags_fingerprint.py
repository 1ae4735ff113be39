"""The fingerprint of a file's audio: retagging keeps it in every format, and other audio has another."""

import base64
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import mutagen
import pytest
from mutagen.apev2 import BINARY, APEv2, APEValue
from mutagen.asf import ASFByteArrayAttribute
from mutagen.flac import Picture
from mutagen.id3 import APIC, COMM, ID3, TIT2
from mutagen.mp4 import MP4Cover
from mutagen.ogg import OggPage

from soulspot.infrastructure.tags.reader import read_file

AUDIO = Path(__file__).parent / "audio"
TEMPLATES = sorted(path.name for path in AUDIO.glob("tone.*"))
COVER = os.urandom(300_000)


def copy(template: str, folder: Path) -> Path:
    return Path(shutil.copy(AUDIO / template, folder / template))


def fingerprint(path: Path) -> str:
    tags = read_file(str(path)).tags
    assert tags is not None
    assert tags.fingerprint is not None
    return tags.fingerprint


def retag(path: Path, text: str, cover: bytes | None = None) -> None:
    """Write one text and a cover, in the native tag of the format or in the tag that tools add around it."""
    if path.suffix in {".aac", ".ac3"}:
        tag = ID3()
        tag.add(TIT2(3, text))
        tag.save(path)
        return
    song = mutagen.File(path)
    if song.tags is None:
        song.add_tags()
    if isinstance(song.tags, ID3):
        song.tags.add(COMM(3, "eng", "", [text]))
        if cover:
            song.tags.add(APIC(3, "image/jpeg", 3, "", cover))
    elif isinstance(song.tags, APEv2):
        song["Comment"] = text
        if cover:
            song["Cover Art (Front)"] = APEValue(b"cover.jpg\0" + cover, BINARY)
    elif path.suffix == ".m4a":
        song["\xa9cmt"] = [text]
        if cover:
            song["covr"] = [MP4Cover(cover)]
    elif path.suffix == ".wma":
        song["Description"] = text
        if cover:
            song["WM/Picture"] = [ASFByteArrayAttribute(b"\x03" + struct.pack("<I", len(cover)) + bytes(4) + cover)]
    else:
        song["comment"] = text
        if cover:
            picture = Picture()
            picture.data, picture.type = cover, 3
            song["metadata_block_picture"] = [base64.b64encode(picture.write()).decode()]
    song.save()


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_retag_keeps_the_fingerprint(template: str, tmp_path: Path) -> None:
    path = copy(template, tmp_path)
    before = fingerprint(path)

    retag(path, "short")
    small = fingerprint(path)
    retag(path, "long " * 20_000, COVER)
    large = fingerprint(path)

    assert before == small == large


@pytest.mark.parametrize("template", TEMPLATES)
def test_other_audio_has_another_fingerprint(template: str, tmp_path: Path) -> None:
    path = copy(template, tmp_path)
    before = fingerprint(path)
    content = bytearray(path.read_bytes())
    # FLAC's MD5 is in the stream header, Vorbis's setup fills most of its file, and the end of others may not be audio.
    offset = content.find(b"fLaC") + 30 if b"fLaC" in content[:64] else len(content) * 3 // 4
    offset = len(content) - 200 if template == "tone.ogg" else offset
    content[offset] ^= 0xFF
    path.write_bytes(content)

    assert fingerprint(path) != before


def test_all_templates_have_different_fingerprints() -> None:
    found = {template: fingerprint(AUDIO / template) for template in TEMPLATES}

    assert len(set(found.values())) == len(found)


def test_flac_has_the_same_fingerprint_in_ogg(tmp_path: Path) -> None:
    path = copy("tone.oga", tmp_path)
    content = bytearray(path.read_bytes())
    streaminfo = content.find(b"fLaC") + 8  # ffmpeg leaves the MD5 unset
    content[streaminfo + 18 : streaminfo + 34] = (AUDIO / "tone.flac").read_bytes()[26:42]
    path.write_bytes(content)

    assert fingerprint(path) == fingerprint(AUDIO / "tone.flac")


@pytest.mark.parametrize("template", ["tone.ogg", "tone.opus", "tone.spx"])
def test_repaginated_packets_keep_the_fingerprint(template: str, tmp_path: Path) -> None:
    path = copy(template, tmp_path)
    before = fingerprint(path)

    repaginate(path, 600)

    assert fingerprint(path) == before


def repaginate(path: Path, page_size: int) -> None:
    """Write all packets of a file with one stream in pages of another size, as vorbiscomment does."""
    pages = []
    with path.open("rb") as file:
        while True:
            try:
                pages.append(OggPage(file))
            except EOFError:
                break
    headers = OggPage.to_packets(pages[:1], strict=True)
    rest = OggPage.to_packets(pages[1:])
    new = OggPage.from_packets(headers, 0) + OggPage.from_packets(rest, 1, default_size=page_size, wiggle_room=0)
    assert len(new) > len(pages)
    for page in new:
        page.serial = pages[0].serial
    new[0].first = True
    new[-1].last = True
    new[-1].position = pages[-1].position
    path.write_bytes(b"".join(page.write() for page in new))


def id3v1(content: bytes) -> bytes:
    return content + b"TAG" + b"A title".ljust(125, b"\0")


def id3v1_twice_over_ape(content: bytes) -> bytes:
    item = struct.pack("<II", 1, 0) + b"Title\0" + b"t"
    footer = b"APETAGEX" + struct.pack("<IIII8x", 2000, len(item) + 32, 1, 0)
    return id3v1(content + item + footer)


def lyrics3(content: bytes) -> bytes:
    body = b"LYRICSBEGIN" + b"LYR00005la la"
    return id3v1(content + body + b"%06dLYRICS200" % len(body))


def two_leading_tags(content: bytes) -> bytes:
    return b"ID3\4\0\0\0\0\0\x20" + bytes(32) + b"ID3\4\0\0\0\0\0\x10" + bytes(16) + content


@pytest.mark.parametrize("add_tags", [id3v1, id3v1_twice_over_ape, lyrics3, two_leading_tags])
@pytest.mark.parametrize("template", ["tone.mp3", "tone.mp2", "tone.tta", "tone.wv", "tone.mpc"])
def test_tags_at_either_end_do_not_count_as_audio(
    template: str, add_tags: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    path = copy(template, tmp_path)
    before = fingerprint(path)

    path.write_bytes(add_tags(path.read_bytes()))

    assert fingerprint(path) == before


def test_the_fingerprint_of_flac_is_its_own_md5() -> None:
    assert fingerprint(AUDIO / "tone.flac").startswith("flac:")


def test_flac_without_an_md5_is_identified_by_its_frames(tmp_path: Path) -> None:
    path = tmp_path / "tone.flac"
    content = bytearray((AUDIO / "tone.flac").read_bytes())
    content[26:42] = bytes(16)
    path.write_bytes(content)
    before = fingerprint(path)

    retag(path, "long " * 20_000, COVER)

    assert before.startswith("b2:")
    assert fingerprint(path) == before


def test_a_file_without_audio_has_no_fingerprint(tmp_path: Path) -> None:
    path = tmp_path / "tag.mp3"
    tag = ID3()
    tag.add(TIT2(3, "alone"))
    tag.save(path)

    tags = read_file(str(path)).tags

    assert tags is not None
    assert tags.title == "alone"
    assert tags.fingerprint is None
