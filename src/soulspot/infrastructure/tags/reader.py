"""Reads one file: opens it safely, parses its parts, and turns every error into a failure.

The content decides the format; the extension counts only if the content is ambiguous. Common formats have their own
parser; mutagen reads the rest, and every file that a native parser gives up on. The tags that can surround any stream
(ID3, APEv2) are read separately, so a file with a damaged, missing or unknown stream keeps its tags. If a file has
several tags, the format's own comes first, then ID3v2, APEv2 and ID3v1; each fills in what the ones before lack. Of two
tags of one kind, the first counts.
"""

import io
import os
from collections.abc import Callable
from contextlib import suppress
from typing import BinaryIO, Final

from soulspot.infrastructure.filesystem import NotRegularFileError, Signature, open_regular
from soulspot.infrastructure.tags.fields import tags_from
from soulspot.infrastructure.tags.formats.ape import read_ape
from soulspot.infrastructure.tags.formats.containers import container_of, is_cut_off
from soulspot.infrastructure.tags.formats.fingerprint import fingerprint_of
from soulspot.infrastructure.tags.formats.flac import read_flac
from soulspot.infrastructure.tags.formats.id3 import read_id3, read_id3v1
from soulspot.infrastructure.tags.formats.mp4 import read_mp4
from soulspot.infrastructure.tags.formats.mpeg import read_mpeg
from soulspot.infrastructure.tags.formats.ogg import read_ogg
from soulspot.infrastructure.tags.formats.parsed import Parsed
from soulspot.infrastructure.tags.formats.riff import read_aiff, read_wav
from soulspot.infrastructure.tags.formats.source import OpenFile, Source
from soulspot.infrastructure.tags.formats.stream import plausible
from soulspot.infrastructure.tags.formats.with_mutagen import read_with_mutagen
from soulspot.infrastructure.tags.model import Failure, Reading, TrackTags
from soulspot.infrastructure.tags.names import Kind, kind_of_name

NATIVE_PARSERS: Final[dict[str | None, Callable[[Source], Parsed]]] = {
    "mp3": read_mpeg, "flac": read_flac, "ogg": read_ogg, "mp4": read_mp4, "wav": read_wav, "aiff": read_aiff,
}  # fmt: skip
_NATIVE_APE = frozenset(("ape", "musepack", "wavpack", "tak", "optimfrog"))
_WITHOUT_TRAILING_TAGS = frozenset(("ogg", "mp4", "wav", "aiff", "asf", "dsf", "dsdiff", "midi"))


def read_file(path: str) -> Reading:
    """Read the tags of a file. Blocks until it is parsed. Never raises, whatever the file contains."""
    try:
        descriptor = open_regular(path)
    except (FileNotFoundError, NotADirectoryError):
        return Reading(failure=Failure("vanished", "the file disappeared before soulspot could open it"))
    except NotRegularFileError as error:
        return Reading(failure=Failure("not-regular", str(error.strerror)))
    except OSError as error:
        return Reading(failure=Failure("unreadable", f"the file cannot be opened: {error.strerror}"))
    opened = OpenFile(descriptor)
    with io.BufferedReader(opened) as file:
        try:
            before = Signature.of(os.fstat(descriptor))
            reading = _read(file, opened, path, before)
            if Signature.of(os.fstat(descriptor)) != before:
                return Reading(failure=Failure("changed", "the file changed while soulspot was reading it"))
        except OSError as error:
            opened.fault = error
        if opened.fault is not None:  # a bad sector or a lost server says nothing about the file's content
            return Reading(failure=Failure("unreadable", f"the file cannot be read: {opened.fault.strerror}"))
    return reading


def _read(file: BinaryIO, opened: OpenFile, path: str, signature: Signature) -> Reading:
    name = os.path.basename(path)
    kind = kind_of_name(name)
    if signature.size == 0:
        failure = Failure("empty", "the file is empty") if kind is Kind.AUDIO else None
        return Reading(signature, failure=failure)
    source = Source(opened, signature.size)
    try:
        tags = _parse(source, file, name)
    except Exception as error:  # noqa: BLE001 - mutagen raises a dozen kinds of error on damaged files
        return Reading(signature, failure=_failure_from(error, source))
    if tags is not None:
        return Reading(signature, tags=tags)
    failure = Failure("unsupported", "the file has no known audio format") if kind is Kind.AUDIO else None
    return Reading(signature, failure=failure)


def _parse(source: Source, file: BinaryIO, name: str) -> TrackTags | None:
    container = container_of(source, name)
    is_audio = container is not None or kind_of_name(name) is Kind.AUDIO
    parsed, error = _parse_stream(container, source, file) if is_audio else (None, None)
    surrounding = _parse_surrounding_tags(container, source)
    if parsed is None:
        if not any(tag.names for tag in surrounding):
            if error is not None:
                raise error
            return None
        parsed = Parsed(notes=["no-audio"])
    for tag in surrounding:
        parsed.fill_from(tag)
    stream = plausible(parsed.stream, source.size) if parsed.stream else {}
    stream["pictures"] = tuple(parsed.pictures)
    if parsed.fingerprint is None:
        with suppress(Exception):  # a file with a damaged container still has tags
            parsed.fingerprint = fingerprint_of(source)
    return tags_from(parsed.names, stream, parsed.notes, parsed.fingerprint)


def _parse_stream(container: str | None, source: Source, file: BinaryIO) -> tuple[Parsed | None, Exception | None]:
    """Read the stream and the format's own tag; return the first error if neither parser can."""
    if (parse := NATIVE_PARSERS.get(container)) is not None:
        with suppress(Exception):  # not plain, or damaged: leave it to mutagen
            return parse(source), None
    first_error: Exception | None = None
    for each in dict.fromkeys((container, None)):
        try:
            if (parsed := read_with_mutagen(each, file, source.start, source.size)) is not None:
                return parsed, None
        except Exception as error:  # noqa: BLE001 - mutagen's own guess may still succeed
            first_error = first_error or error
    return None, first_error


def _parse_surrounding_tags(container: str | None, source: Source) -> list[Parsed]:
    """Read the tags before and behind the stream, in order of precedence."""
    tags = [read_id3(source, at, length) for at, length in source.leading]
    if container not in _WITHOUT_TRAILING_TAGS:
        trailing = {kind: (at, length) for kind, at, length in reversed(source.trailing)}
        if (span := trailing.get("id3v2")) is not None:
            tags.append(read_id3(source, *span))
        if (span := trailing.get("ape")) is not None:
            tags.insert(0 if container in _NATIVE_APE else len(tags), read_ape(source, *span))
        if (span := trailing.get("id3v1")) is not None:
            tags.append(read_id3v1(source.at(*span)))
    return tags


def _failure_from(error: Exception, source: Source) -> Failure:
    if isinstance(error, MemoryError):
        return Failure("too-large", "the tags need more memory than tags.memory_limit")
    text = str(error).strip() or f"the parser failed ({type(error).__name__})"
    text = text[:1000].encode("utf-8", "replace").decode().replace("\0", " ")
    is_truncated = isinstance(error, EOFError) or "truncated" in text or "bytes, read" in text or is_cut_off(source)
    return Failure("truncated" if is_truncated else "corrupt", text)
