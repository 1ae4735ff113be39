"""`soulspot duplicates`: which files hold the same, with what a person needs to choose among them. It only reads."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from soulspot.cli.actions.open_catalogue import open_catalogue
from soulspot.cli.output.text import duration, print_json, print_table, printable
from soulspot.infrastructure.filesystem import path_to_text
from soulspot.infrastructure.persistence.database import Database
from soulspot.infrastructure.persistence.identity import fold
from soulspot.infrastructure.persistence.queries.duplicates import By, Copy, duplicates

_MEGABYTE = 1_000_000


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked for.

    Attributes:
        by: recording, sound or both.
        words: all of them have to occur in title, artist and album of one of the copies.
        below: a file or folder; one of the copies has to be it, or lie in it.

    """

    by: str
    words: Sequence[str] = ()
    below: str | None = None


@dataclass(slots=True)
class Sum:
    groups: int = 0
    files: int = 0
    spare: int = 0


def print_duplicates(question: Question, config: Path | None, *, limit: int | None, as_json: bool) -> None:
    asyncio.run(_print_duplicates(question, config, limit=limit, as_json=as_json))


async def _print_duplicates(question: Question, config: Path | None, *, limit: int | None, as_json: bool) -> None:
    total = Sum()
    async with open_catalogue(config) as (database, _url), aclosing(_groups(database, question)) as groups:
        async for by, group in groups:
            if total.groups == limit:
                break
            total.groups += 1
            total.files += len(group)
            total.spare += _spare(group)
            if as_json:
                print_json(_described(by, group))
            else:
                _print_group(by, group)
    if not as_json:
        print(f"{total.groups} groups of {total.files} files; {_size(total.spare)} beyond the largest file of each")


async def _groups(database: Database, question: Question) -> AsyncGenerator[tuple[By, list[Copy]], None]:
    kinds: tuple[By, ...] = ("recording", "sound")
    words = [fold(word) for word in question.words]
    below = path_to_text(str(Path(question.below).absolute())).rstrip("/") if question.below is not None else None
    for by in kinds:
        if question.by not in {by, "both"}:
            continue
        async with aclosing(duplicates(database, by)) as groups:
            async for group in groups:
                is_known = question.by == "both" and by == "sound" and _is_one_recording(group)
                if not is_known and _is_meant(group, words, below):
                    yield by, group


def _is_one_recording(group: Sequence[Copy]) -> bool:
    """Whether a group of one sound is among those of one recording already."""
    ids = {copy.musicbrainz_recording_id for copy in group}
    return len(ids) == 1 and None not in ids


def _is_meant(group: Sequence[Copy], words: Sequence[str], below: str | None) -> bool:
    if below is not None and not any(f"{copy.full_path}/".startswith(f"{below}/") for copy in group):
        return False
    return any(all(word in copy.search_text for word in words) for copy in group)


def _spare(group: Sequence[Copy]) -> int:
    """Return the bytes of all files but the largest; names of one file (hard links) count once."""
    sizes = {(copy.node, copy.inode, copy.size): copy.size for copy in group}.values()
    return sum(sizes) - max(sizes)


def _described(by: By, group: Sequence[Copy]) -> dict[str, Any]:
    names = (
        "track_id",
        "title",
        "artist",
        "album",
        "node",
        "size",
        "inode",
        "mtime_ns",
        "container",
        "codec",
        "lossless",
    )
    more = ("bitrate", "sample_rate", "bits_per_sample", "channels", "duration_ms", "has_cover", "fingerprint")
    files = [
        {"path": copy.full_path}
        | {name: getattr(copy, name) for name in (*names, *more, "musicbrainz_recording_id", "added_at")}
        for copy in group
    ]
    return {"by": by, "id": group[0].key, "spare": _spare(group), "files": files}


def _print_group(by: By, group: Sequence[Copy]) -> None:
    first = group[0]
    print(printable(f"{first.artist} – {first.title}: the same {by} ({first.key})"))
    sounds = {
        sound: chr(ord("A") + number % 26) for number, sound in enumerate(dict.fromkeys(c.fingerprint for c in group))
    }
    seen: set[tuple[str, int, int]] = set()
    rows = []
    for copy in group:
        file = (copy.node, copy.inode, copy.size)
        again = " (hard link)" if file in seen else ""
        seen.add(file)
        machine = f"{copy.node}:" if len({each.node for each in group}) > 1 else ""
        rows.append((*_sound(copy), sounds[copy.fingerprint], f"{machine}{copy.full_path}{again}"))
    print_table(("codec", "kbit/s", "kHz", "bit", "length", "size", "sound", "file"), rows)
    print()


def _sound(copy: Copy) -> tuple[object, ...]:
    kilobits = copy.bitrate and round(copy.bitrate / 1000)
    kilohertz = copy.sample_rate and f"{copy.sample_rate / 1000:g}"
    return copy.codec, kilobits, kilohertz, copy.bits_per_sample, duration(copy.duration_ms), _size(copy.size)


def _size(count: int) -> str:
    return f"{count / _MEGABYTE:.1f} MB" if count >= _MEGABYTE else f"{count} bytes"
