"""Reads one file: opens it safely, lets mutagen parse it, and names whatever goes wrong.

mutagen is chosen by content first, so that an extension may lie, and by the extension where content does not tell. Of a
file whose stream cannot be parsed the tag alone is read. Where a file has two tags of one kind, the first counts; ID3v2
beats ID3v1, and a format's own tag beats one that a tool has put around it.
"""

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import mutagen
from mutagen import (
    aac,
    ac3,
    aiff,
    apev2,
    asf,
    dsdiff,
    dsf,
    flac,
    id3,
    monkeysaudio,
    mp3,
    mp4,
    musepack,
    oggflac,
    oggopus,
    oggspeex,
    oggtheora,
    oggvorbis,
    optimfrog,
    smf,
    tak,
    trueaudio,
    wave,
    wavpack,
)

from soulspot.infrastructure.filesystem import NotRegularFileError, Signature, open_regular
from soulspot.infrastructure.tags.fields import tags_from
from soulspot.infrastructure.tags.fingerprint import fingerprint_of
from soulspot.infrastructure.tags.formats import names_of, pictures_of
from soulspot.infrastructure.tags.model import Failure, Reading, TrackTags
from soulspot.infrastructure.tags.names import Kind, kind_of_name
from soulspot.infrastructure.tags.source import Source
from soulspot.infrastructure.tags.stream import stream_of

_HEADER = 256
_OGG = ((b"\x01vorbis", oggvorbis.OggVorbis), (b"OpusHead", oggopus.OggOpus), (b"Speex   ", oggspeex.OggSpeex),
        (b"\x7fFLAC", oggflac.OggFLAC), (b"\x80theora", oggtheora.OggTheora))  # fmt: skip
_MAGIC = ((b"fLaC", flac.FLAC), (b"MAC ", monkeysaudio.MonkeysAudio), (b"MPCK", musepack.Musepack),
          (b"MP+", musepack.Musepack), (b"wvpk", wavpack.WavPack), (b"TTA1", trueaudio.TrueAudio),
          (b"OFR ", optimfrog.OptimFROG), (b"tBaK", tak.TAK), (b"DSD ", dsf.DSF), (b"FRM8", dsdiff.DSDIFF),
          (b"MThd", smf.SMF), (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", asf.ASF), (b"\x0b\x77", ac3.AC3),
          (b"ADIF", aac.AAC))  # fmt: skip
_EXTENSIONS = {
    "mp3": mp3.MP3, "mp2": mp3.MP3, "mp1": mp3.MP3, "mpga": mp3.MP3, "flac": flac.FLAC, "oga": oggvorbis.OggVorbis,
    "ogg": oggvorbis.OggVorbis, "opus": oggopus.OggOpus, "spx": oggspeex.OggSpeex, "ogv": oggtheora.OggTheora,
    "m4a": mp4.MP4, "m4b": mp4.MP4, "m4p": mp4.MP4, "m4r": mp4.MP4, "mp4": mp4.MP4, "wav": wave.WAVE,
    "aif": aiff.AIFF, "aiff": aiff.AIFF, "aifc": aiff.AIFF, "wma": asf.ASF, "asf": asf.ASF,
    "ape": monkeysaudio.MonkeysAudio, "mpc": musepack.Musepack, "mp+": musepack.Musepack, "wv": wavpack.WavPack,
    "tta": trueaudio.TrueAudio, "ofr": optimfrog.OptimFROG, "tak": tak.TAK, "aac": aac.AAC, "ac3": ac3.AC3,
    "eac3": ac3.AC3, "dsf": dsf.DSF, "dff": dsdiff.DSDIFF, "mid": smf.SMF, "midi": smf.SMF,
}  # fmt: skip


def read_file(path: str) -> Reading:
    """Read the tags of a file; blocks, for as long as mutagen takes. Never raises for what a file holds."""
    try:
        descriptor = open_regular(path)
    except (FileNotFoundError, NotADirectoryError):
        return Reading(failure=Failure("vanished", "it was gone before it could be opened"))
    except NotRegularFileError as error:
        return Reading(failure=Failure("not-regular", str(error.strerror)))
    except OSError as error:
        return Reading(failure=Failure("unreadable", f"it cannot be opened: {error.strerror}"))
    with os.fdopen(descriptor, "rb") as file:
        before = Signature.of(os.fstat(descriptor))
        reading = _read(file, path, before)
        if Signature.of(os.fstat(descriptor)) != before:
            return Reading(failure=Failure("changed", "it was written while it was read"))
    return reading


def _read(file: Any, path: str, signature: Signature) -> Reading:  # noqa: ANN401 - mutagen takes any file object
    name = os.path.basename(path)
    kind = kind_of_name(name)
    if signature.size == 0:
        failure = Failure("empty", "it has no content") if kind is Kind.AUDIO else None
        return Reading(signature, failure=failure)
    tags, error = None, None
    # One broad catch around the parser of foreign bytes: it lets through a dozen kinds of error (facts of mutagen).
    try:
        tags = _parse(file, name, signature.size)
    except (Exception, MemoryError, RecursionError) as caught:  # noqa: BLE001
        error = caught
    if tags is None and error is not None:
        tags = _tag_alone(file)
    if tags is not None:
        return Reading(signature, tags=replace(tags, fingerprint=_fingerprint(file, signature.size)))
    if error is None:
        failure = Failure("unsupported", "no known audio format was found in it") if kind is Kind.AUDIO else None
        return Reading(signature, failure=failure)
    return Reading(signature, failure=_named(error))


def _parse(file: Any, name: str, size: int) -> TrackTags | None:  # noqa: ANN401
    header = file.read(_HEADER)
    beyond = _beyond_id3(file, header)
    chosen = _by_content(beyond) or _EXTENSIONS.get(name.rpartition(".")[2].lower())
    opened = None
    first_error: Exception | None = None
    for open_it in filter(None, (chosen, _guess)):
        file.seek(0)
        try:
            opened = open_it(file)
        except Exception as error:  # noqa: BLE001 - the caller names it, when the second way fails too
            first_error = first_error or error
        if opened is not None:
            break
    if opened is None:
        if first_error is not None:
            raise first_error
        return None
    return tags_from(names_of(opened, file), stream_of(opened, size) | {"pictures": pictures_of(opened)})


def _fingerprint(file: Any, size: int) -> str | None:  # noqa: ANN401
    try:
        return fingerprint_of(Source(file.fileno(), size))
    except Exception:  # noqa: BLE001 - a broken container has tags all the same
        return None


def _guess(file: Any) -> Any:  # noqa: ANN401
    return mutagen.File(file)


def _beyond_id3(file: Any, header: bytes) -> bytes:  # noqa: ANN401
    """Return the first bytes behind a leading ID3v2 tag."""
    if not header.startswith(b"ID3") or len(header) < 10:  # noqa: PLR2004
        return header
    size = (header[6] << 21) | (header[7] << 14) | (header[8] << 7) | header[9]
    file.seek(10 + size)
    return bytes(file.read(_HEADER))


def _by_content(start: bytes) -> Callable[[Any], Any] | None:
    if start.startswith(b"OggS"):
        return next((opener for mark, opener in _OGG if mark in start), None)
    if start.startswith(b"RIFF") and start[8:12] == b"WAVE":
        return wave.WAVE
    if start.startswith(b"FORM") and start[8:12] in {b"AIFF", b"AIFC"}:
        return aiff.AIFF
    if start[4:8] == b"ftyp":
        return mp4.MP4
    return next((opener for mark, opener in _MAGIC if start.startswith(mark)), None)


def _tag_alone(file: Any) -> TrackTags | None:  # noqa: ANN401
    """Read the tag of a file whose stream is cut, missing or unknown."""
    for open_tag in (id3.ID3, apev2.APEv2):
        try:
            file.seek(0)
            tag = open_tag(file)
            names = names_of(tag, file)
        except (Exception, MemoryError, RecursionError):  # noqa: BLE001, S112 - there may be none, or it is broken too
            continue
        if names:
            return tags_from(names, {"pictures": pictures_of(tag), "container": None})
    return None


def _named(error: BaseException) -> Failure:
    if isinstance(error, MemoryError):
        return Failure("too-large", "its tags need more memory than a reader may use")
    text = str(error).strip() or f"the parser gave up ({type(error).__name__})"
    if isinstance(error, EOFError) or "truncated" in text or "bytes, read" in text:
        return Failure("truncated", text)
    return Failure("corrupt", text[:1000].encode("utf-8", "replace").decode())
