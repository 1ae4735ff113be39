"""WAV and AIFF: their chunks, including texts that mutagen does not read (RIFF INFO; AIFF's NAME, AUTH and ANNO)."""

import re
import struct
from collections.abc import Iterator
from typing import Any, Final

from soulspot.infrastructure.tags.formats.id3 import read_id3
from soulspot.infrastructure.tags.formats.parsed import NeedsMutagenError, Parsed
from soulspot.infrastructure.tags.formats.source import Source, chunks, id3_length
from soulspot.infrastructure.tags.texts import decode_undeclared

INFO: Final = {
    "INAM": "title", "IART": "artist", "IPRD": "album", "IAAR": "albumartist", "ICRD": "date", "YEAR": "date",
    "IGNR": "genre", "GENR": "genre", "ICMT": "comment", "ITRK": "tracknumber", "IPRT": "tracknumber",
    "TRCK": "tracknumber", "PRT1": "tracknumber", "PRT2": "tracktotal", "IFRM": "tracktotal", "ISFT": "encoder",
    "ICOP": "copyright", "IENG": "engineer", "ITCH": "encodedby", "IENC": "encodedby", "IMUS": "composer",
    "IWRI": "writer", "ILNG": "language", "IMED": "media", "ICNT": "releasecountry", "IPRO": "producer",
    "ISTR": "performer", "TORG": "label", "IPUB": "label", "IBPM": "bpm", "IBSU": "website", "IMBI": "mood",
    "IEDT": "remixer", "TLEN": "tlen",
}  # fmt: skip
AIFF_TEXTS: Final = {"NAME": "title", "AUTH": "artist", "(c) ": "copyright", "ANNO": "comment"}
_LITTLE, _BIG = struct.Struct("<4sI"), struct.Struct(">4sI")
_FORMATS = {
    1: "pcm", 2: "adpcm", 3: "pcm", 6: "alaw", 7: "mulaw", 0x11: "adpcm", 0x31: "gsm", 0x50: "mp2", 0x55: "mp3",
    0xFF: "aac", 0x161: "wma", 0x2000: "ac3", 0x2001: "dts", 0xF1AC: "flac",
}  # fmt: skip
_PROFILES = {3: "float", 2: "MS", 0x11: "IMA"}
_EXTENSIBLE = 0xFFFE
_DTS = (b"\xfe\x7f\x01\x80", b"\x7f\xfe\x80\x01", b"\xff\x1f\x00\xe8", b"\x1f\xff\xe8\x00")
_AIFC_PCM = {b"NONE": "", b"sowt": "little-endian", b"twos": "", b"fl32": "float", b"FL32": "float", b"fl64": "float"}
_AIFC = {b"ima4": "adpcm", b"ulaw": "mulaw", b"ULAW": "mulaw", b"alaw": "alaw", b"ALAW": "alaw", b"GSM ": "gsm"}
_LARGEST_TEXT = 1 << 20
_LARGEST_XMP = 1 << 20
_XMP_TEXT = re.compile(
    rb"<(dc:title|dc:creator|xmpDM:artist|xmpDM:album|xmpDM:genre|dc:rights)[ >](.*?)</\1>|"
    rb"\b(xmpDM:(?:artist|album|genre|releaseDate|trackNumber))=\"([^\"]*)\"",
    re.DOTALL,
)
_XMP = {
    b"dc:title": "title", b"dc:creator": "artist", b"xmpDM:artist": "artist", b"xmpDM:album": "album",
    b"xmpDM:genre": "genre", b"dc:rights": "copyright", b"xmpDM:releaseDate": "date",
    b"xmpDM:trackNumber": "tracknumber",
}  # fmt: skip


def read_wav(source: Source) -> Parsed:
    """Read a WAV file; raises NeedsMutagenError if it does not describe its audio."""
    parsed, info, xmp = Parsed(), Parsed(), Parsed()
    form, data, samples = b"", (0, 0), 0
    for name, at, length in chunks(source, source.start + 12, _LITTLE, source.size):
        if name == b"fmt ":
            form = form or source.at(at, min(length, 40))
        elif name == b"data":
            data = (at, length) if not data[1] else data
        elif name == b"fact":
            samples = int.from_bytes(source.at(at, 4), "little")
        elif name == b"LIST":
            _list(source, at, length, info)
        elif name.lower() == b"id3 ":
            _id3(source, at, length, parsed)
        elif name == b"_PMX":
            _xmp(source, at, length, xmp)
    if len(form) < 16:  # noqa: PLR2004
        raise NeedsMutagenError
    parsed.stream = _wav_stream(source, form, data)
    if parsed.stream["codec"] != "pcm" and samples and parsed.stream["sample_rate"]:
        parsed.stream["duration"] = samples / parsed.stream["sample_rate"]
    parsed.fill_from(info)
    parsed.fill_from(xmp)
    return parsed


def _wav_stream(source: Source, form: bytes, data: tuple[int, int]) -> dict[str, Any]:
    kind, channels, rate, bytes_a_second, _block, bits = struct.unpack_from("<HHIIHH", form)
    if kind == _EXTENSIBLE and len(form) >= 26:  # noqa: PLR2004
        (kind,) = struct.unpack_from("<H", form, 24)
    codec = _FORMATS.get(kind)
    is_pcm = codec == "pcm"
    if is_pcm and not bytes_a_second:
        bytes_a_second = channels * rate * bits // 8
    if is_pcm and source.at(data[0], 4) in _DTS:
        codec = "dts"
    return {
        "container": "wav", "codec": codec, "profile": _PROFILES.get(kind),
        "lossless": codec in {"pcm", "flac"} if codec else None,
        "channels": channels, "sample_rate": rate, "bits_per_sample": bits, "bitrate": bytes_a_second * 8,
        "bitrate_mode": "cbr" if is_pcm else None,
        "duration": data[1] / bytes_a_second if bytes_a_second else None,
    }  # fmt: skip


def _list(source: Source, at: int, length: int, parsed: Parsed) -> None:
    if source.at(at, 4) != b"INFO":
        return
    for name, text_at, size in _loose_chunks(source, at + 4, at + length):
        text = source.at(text_at, min(size, _LARGEST_TEXT)).split(b"\0")[0].strip()
        key = name.decode("latin-1")
        if text:
            parsed.add(INFO.get(key.upper()) or key.strip().lower(), [_text(text)])


def _loose_chunks(source: Source, at: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield the chunks of a list, even if padding bytes are missing or superfluous."""
    while at + 8 <= end:
        name, size = _LITTLE.unpack(source.at(at, 8).ljust(8, b"\0"))
        if name[0] == 0:
            at += 1
            continue
        size = min(size, end - at - 8)
        yield name, at + 8, size
        at += 8 + size
        if size & 1 and source.at(at, 1) == b"\0":
            at += 1


def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return decode_undeclared(raw)


def _id3(source: Source, at: int, length: int, parsed: Parsed) -> None:
    claimed = id3_length(source.at(at, 10))
    if claimed and not parsed.names:
        parsed.fill_from(read_id3(source, at, min(claimed, length)))


def _xmp(source: Source, at: int, length: int, parsed: Parsed) -> None:
    """Read the texts of an XMP packet that have an equivalent in other tags."""
    for tag, content, attribute, value in _XMP_TEXT.findall(source.at(at, min(length, _LARGEST_XMP))):
        found = re.findall(rb">([^<>]+)</rdf:li>", content) if tag else [value]
        texts = [_text(each.strip()) for each in found or [content] if each.strip() and b"<" not in each]
        if texts:
            parsed.names.setdefault(_XMP[tag or attribute], texts)


def read_aiff(source: Source) -> Parsed:
    """Read an AIFF or AIFC file; raises NeedsMutagenError if it does not describe its audio."""
    parsed, texts = Parsed(), Parsed()
    common, size = b"", 0
    for name, at, length in chunks(source, source.start + 12, _BIG, source.size):
        if name == b"COMM":
            common = source.at(at, min(length, 64))
        elif name == b"SSND":
            size = length - 8
        elif name == b"ID3 ":
            _id3(source, at, length, parsed)
        elif (field := AIFF_TEXTS.get(name.decode("latin-1"))) is not None:
            texts.add(field, [_text(source.at(at, min(length, _LARGEST_TEXT)).strip(b"\0 "))])
    if len(common) < 18:  # noqa: PLR2004
        raise NeedsMutagenError
    parsed.stream = _aiff_stream(common, size)
    parsed.fill_from(texts)
    return parsed


def _aiff_stream(common: bytes, size: int) -> dict[str, Any]:
    channels, frames, bits = struct.unpack_from(">HIH", common)
    rate = _extended(common[8:18])
    kind = common[18:22] or b"NONE"
    codec = "pcm" if kind in _AIFC_PCM else _AIFC.get(kind) or kind.decode("latin-1").strip().lower()
    is_pcm = codec == "pcm"
    duration = frames / rate if rate else None
    return {
        "container": "aiff", "codec": codec, "profile": _AIFC_PCM.get(kind) or None, "lossless": is_pcm,
        "channels": channels, "sample_rate": round(rate), "bits_per_sample": bits, "duration": duration,
        "bitrate": round(channels * bits * rate) if is_pcm else round(size * 8 / duration) if duration else None,
        "bitrate_mode": "cbr" if is_pcm else None,
    }  # fmt: skip


def _extended(raw: bytes) -> float:
    """Return an 80-bit floating-point number, as AIFF writes its sample rate; 0 if it is not plausible."""
    exponent, mantissa = struct.unpack(">HQ", raw)
    exponent -= 16383 + 63
    return float(mantissa * 2.0**exponent) if -100 < exponent < 0 else 0.0  # noqa: PLR2004
