"""Reads one file: opens it safely, has its parts parsed, and names whatever goes wrong.

What a file is, its content says first, so that an extension may lie. The usual formats have a quick reader each; what
one of them doubts, and every rare format, mutagen opens. The tags that tools put around any stream are read beside it,
so that a file whose stream is cut, missing or unknown still has its tags. Where a file has two tags, the format's own
one counts, then ID3v2, APEv2, ID3v1, each for what the others lack; of two of one kind the first counts.
"""

import io
import os
from collections.abc import Callable
from typing import BinaryIO, Final

from soulspot.infrastructure.filesystem import NotRegularFileError, Signature, open_regular
from soulspot.infrastructure.tags.fields import tags_from
from soulspot.infrastructure.tags.formats.ape import read_ape
from soulspot.infrastructure.tags.formats.containers import claims_more, container_of
from soulspot.infrastructure.tags.formats.fingerprint import fingerprint_of
from soulspot.infrastructure.tags.formats.flac import read_flac
from soulspot.infrastructure.tags.formats.id3 import read_id3, read_id3v1
from soulspot.infrastructure.tags.formats.mp4 import read_mp4
from soulspot.infrastructure.tags.formats.mpeg import read_mpeg
from soulspot.infrastructure.tags.formats.ogg import read_ogg
from soulspot.infrastructure.tags.formats.parsed import Parsed
from soulspot.infrastructure.tags.formats.riff import read_aiff, read_wav
from soulspot.infrastructure.tags.formats.source import OpenFile, Source
from soulspot.infrastructure.tags.formats.stream import sane
from soulspot.infrastructure.tags.formats.with_mutagen import read_by_mutagen
from soulspot.infrastructure.tags.model import Failure, Reading, TrackTags
from soulspot.infrastructure.tags.names import Kind, kind_of_name

QUICK: Final[dict[str | None, Callable[[Source], Parsed]]] = {
    "mp3": read_mpeg, "flac": read_flac, "ogg": read_ogg, "mp4": read_mp4, "wav": read_wav, "aiff": read_aiff,
}  # fmt: skip
_OWN_TAG_IS_APE = frozenset(("ape", "musepack", "wavpack", "tak", "optimfrog"))
_HAVE_NOTHING_BEHIND = frozenset(("ogg", "mp4", "wav", "aiff", "asf", "dsf", "dsdiff", "midi"))


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
    opened = OpenFile(descriptor)
    with io.BufferedReader(opened) as file:
        try:
            before = Signature.of(os.fstat(descriptor))
            reading = _read(file, opened, path, before)
            if Signature.of(os.fstat(descriptor)) != before:
                return Reading(failure=Failure("changed", "it was written while it was read"))
        except OSError as error:
            opened.fault = error
        if opened.fault is not None:  # a bad sector, a server that is away: nothing is known of what the file holds
            return Reading(failure=Failure("unreadable", f"it cannot be read: {opened.fault.strerror}"))
    return reading


def _read(file: BinaryIO, opened: OpenFile, path: str, signature: Signature) -> Reading:
    name = os.path.basename(path)
    kind = kind_of_name(name)
    if signature.size == 0:
        failure = Failure("empty", "it has no content") if kind is Kind.AUDIO else None
        return Reading(signature, failure=failure)
    source = Source(opened, signature.size)
    # One broad catch around the parsers of foreign bytes: mutagen lets through a dozen kinds of error (facts/tags.md).
    try:
        tags = _parse(source, file, name)
    except (Exception, MemoryError, RecursionError) as error:  # noqa: BLE001
        return Reading(signature, failure=_named(error, source))
    if tags is not None:
        return Reading(signature, tags=tags)
    failure = Failure("unsupported", "no known audio format was found in it") if kind is Kind.AUDIO else None
    return Reading(signature, failure=failure)


def _parse(source: Source, file: BinaryIO, name: str) -> TrackTags | None:
    container = container_of(source, name)
    is_audio = container is not None or kind_of_name(name) is Kind.AUDIO
    parsed, error = _inside(container, source, file) if is_audio else (None, None)
    around = _around(container, source)
    if parsed is None:
        if not around.names:
            if error is not None:
                raise error
            return None
        parsed = Parsed(notes=["no-audio"])
    parsed.fill_from(around)
    stream = sane(parsed.stream, source.size) if parsed.stream else {}
    stream["pictures"] = tuple(parsed.pictures)
    return tags_from(parsed.names, stream, parsed.notes, parsed.fingerprint or _fingerprint(source))


def _inside(container: str | None, source: Source, file: BinaryIO) -> tuple[Parsed | None, Exception | None]:
    """Read the stream and the format's own tag; return the error where neither way can."""
    if (quick := QUICK.get(container)) is not None:
        try:
            return quick(source), None
        except Exception:  # noqa: BLE001, S110 - a doubt, or foreign bytes: mutagen's turn
            pass
    first_error: Exception | None = None
    for each in dict.fromkeys((container, None)):
        try:
            if (parsed := read_by_mutagen(each, file, source.start, source.size)) is not None:
                return parsed, None
        except Exception as error:  # noqa: BLE001 - it has a name, when the second way fails too
            first_error = first_error or error
    return None, first_error


def _around(container: str | None, source: Source) -> Parsed:
    """Read the tags before and behind the stream, by what each of them is worth."""
    parts = [read_id3(source, at, length) for at, length in source.leading]
    if container not in _HAVE_NOTHING_BEHIND:
        behind = {kind: (at, length) for kind, at, length in reversed(source.trailing)}
        if (place := behind.get("id3v2")) is not None:
            parts.append(read_id3(source, *place))
        if (place := behind.get("ape")) is not None:
            parts.insert(0 if container in _OWN_TAG_IS_APE else len(parts), read_ape(source, *place))
        if (place := behind.get("id3v1")) is not None:
            parts.append(read_id3v1(source.at(*place)))
    whole = parts[0] if parts else Parsed()
    for part in parts[1:]:
        whole.fill_from(part)
    return whole


def _fingerprint(source: Source) -> str | None:
    try:
        return fingerprint_of(source)
    except Exception:  # noqa: BLE001 - a broken container has tags all the same
        return None


def _named(error: BaseException, source: Source) -> Failure:
    if isinstance(error, MemoryError):
        return Failure("too-large", "its tags need more memory than a reader may use")
    text = str(error).strip() or f"the parser gave up ({type(error).__name__})"
    text = text[:1000].encode("utf-8", "replace").decode().replace("\0", " ")
    is_cut = isinstance(error, EOFError) or "truncated" in text or "bytes, read" in text or claims_more(source)
    return Failure("truncated" if is_cut else "corrupt", text)
