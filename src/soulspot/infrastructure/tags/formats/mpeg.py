"""MPEG audio: its stream, from the Xing frame or the first frames.

If the bitrate varies and no Xing frame has the number of frames, this counts them: an estimate is off by some percent.
"""

import struct
from typing import Any, Final

from soulspot.infrastructure.tags.formats.parsed import NeedsMutagenError, Parsed
from soulspot.infrastructure.tags.formats.source import Source

_V1L1 = (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448)
_V1L2 = (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384)
_V1L3 = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_V2L1 = (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256)
_V2L23 = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_RATES: Final = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
_VERSIONS: Final = {3: "MPEG-1", 2: "MPEG-2", 0: "MPEG-2.5"}
_ENOUGH_FRAMES = 4
_BLOCK = 1 << 18
_START = 2048
_LAME_METHODS: Final = {1: "cbr", 2: "abr", 3: "vbr", 4: "vbr", 5: "vbr", 6: "vbr", 8: "cbr", 9: "abr"}
_MAX_MISSES = 64

Frame = tuple[int, int, int, int, int]
"""Length in bytes, samples, bits a second, sample rate, layer."""


def _table() -> dict[int, Frame]:
    """Return the frame that each valid header describes, by its second and third byte."""
    table = {}
    for key in range(0xE000, 0x10000):
        version, layer = key >> 11 & 3, 4 - (key >> 9 & 3)
        bitrate, rate, padding = key >> 4 & 15, key >> 2 & 3, key >> 1 & 1
        if version == 1 or layer == 4 or bitrate in {0, 15} or rate == 3:  # noqa: PLR2004
            continue
        kilobits = ((_V1L1, _V1L2, _V1L3) if version == 3 else (_V2L1, _V2L23, _V2L23))[layer - 1][bitrate]  # noqa: PLR2004
        hertz = _RATES[version][rate]
        samples = 384 if layer == 1 else 576 if layer == 3 and version != 3 else 1152  # noqa: PLR2004
        slot = 4 if layer == 1 else 1
        length = (samples // 8 * kilobits * 1000 // hertz // slot + padding) * slot
        table[key] = (length, samples, kilobits * 1000, hertz, layer)
    return table


_FRAMES: Final = _table()


def frame_at(data: bytes, at: int) -> Frame | None:
    """Return the frame whose header is at an offset, None if there is none."""
    if at + 4 > len(data) or data[at] != 0xFF:  # noqa: PLR2004
        return None
    return _FRAMES.get(data[at + 1] << 8 | data[at + 2])


def read_mpeg(source: Source) -> Parsed:
    """Read the stream; raises NeedsMutagenError if it does not begin with consistent frames."""
    data = source.at(source.start, _START)
    first = frame_at(data, 0)
    if first is None:
        raise NeedsMutagenError
    stream = {
        "container": "mp3", "codec": f"mp{first[4]}", "profile": _VERSIONS[data[1] >> 3 & 3], "lossless": False,
        "sample_rate": first[3],
        "channels": 1 if data[3] >> 6 == 3 else 2,  # noqa: PLR2004
    }  # fmt: skip
    counted = _xing(data, first) if first[4] == 3 else None  # noqa: PLR2004
    return Parsed(stream=stream | (counted or _count(source, data, first)))


def _xing(data: bytes, first: Frame) -> dict[str, Any] | None:
    """Return bitrate and duration from the Xing frame, None if the first frame is an ordinary one."""
    is_mpeg1, is_mono = data[1] >> 3 & 3 == 3, data[3] >> 6 == 3  # noqa: PLR2004
    at = 4 + (17 if is_mono else 32) if is_mpeg1 else 4 + (9 if is_mono else 17)
    if data[36:40] == b"VBRI":
        raise NeedsMutagenError
    mark = data[at : at + 4]
    if mark not in {b"Xing", b"Info"}:
        return None
    (flags,) = struct.unpack_from(">I", data, at + 4)
    if flags & 3 != 3:  # noqa: PLR2004
        raise NeedsMutagenError
    frames, size = struct.unpack_from(">II", data, at + 8)
    lame = at + 16 + (100 if flags & 4 else 0) + (4 if flags & 8 else 0)
    samples = frames * first[1]
    if not samples:
        raise NeedsMutagenError
    bitrate = round(max(0, size - first[0]) * 8 * first[3] / samples)
    found: dict[str, Any] = {"bitrate": bitrate, "bitrate_mode": "cbr" if mark == b"Info" else "vbr"}
    version = data[lame : lame + 9]
    if version.startswith((b"LAME", b"L3.99", b"Lav")):
        found["encoder"] = version.rstrip(b"\0U \xaa").decode("latin-1")
    if version.startswith((b"LAME3.9", b"LAME3.1", b"L3.99")) and len(data) >= lame + 24:
        found["bitrate_mode"] = _LAME_METHODS.get(data[lame + 9] & 15, found["bitrate_mode"])
        delays = int.from_bytes(data[lame + 21 : lame + 24], "big")
        samples -= (delays >> 12) + (delays & 0xFFF)
    return found | {"duration": max(0, samples) / first[3]}


def _count(source: Source, data: bytes, first: Frame) -> dict[str, Any]:
    """Return bitrate and duration: from the size if the bitrate is constant, else from the number of frames."""
    end = source.end
    at, found = 0, 0
    bitrates: set[int] = set()
    frame: Frame | None = first
    while frame and frame[3:] == first[3:]:
        bitrates.add(frame[2])
        found += 1
        at += frame[0]
        frame = frame_at(data, at)
    if found < _ENOUGH_FRAMES and source.start + at < end:
        raise NeedsMutagenError
    if len(bitrates) == 1 and _bitrate_within(source, end, first) in {None, first[2]}:
        return {"bitrate": first[2], "bitrate_mode": "cbr", "duration": (end - source.start) * 8 / first[2]}
    frames, size = _walk(source, end, first)
    duration = frames * first[1] / first[3]
    return {"bitrate": round(size * 8 / duration), "bitrate_mode": "vbr", "duration": duration}


def _bitrate_within(source: Source, end: int, first: Frame) -> int | None:
    """Return the bitrate in the middle of the audio: 0 if two frames there differ, None without two frames in a row."""
    data = source.at((source.start + end) // 2, 4096)
    at = data.find(b"\xff")
    while at >= 0:
        frame = frame_at(data, at)
        if frame is not None and frame[3:] == first[3:]:
            following = frame_at(data, at + frame[0])
            if following is not None and following[3:] == first[3:]:
                return frame[2] if frame[2] == following[2] else 0
        at = data.find(b"\xff", at + 1)
    return None


def _walk(source: Source, end: int, first: Frame) -> tuple[int, int]:
    """Count the frames and their bytes, skipping damaged parts."""
    frames = size = misses = 0
    block, block_at, at = b"", 0, source.start
    while at + 4 <= end:
        if not block_at <= at <= block_at + len(block) - 4:
            block, block_at = source.at(at, _BLOCK), at
            if len(block) < 4:  # noqa: PLR2004
                break
        frame = frame_at(block, at - block_at)
        if frame is not None and frame[3:] == first[3:]:
            frames += 1
            size += frame[0]
            at += frame[0]
            continue
        misses += 1
        found = block.find(b"\xff", at - block_at + 1)
        at = block_at + (found if found >= 0 else max(len(block) - 3, 1))
        if misses > _MAX_MISSES * (frames + 16):
            break
    if not frames:
        raise NeedsMutagenError
    return frames, size
