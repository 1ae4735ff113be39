"""Fingerprints the audio of a file, tags excluded: a retag keeps the fingerprint.

FLAC contains the MD5 of its decoded audio. Of every other format, soulspot hashes the length of the payload and three
samples of it: reading whole files would cost more than the rest of an import. The container decides where the payload
lies.
"""

import struct
from hashlib import blake2b
from itertools import islice

from soulspot.infrastructure.tags.formats.flac import flac_blocks, flac_md5
from soulspot.infrastructure.tags.formats.mp4 import atoms
from soulspot.infrastructure.tags.formats.ogg import OggEnd, OggStream, audio_stream, ogg_fingerprint
from soulspot.infrastructure.tags.formats.source import Source, chunks

SAMPLE = 8192
"""Bytes hashed at the start, in the middle and at the end of the payload."""

Spans = list[tuple[int, int]]
"""Offsets and lengths of the payload, in order."""

_LITTLE, _BIG, _BIG_LONG = struct.Struct("<4sI"), struct.Struct(">4sI"), struct.Struct(">4sQ")
_ASF_DATA = bytes.fromhex("3626b2758e66cf11a6d900aa0062ce6c")
_DSF_HEADER = 28
_MAX_ATOMS = 4096


def fingerprint_of(source: Source) -> str | None:
    """Return a fingerprint, prefixed with the name of its scheme; None if the file has no audio."""
    start = source.at(source.start, 64)
    if start.startswith(b"fLaC"):
        return flac_md5(start[8:42]) or _of_spans(source, _flac_frames(source))
    if start.startswith(b"OggS"):
        return _of_ogg(source)
    return _of_spans(source, _payload(source, start))


def _payload(source: Source, start: bytes) -> Spans:
    at = source.start
    if start[8:12] in {b"WAVE", b"AIFF", b"AIFC"}:
        name = b"data" if start[8:12] == b"WAVE" else b"SSND"
        return _chunk(source, name, _LITTLE if start[:4] in {b"RIFF", b"RF64"} else _BIG, at + 12)
    if start.startswith(b"FRM8"):
        return _chunk(source, b"DSD ", _BIG_LONG, at + 16) or _chunk(source, b"DST ", _BIG_LONG, at + 16)
    if start.startswith(b"DSD ") and len(start) >= _DSF_HEADER + 12:
        return _dsf_data(source, at + _DSF_HEADER + int.from_bytes(start[32:40], "little"))
    if start[4:8] == b"ftyp":
        return _mdat(source)
    if start.startswith(b"\x30\x26\xb2\x75\x8e\x66\xcf\x11"):
        return _asf_data(source)
    return [(at, source.end - at)]


def _of_spans(source: Source, spans: Spans) -> str | None:
    total = sum(length for _at, length in spans)
    if total <= 0:
        return None
    digest = blake2b(total.to_bytes(8, "little"), digest_size=16)
    for offset in sorted({0, max(0, (total - SAMPLE) // 2), max(0, total - SAMPLE)}):
        digest.update(_sample(source, spans, offset))
    return f"b2:{digest.hexdigest()}"


def _sample(source: Source, spans: Spans, offset: int) -> bytes:
    """Return the sample at an offset into the payload, as if its spans were one."""
    sample = b""
    for at, length in spans:
        if offset < length and len(sample) < SAMPLE:
            sample += source.at(at + offset, min(length - offset, SAMPLE - len(sample)))
            offset = 0
        else:
            offset -= min(offset, length)
    return sample


def _chunk(source: Source, name: bytes, layout: struct.Struct, first: int) -> Spans:
    found = chunks(source, first, layout, source.size)
    return next(([(at, length)] for each, at, length in found if each == name), [])


def _dsf_data(source: Source, offset: int) -> Spans:
    length = int.from_bytes(source.at(offset + 4, 8), "little")
    return [(offset + 12, max(0, min(length, source.size - offset) - 12))]


def _mdat(source: Source) -> Spans:
    top = islice(atoms(source, source.start, source.size), _MAX_ATOMS)
    return [(at, max(0, end - at)) for name, at, end in top if name == b"mdat"]


def _asf_data(source: Source) -> Spans:
    offset = source.start
    for _object in range(_MAX_ATOMS):
        head = source.at(offset, 24)
        if len(head) < 24:  # noqa: PLR2004
            break
        length = int.from_bytes(head[16:], "little")
        if head.startswith(_ASF_DATA):
            return [(offset + 50, max(0, min(length, source.size - offset) - 50))]
        if length < 24:  # noqa: PLR2004
            break
        offset += length
    return []


def _flac_frames(source: Source) -> Spans:
    offset = source.start + 4
    for _kind, at, length, _is_last in flac_blocks(source):
        offset = at + length
    return [(offset, source.end - offset)]


def _of_ogg(source: Source) -> str | None:
    at, first = audio_stream(source)
    stream = OggStream(source, at)
    stream.skip()
    stream.skip()
    return ogg_fingerprint(stream, first, OggEnd(source, stream.serial))
