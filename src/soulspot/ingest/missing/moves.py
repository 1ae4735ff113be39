"""Finds the file that one was before it moved: by its inode, and where it was tagged anew as well, by its sound.

A sound is a file's fingerprint: of the audio, not the tags. To ask the catalogue for each new file would cost more than
to read it. So the sounds that may have moved are held here: those of the files that are missing, and of those that were
seen gone, or changed, since this process began. A new file may be read sooner than its old path is looked at: that path
is then found by the inode, which most programs that write tags leave as it is, or among the hints that still wait.
"""

import asyncio
import os
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace

from soulspot.infrastructure.persistence.records import Known
from soulspot.infrastructure.persistence.repositories import FileRepository
from soulspot.infrastructure.tags import Kind, kind_of_name
from soulspot.infrastructure.tags.readers.pool import TagReaders
from soulspot.ingest.disk import planner
from soulspot.ingest.disk.planner import Work
from soulspot.ingest.disk.walker import FoundFile, FoundFolder, Root, chunks, is_left_alone, look_at_all
from soulspot.ingest.missing.missing_files import Losses
from soulspot.ingest.retry import patiently

SAME_SOUND = 20
"""Files of one sound (silence, a jingle) from which on the sound does not say which file is which."""


class Origins:
    """Knows what has left its path, and which new file it is.

    Args:
        hinted: returns the paths below each root of which something was said, and that nobody has looked at.

    """

    def __init__(
        self,
        files: FileRepository,
        losses: Losses,
        readers: TagReaders,
        hinted: Callable[[], Mapping[Root, Collection[str]]],
    ) -> None:
        self._files = files
        self._losses = losses
        self._readers = readers
        self._hinted = hinted
        self._displaced: set[str] = set()
        self._is_loaded = False
        self._hearing = asyncio.Lock()

    async def match(self, work: Iterable[Work]) -> list[Work]:
        """Give each file that has come from another path the one that had its inode, size and mtime there."""
        known: list[Known] = []
        for inodes in chunks(planner.inodes_to_ask(work)):
            known += await patiently(self._files.with_inodes, inodes)
        known = [each for each in known if self._losses.root_of(each) is not None]
        matched = planner.match_moves(work, known)
        left = {each.id for each in await self.have_left(known)} if known else set[str]()
        origins = {each.moved_from.id for each in matched if each.moved_from is not None}
        await self._sounds_of(left - origins)  # with the inode of one of these, but not as it was: tagged anew
        return [
            each if each.moved_from is None or each.moved_from.id in left else replace(each, moved_from=None)
            for each in matched
        ]

    async def have_left(self, origins: Collection[Known]) -> list[Known]:
        """Return those files that are not at their own paths any more, so that another is one of them and no copy."""
        found = await self._looked_at(origins)
        return [
            origin
            for origin, what in found
            if what is None or (isinstance(what, FoundFile) and what.signature.inode != origin.signature.inode)
        ]

    async def _looked_at(self, origins: Collection[Known]) -> list[tuple[Known, FoundFile | FoundFolder | None]]:
        """Return what is at the paths of files now, for those of which anything can be said."""
        in_sight = [
            (root, each)
            for each in origins
            if (root := self._losses.root_of(each)) is not None and not self._losses.is_out_of_sight(root, each.path)
        ]
        found = await asyncio.to_thread(lambda: [look_at_all(root, [each.path]) for root, each in in_sight])
        looks = zip(in_sight, found, strict=True)
        return [(each, there[each.path]) for (_root, each), there in looks if each.path in there]

    async def displaced(self, root: Root, paths: Collection[str]) -> None:
        """Hear that the files of these paths are gone: each may turn up elsewhere."""
        for some in chunks(paths):
            sounds = await patiently(self._files.fingerprints_at, root.id, some)
            self._displaced.update(sounds)

    async def sounds_before(self, work: Collection[Work]) -> dict[str, str]:
        """Return the sounds that changed files had, by file id; each may turn up elsewhere."""
        return await self._sounds_of([each.known.id for each in work if each.known is not None])

    async def _sounds_of(self, file_ids: Collection[str]) -> dict[str, str]:
        sounds: dict[str, str] = {}
        for some in chunks(file_ids):
            sounds |= await patiently(self._files.fingerprints_of, some)
        self._displaced.update(sounds.values())
        return sounds

    async def with_sound(self, file: FoundFile, sound: str) -> Known | None:
        """Return the file that this one was before it was moved and tagged anew; None for a new one and for a copy."""
        if not await self._may_have_moved(sound):
            return None
        candidates = await patiently(self._files.with_fingerprint, sound, SAME_SOUND)
        if len(candidates) == SAME_SOUND:
            return None
        name = file.path.rpartition("/")[2]
        for each in sorted(candidates, key=lambda each: (each.is_missing, not each.path.endswith(name), each.path)):
            for _each, what in await self._looked_at([each]):
                if what is None or (isinstance(what, FoundFile) and await self._sounds_other(what, each, sound)):
                    return each
        return None

    async def _may_have_moved(self, sound: str) -> bool:
        async with self._hearing:
            if not self._is_loaded:
                self._displaced.update(await patiently(self._files.fingerprints_missing))
                self._is_loaded = True
            if sound not in self._displaced:
                for root, paths in self._hinted().items():
                    await self._hear(root, paths)
        return sound in self._displaced

    async def _hear(self, root: Root, paths: Collection[str]) -> None:
        """Find out which of these paths are gone, before they are looked at in their turn."""
        named = [path for path in paths if is_left_alone(os.path.basename(path), hidden=root.hidden) is None]
        if not named:
            return
        gone = await asyncio.to_thread(lambda: [path for path in named if not os.path.lexists(root.full(path))])
        for path in [path for path in gone if kind_of_name(path) is not Kind.AUDIO]:  # it may have been a folder
            gone += [each.path for each in await patiently(self._files.present_below, root.id, path)]
        await self.displaced(root, gone)

    async def _sounds_other(self, there: FoundFile, known: Known, sound: str) -> bool:
        """Whether the file at a known path is another by now."""
        if there.is_as(known.signature):
            return False
        reading = await self._readers.read(there.full_path)
        return reading.tags is not None and reading.tags.fingerprint != sound
