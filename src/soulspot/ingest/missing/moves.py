"""Detects moved files by inode, or by audio fingerprint if they were also retagged.

To query the catalogue for each new file would cost more than to read the file. So the fingerprints that may turn up
elsewhere are kept in memory: those of missing files, and of files found gone, or changed, since this process started.
A new file may be read before its old path is checked: that path is then found by the inode, which most tag editors
keep, or among the hints that still wait.

`disk/planner.py` has the rule for inodes; `missing_files.py` handles files that were copied elsewhere and then removed.
"""

import asyncio
import os
from collections.abc import Collection, Iterable
from dataclasses import replace

from soulspot.infrastructure.persistence.records import Known
from soulspot.infrastructure.persistence.repositories import FileRepository
from soulspot.infrastructure.tags import Kind, kind_of_name
from soulspot.infrastructure.tags.readers.pool import TagReaders
from soulspot.ingest.database_retry import retry_database
from soulspot.ingest.disk import planner
from soulspot.ingest.disk.hints import Hints
from soulspot.ingest.disk.planner import Work
from soulspot.ingest.disk.walker import FoundFile, FoundFolder, Root, check_all, chunks, is_left_alone
from soulspot.ingest.missing.folder_health import FolderHealth

SAME_FINGERPRINT = 20
"""From this many files of one fingerprint on (silence, a jingle), it does not identify a file."""


class MoveDetector:
    """Matches new files with files that are gone from their paths.

    Args:
        hints: the paths that events named; those that wait are checked here if a new file may have come from one.

    """

    def __init__(self, files: FileRepository, health: FolderHealth, readers: TagReaders, hints: Hints) -> None:
        self._files = files
        self._health = health
        self._readers = readers
        self._hints = hints
        self._gone: set[str] = set()  # fingerprints
        self._is_loaded = False
        self._checking_hints = asyncio.Lock()

    async def match(self, work: Iterable[Work]) -> list[Work]:
        """Set `moved_from` of each file that had another path, by its inode, size and mtime."""
        known = [
            each
            for inodes in chunks(planner.inodes_to_ask(work))
            for each in await retry_database(self._files.with_inodes, inodes)
            if self._health.root_of(each) is not None
        ]
        matched = planner.match_moves(work, known)
        gone = {each.id for each in await self.are_gone(known)} if known else set[str]()
        origins = {each.moved_from.id for each in matched if each.moved_from is not None}
        await self._fingerprints_of(gone - origins)  # same inode but changed: these were retagged
        return [
            each if each.moved_from is None or each.moved_from.id in gone else replace(each, moved_from=None)
            for each in matched
        ]

    async def are_gone(self, origins: Collection[Known]) -> list[Known]:
        """Return the files that are not at their own paths any more, so that a match is a move and not a copy."""
        return [
            origin
            for origin, what in await self._checked(origins)
            if what is None or (isinstance(what, FoundFile) and what.signature.inode != origin.signature.inode)
        ]

    async def _checked(self, origins: Collection[Known]) -> list[tuple[Known, FoundFile | FoundFolder | None]]:
        """Return what exists at the paths of files now, without those that are unavailable."""
        available = [
            (root, each)
            for each in origins
            if (root := self._health.root_of(each)) is not None and not self._health.is_unavailable(root, each.path)
        ]
        found = await asyncio.to_thread(lambda: [check_all(root, [each.path]) for root, each in available])
        return [
            (each, there[each.path])
            for (_root, each), there in zip(available, found, strict=True)
            if each.path in there
        ]

    async def note_gone(self, root: Root, paths: Collection[str]) -> None:
        """Note that the files of these paths are gone: each may turn up elsewhere."""
        for some in chunks(paths):
            self._gone.update(await retry_database(self._files.fingerprints_at, root.id, some))

    async def fingerprints_before(self, work: Collection[Work]) -> dict[str, str]:
        """Return the earlier fingerprints of changed files, by file id; each may turn up elsewhere."""
        return await self._fingerprints_of([each.known.id for each in work if each.known is not None])

    async def _fingerprints_of(self, file_ids: Collection[str]) -> dict[str, str]:
        fingerprints: dict[str, str] = {}
        for some in chunks(file_ids):
            fingerprints |= await retry_database(self._files.fingerprints_of, some)
        self._gone.update(fingerprints.values())
        return fingerprints

    async def match_fingerprint(self, file: FoundFile, fingerprint: str) -> Known | None:
        """Return the file that this one was before it was moved and retagged; None for a new file and for a copy."""
        if not await self._may_have_moved(fingerprint):
            return None
        candidates = await retry_database(self._files.with_fingerprint, fingerprint, SAME_FINGERPRINT)
        if len(candidates) == SAME_FINGERPRINT:
            return None
        name = os.path.basename(file.path)
        for each in sorted(candidates, key=lambda each: (each.is_missing, not each.path.endswith(name), each.path)):
            for _each, what in await self._checked([each]):
                if what is None or (isinstance(what, FoundFile) and await self._is_another(what, each, fingerprint)):
                    return each
        return None

    async def _may_have_moved(self, fingerprint: str) -> bool:
        async with self._checking_hints:
            if not self._is_loaded:
                self._gone.update(await retry_database(self._files.fingerprints_missing))
                self._is_loaded = True
            if fingerprint not in self._gone:
                for root, paths in self._hints.take_new().items():
                    await self._check_hinted(root, paths)
        return fingerprint in self._gone

    async def _check_hinted(self, root: Root, paths: Collection[str]) -> None:
        """Note which of these paths are gone, before they are checked in their turn."""
        named = [path for path in paths if is_left_alone(os.path.basename(path), hidden=root.hidden) is None]
        if not named:
            return
        gone = await asyncio.to_thread(lambda: [path for path in named if not os.path.lexists(root.full(path))])
        for path in [path for path in gone if kind_of_name(path) is not Kind.AUDIO]:  # may have been a folder
            gone += [each.path for each in await retry_database(self._files.present_below, root.id, path)]
        await self.note_gone(root, gone)

    async def _is_another(self, there: FoundFile, known: Known, fingerprint: str) -> bool:
        """Whether the file at a known path is another one now."""
        if there.is_as(known.signature):
            return False
        reading = await self._readers.read(there.full_path)
        return reading.tags is not None and reading.tags.fingerprint != fingerprint
