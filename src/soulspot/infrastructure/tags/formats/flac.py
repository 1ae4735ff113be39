"""FLAC: its metadata blocks, of which a picture is only looked at."""

from soulspot.infrastructure.tags.formats.parsed import DoubtError, Parsed
from soulspot.infrastructure.tags.formats.source import Source
from soulspot.infrastructure.tags.formats.vorbis import flac_picture, read_comment
from soulspot.infrastructure.tags.model import Picture

_STREAMINFO, _COMMENT, _PICTURE = 0, 4, 6
_MOST_BLOCKS = 4096
_PICTURE_START = 256
_NO_MD5 = bytes(16)


def read_flac(source: Source) -> Parsed:
    """Read a FLAC file; raises DoubtError where a block is not what it has to be."""
    parsed = Parsed()
    at, is_last = source.start + 4, False
    for _block in range(_MOST_BLOCKS):
        head = source.at(at, 4)
        if len(head) < 4:  # noqa: PLR2004
            raise DoubtError
        is_last, kind, length = head[0] >= 0x80, head[0] & 0x7F, int.from_bytes(head[1:], "big")  # noqa: PLR2004
        at += 4
        if kind == _STREAMINFO and not parsed.stream:
            parsed.stream = stream_info(source.at(at, 18))
        elif kind == _COMMENT and not parsed.names:
            _comment(source, at, length, parsed)
        elif kind == _PICTURE:
            parsed.pictures.append(_picture(source, at, length))
        at += length
        if is_last:
            break
    if not is_last or not parsed.stream:
        raise DoubtError
    size, duration = source.end - at, parsed.stream["duration"]
    if duration and size > 0:
        parsed.stream |= {"bitrate": round(size * 8 / duration), "bitrate_mode": "vbr"}
    return parsed


def stream_info(raw: bytes) -> dict[str, object]:
    """Return the fields of the stream from the start of a STREAMINFO block."""
    if len(raw) < 18:  # noqa: PLR2004
        raise DoubtError
    bits = int.from_bytes(raw[10:18], "big")
    rate, samples = bits >> 44, bits & 0xFFFFFFFFF
    return {
        "container": "flac", "codec": "flac", "lossless": True, "sample_rate": rate, "channels": (bits >> 41 & 7) + 1,
        "bits_per_sample": (bits >> 36 & 31) + 1, "duration": samples / rate if samples and rate else None,
    }  # fmt: skip


def flac_md5(streaminfo: bytes) -> str | None:
    """Return the MD5 of the sound as a fingerprint, None where the encoder has left it out."""
    md5 = streaminfo[18:34]
    return f"flac:{md5.hex()}" if len(md5) == len(_NO_MD5) and md5 != _NO_MD5 else None


def _comment(source: Source, at: int, length: int, parsed: Parsed) -> None:
    end = at + length

    def read(count: int) -> bytes:
        nonlocal at
        raw = source.at(at, min(count, end - at))
        at += len(raw)
        return raw

    def skip(count: int) -> None:
        nonlocal at
        at += max(0, count)

    read_comment(read, skip, parsed)


def _picture(source: Source, at: int, length: int) -> Picture:
    picture = flac_picture(source.at(at, min(length, _PICTURE_START)), length)
    if picture is None and length > _PICTURE_START:
        picture = flac_picture(source.at(at, length), length)
    if picture is None:
        raise DoubtError
    return picture
