"""FLAC: its metadata blocks, without the bytes of pictures."""

from collections.abc import Iterator

from soulspot.infrastructure.tags.formats.parsed import NeedsMutagenError, Parsed
from soulspot.infrastructure.tags.formats.source import Source, SpanReader
from soulspot.infrastructure.tags.formats.vorbis import flac_picture, read_comment
from soulspot.infrastructure.tags.model import Picture

_STREAMINFO, _COMMENT, _PICTURE = 0, 4, 6
_MAX_BLOCKS = 4096
_PICTURE_START = 256
_NO_MD5 = bytes(16)


def flac_blocks(source: Source) -> Iterator[tuple[int, int, int, bool]]:
    """Yield type, offset and length of each metadata block, and whether it is the last."""
    at = source.start + 4
    for _block in range(_MAX_BLOCKS):
        head = source.at(at, 4)
        if len(head) < 4:  # noqa: PLR2004
            return
        length, is_last = int.from_bytes(head[1:], "big"), head[0] >= 0x80  # noqa: PLR2004
        yield head[0] & 0x7F, at + 4, length, is_last
        at += 4 + length
        if is_last:
            return


def read_flac(source: Source) -> Parsed:
    """Read a FLAC file; raises NeedsMutagenError if a block is not valid."""
    parsed = Parsed()
    at, length, is_last = 0, 0, False
    for kind, at, length, is_last in flac_blocks(source):  # noqa: B007
        if kind == _STREAMINFO and not parsed.stream:
            parsed.stream = stream_info(source.at(at, 18))
        elif kind == _COMMENT and not parsed.names:
            read_comment(SpanReader(source, iter([(at, length)])), parsed)
        elif kind == _PICTURE:
            parsed.pictures.append(_picture(source, at, length))
    if not is_last or not parsed.stream:
        raise NeedsMutagenError
    size, duration = source.end - at - length, parsed.stream["duration"]
    if duration and size > 0:
        parsed.stream |= {"bitrate": round(size * 8 / duration), "bitrate_mode": "vbr"}
    return parsed


def stream_info(raw: bytes) -> dict[str, object]:
    """Return the fields of the stream from the start of a STREAMINFO block."""
    if len(raw) < 18:  # noqa: PLR2004
        raise NeedsMutagenError
    bits = int.from_bytes(raw[10:18], "big")
    rate, samples = bits >> 44, bits & 0xFFFFFFFFF
    return {
        "container": "flac", "codec": "flac", "lossless": True, "sample_rate": rate, "channels": (bits >> 41 & 7) + 1,
        "bits_per_sample": (bits >> 36 & 31) + 1, "duration": samples / rate if samples and rate else None,
    }  # fmt: skip


def flac_md5(streaminfo: bytes) -> str | None:
    """Return the MD5 of the decoded audio as a fingerprint, None if the encoder left it out."""
    md5 = streaminfo[18:34]
    return f"flac:{md5.hex()}" if len(md5) == len(_NO_MD5) and md5 != _NO_MD5 else None


def _picture(source: Source, at: int, length: int) -> Picture:
    picture = flac_picture(source.at(at, min(length, _PICTURE_START)), length)
    if picture is None and length > _PICTURE_START:
        picture = flac_picture(source.at(at, length), length)
    if picture is None:
        raise NeedsMutagenError
    return picture
