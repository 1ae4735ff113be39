"""`soulspot duplicates`: lists duplicate files with what the user needs to choose between them. Only reads."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, get_args

from soulspot.cli.actions.open_catalogue import catalogue_path, configure, open_catalogue
from soulspot.cli.output.text import print_json, print_table, printable
from soulspot.config import Settings
from soulspot.infrastructure.persistence.database import Database
from soulspot.infrastructure.persistence.identity import normalize_name
from soulspot.infrastructure.persistence.queries.duplicates import By, Copy, duplicates
from soulspot.reports.formatting import duration

_MEGABYTE = 1_000_000
_FIELDS: Final = (
    ("track_id", "title", "artist", "album", "node", "size", "inode", "mtime_ns", "container", "codec", "lossless")
    + ("bitrate", "sample_rate", "bits_per_sample", "channels", "duration_ms", "has_cover", "fingerprint")
    + ("musicbrainz_recording_id", "added_at")
)
"""What JSON shows of each file."""


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


def print_duplicates(question: Question, config: Path | None, *, limit: int | None, as_json: bool) -> None:
    asyncio.run(_print_duplicates(question, configure(config), limit=limit, as_json=as_json))


async def _print_duplicates(question: Question, settings: Settings, *, limit: int | None, as_json: bool) -> None:
    count = files = spare = 0
    async with open_catalogue(settings) as database, aclosing(_groups(database, question)) as groups:
        async for by, group in groups:
            if count == limit:
                break
            count, files, spare = count + 1, files + len(group), spare + _spare(group)
            if as_json:
                print_json(_as_json(by, group))
            else:
                _print_group(by, group)
    if not as_json:
        print(f"{count} groups, {files} files; keeping the largest of each frees {_size(spare)}")


async def _groups(database: Database, question: Question) -> AsyncGenerator[tuple[By, list[Copy]], None]:
    words = [normalize_name(word) for word in question.words]
    below = catalogue_path(question.below).rstrip("/") if question.below is not None else None
    for by in get_args(By):
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
    files = [{"path": copy.full_path} | {name: getattr(copy, name) for name in _FIELDS} for copy in group]
    return {"by": by, "id": group[0].key, "spare": _spare(group), "files": files}


def _print_group(by: By, group: Sequence[Copy]) -> None:
    first, several_nodes = group[0], len({each.node for each in group}) > 1
    print(printable(f"{first.artist} – {first.title}: the same {by} ({first.key})"))
    letters = {
        sound: chr(ord("A") + number % 26) for number, sound in enumerate(dict.fromkeys(c.fingerprint for c in group))
    }
    seen, rows = set[tuple[str, int, int]](), []
    for copy in group:
        file = (copy.node, copy.inode, copy.size)
        path = f"{copy.node}:{copy.full_path}" if several_nodes else copy.full_path
        rows.append((*_sound(copy), letters[copy.fingerprint], f"{path} (hard link)" if file in seen else path))
        seen.add(file)
    print_table(("codec", "kbit/s", "kHz", "bit", "length", "size", "sound", "file"), rows)
    print()


def _sound(copy: Copy) -> tuple[object, ...]:
    kilobits = copy.bitrate and round(copy.bitrate / 1000)
    kilohertz = copy.sample_rate and f"{copy.sample_rate / 1000:g}"
    return copy.codec, kilobits, kilohertz, copy.bits_per_sample, duration(copy.duration_ms), _size(copy.size)


def _size(count: int) -> str:
    return f"{count / _MEGABYTE:.1f} MB" if count >= _MEGABYTE else f"{count} bytes"
