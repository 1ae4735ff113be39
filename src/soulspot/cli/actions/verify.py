"""`soulspot explain` and `soulspot verify`: compare the catalogue with the disk and change neither."""

import asyncio
import os
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

import typer

from soulspot.bootstrap import root_of, this_machine
from soulspot.cli.actions.open_catalogue import configure, open_catalogue
from soulspot.cli.output.text import local_time, print_json, printable
from soulspot.infrastructure.filesystem import (
    file_system_of,
    has_writer,
    ignore_lease_signals,
    path_to_text,
    text_to_path,
)
from soulspot.infrastructure.persistence.database import Database
from soulspot.infrastructure.persistence.models import MOUNT_STATES, File
from soulspot.infrastructure.persistence.repositories import FileRepository, FolderRepository, TrackRepository
from soulspot.infrastructure.tags import Kind, kind_of_name
from soulspot.infrastructure.tags.readers.pool import TagReaders
from soulspot.ingest.disk.planner import compare
from soulspot.ingest.disk.walker import FoundFile, FoundFolder, Root, check, walk, why_left_alone
from soulspot.ingest.missing.folder_health import fault_of


@dataclass(frozen=True, slots=True)
class Explanation:
    """The state of a path.

    Attributes:
        state: catalogued, changed, failed, missing, left-alone, being-written, waiting, not-audio, not-regular, folder,
            absent, offline or outside.
        reason: a sentence for the user.
        track: the id of its track, if any.

    """

    path: str
    state: str
    reason: str
    track: str | None = None


@dataclass(frozen=True, slots=True)
class Difference:
    """One path on which catalogue and disk differ."""

    kind: str  # not-catalogued, changed, not-there, unreadable, offline
    path: str


def explain(path: Path, config: Path | None, *, as_json: bool) -> None:
    explanation = asyncio.run(_explain(os.path.abspath(path), config))
    if as_json:
        print_json(asdict(explanation))
    else:
        print(f"{printable(explanation.path)}: {printable(explanation.reason)}")


def verify(config: Path | None, *, as_json: bool) -> None:
    differences = asyncio.run(_verify(config))
    for each in differences:
        if as_json:
            print_json(asdict(each))
        else:
            print(f"{each.kind}\t{printable(each.path)}")
    if not as_json:
        counts = Counter(each.kind for each in differences)
        listed = ", ".join(f"{count} {kind}" for kind, count in counts.items())
        print(f"differences: {listed}" if differences else "the catalogue matches the folders")
    if differences:
        raise typer.Exit(1)


async def _explain(full: str, config: Path | None) -> Explanation:
    shown = path_to_text(full)
    settings = configure(config)
    async with open_catalogue(settings) as database:
        _node, folders = this_machine(await FolderRepository(database.session).all(), settings, database)
        mounts = [row for row in folders if row.status == "unmounted"]
        for row in folders:
            root = root_of(row.id, text_to_path(row.path), settings)
            relative = root.relative(full)
            if relative is None or row.status in MOUNT_STATES:
                continue
            if row.status == "offline":
                return Explanation(shown, "offline", f"the folder {row.path} is offline: {row.status_reason}")
            for mount in mounts:
                if f"{shown}/".startswith(f"{mount.path}/"):
                    return Explanation(shown, "offline", f"{mount.path} is offline: {mount.status_reason}")
            files = FileRepository(database.session)
            known = (await files.known_at(row.id, [relative])).get(relative)
            file = await files.get(known.id) if known is not None else None
            return await asyncio.to_thread(_explain_file, root, relative, shown, file, await _track_of(database, file))
    watched = ", ".join(row.path for row in folders if row.status not in MOUNT_STATES) or "none yet"
    return Explanation(shown, "outside", f"not in a watched folder ({watched})")


def _explain_file(root: Root, path: str, shown: str, file: File | None, track: str) -> Explanation:  # noqa: PLR0911 - a table
    """Explain a path from the disk and its entry in the catalogue."""
    track_id = file.track_id if file is not None else None
    try:
        found = check(root, path)
    except OSError as error:
        return Explanation(shown, "failed", f"cannot be checked: {error.strerror}", track_id)
    if isinstance(found, FoundFolder):
        return Explanation(shown, "folder", "this is a folder: name a file in it, or use `soulspot verify`")
    if found is None:
        return _explain_absent(root, path, shown, file)
    if file is not None and file.missing_since is None:
        if (file.size, file.mtime_ns) != (found.signature.size, found.signature.mtime_ns):
            return _explain_waiting(found, shown, "changed", "changed since it was read")
        if file.status == "failed":
            return Explanation(shown, "failed", f"failed ({file.error_code}): {file.error_text}", track_id)
        return Explanation(shown, "catalogued", f"catalogued as {track}", track_id)
    return _explain_waiting(found, shown, "waiting", "not in the catalogue yet")


def _explain_absent(root: Root, path: str, shown: str, file: File | None) -> Explanation:
    full = root.full(path)
    track_id = file.track_id if file is not None else None
    if not os.path.lexists(full):
        if file is None:
            return Explanation(shown, "absent", "neither on disk nor in the catalogue")
        if file.missing_since is None:
            return Explanation(shown, "missing", "gone from disk; will count as missing soon", track_id)
        return Explanation(shown, "missing", f"missing since {local_time(file.missing_since)}", track_id)
    if (reason := why_left_alone(root, path)) is not None:
        return Explanation(shown, "left-alone", f"skipped: {reason}", track_id)
    if not os.path.isfile(full):
        return Explanation(shown, "not-regular", "not a regular file")
    return Explanation(shown, "not-audio", "not audio, by its name")


def _explain_waiting(found: FoundFile, shown: str, state: str, reason: str) -> Explanation:
    try:
        writer = has_writer(found.full_path)
    except OSError as error:
        return Explanation(shown, "failed", f"cannot be opened: {error.strerror}")
    if writer:
        return Explanation(shown, "being-written", "still being written; soulspot reads it when it is complete")
    if state == "waiting" and kind_of_name(os.path.basename(found.path)) is Kind.UNKNOWN:
        return Explanation(
            shown, "waiting", "its name does not look like audio, and its content is not audio or not read yet"
        )
    return Explanation(shown, state, f"{reason}: `soulspot scan` or a running `soulspot watch` reads it")


async def _track_of(database: Database, file: File | None) -> str:
    if file is None or file.track_id is None:
        return "a file without a track"
    track = await TrackRepository(database.session).get_by_id(file.track_id)
    assert track is not None
    return f"{track.artist_credit} – {track.title} (track {track.id})"


async def _verify(config: Path | None) -> list[Difference]:
    ignore_lease_signals()
    settings, differences = configure(config), list[Difference]()
    async with open_catalogue(settings) as database, TagReaders(1) as readers:
        files = FileRepository(database.session)
        _node, folders = this_machine(await FolderRepository(database.session).all(), settings, database)
        for row in folders:
            if row.status in MOUNT_STATES:
                continue
            path = text_to_path(row.path)
            kind = await asyncio.to_thread(file_system_of, path)
            root = root_of(row.id, path, settings, trusts_inodes=not kind.is_remote)
            if fault_of(root, row.file_system_id, await files.some_present(row.id)) is not None:
                differences.append(Difference("offline", row.path))
                continue
            differences += await _compare_folder(root, files, readers)
    return differences


async def _compare_folder(root: Root, files: FileRepository, readers: TagReaders) -> list[Difference]:
    found, after = list[tuple[str, str]](), ""
    for batch in walk(root):
        comparison = compare(batch.files, await files.known_between(root.id, "", after, batch.upto))
        for work in comparison.work:
            is_new = work.known is None or work.known.is_missing
            if not await _is_rightly_absent(work.file, readers):
                found.append(("not-catalogued" if is_new else "changed", work.file.path))
        found += [("not-there", each.path) for each in comparison.gone if not batch.hides(each.path)]
        if batch.upto is None:
            found += [("unreadable", path) for path in batch.unreadable]
        after = batch.upto or ""
    return [Difference(kind, root.catalogue_path(path)) for kind, path in sorted(found)]


async def _is_rightly_absent(file: FoundFile, readers: TagReaders) -> bool:
    """Whether a file is rightly not in the catalogue: still being written, or not audio."""
    try:
        if has_writer(file.full_path):
            return True
    except OSError:
        return False
    if kind_of_name(os.path.basename(file.path)) is Kind.AUDIO:
        return False
    reading = await readers.read(file.full_path)
    return reading.tags is None and reading.failure is None
