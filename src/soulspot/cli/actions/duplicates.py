"""`soulspot duplicates`: lists duplicate files with what the user needs to choose between them. Only reads."""

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
from soulspot.infrastructure.persistence.identity import normalize_name
from soulspot.infrastructure.persistence.queries.duplicates import By, Copy, duplicates

_MEGABYTE = 1_000_000


@dataclass(frozen=True, slots=True)
class Question:
    """The question of the command line.

    Attributes:
        by: recording, sound or both.
        words: one of the copies must have all of them in title, artist and album.
        below: one of the copies must be this file, or lie in this folder.

    """

    by: str
    words: Sequence[str] = ()
    below: str | None = None


@dataclass(slots=True)
class Totals:
    groups: int = 0
    files: int = 0
    spare: int = 0


def print_duplicates(question: Question, config: Path | None, *, limit: int | None, as_json: bool) -> None:
    asyncio.run(_print_duplicates(question, config, limit=limit, as_json=as_json))


async def _print_duplicates(question: Question, config: Path | None, *, limit: int | None, as_json: bool) -> None:
    total = Totals()
    async with open_catalogue(config) as (database, _url), aclosing(_groups(database, question)) as groups:
        async for by, group in groups:
            if total.groups == limit:
                break
            total.groups += 1
            total.files += len(group)
            total.spare += _spare(group)
            if as_json:
                print_json(_as_json(by, group))
            else:
                _print_group(by, group)
    if not as_json:
        print(f"{total.groups} groups, {total.files} files; keeping the largest of each frees {_size(total.spare)}")


async def _groups(database: Database, question: Question) -> AsyncGenerator[tuple[By, list[Copy]], None]:
    kinds: tuple[By, ...] = ("recording", "sound")
    words = [normalize_name(word) for word in question.words]
    below = path_to_text(str(Path(question.below).absolute())).rstrip("/") if question.below is not None else None
    for by in kinds:
        if question.by not in {by, "both"}:
            continue
        async with aclosing(duplicates(database, by)) as groups:
            async for group in groups:
                is_known = question.by == "both" and by == "sound" and _is_one_recording(group)
                if not is_known and _matches(group, words, below):
                    yield by, group


def _is_one_recording(group: Sequence[Copy]) -> bool:
    """Whether the group by recording already covers a group by sound."""
    ids = {copy.musicbrainz_recording_id for copy in group}
    return len(ids) == 1 and None not in ids


def _matches(group: Sequence[Copy], words: Sequence[str], below: str | None) -> bool:
    if below is not None and not any(f"{copy.full_path}/".startswith(f"{below}/") for copy in group):
        return False
    return any(all(word in copy.search_text for word in words) for copy in group)


def _spare(group: Sequence[Copy]) -> int:
    """Return the bytes of all files but the largest; names of one file (hard links) count once."""
    sizes = {(copy.node, copy.inode, copy.size): copy.size for copy in group}.values()
    return sum(sizes) - max(sizes)


def _as_json(by: By, group: Sequence[Copy]) -> dict[str, Any]:
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
