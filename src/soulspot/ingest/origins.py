"""Finds the file that one was before it moved: by its inode, and where it was tagged anew as well, by its sound.

A sound is a file's fingerprint: of the audio, not the tags. To ask the catalogue for each new file would cost more than
to read it. So the sounds that may have moved are held here: those of the files that are missing, and of those that were
seen gone, or changed, since this process began.
"""

import asyncio
from collections.abc import Collection, Iterable

from soulspot.infrastructure.persistence.repositories import FileRepository, Known
from soulspot.infrastructure.tags import TagReaders
from soulspot.ingest import planner
from soulspot.ingest.losses import Losses
from soulspot.ingest.patience import patiently
from soulspot.ingest.planner import Work
from soulspot.ingest.scanner import FoundFile, Root, chunks, look_at_all

SAME_SOUND = 20
"""Files of one sound (silence, a jingle) from which on the sound does not say which file is which."""


class Origins:
    def __init__(self, files: FileRepository, losses: Losses, readers: TagReaders) -> None:
        self._files = files
        self._losses = losses
        self._readers = readers
        self._displaced: set[str] = set()
        self._is_loaded = False
        self._loading = asyncio.Lock()

    async def match(self, work: Iterable[Work]) -> list[Work]:
        """Give each file that may have come from another path the one that had its inode, size and mtime."""
        known: list[Known] = []
        for inodes in chunks(planner.inodes_to_ask(work)):
            known += await patiently(self._files.with_inodes, inodes)
        return planner.match_moves(work, [each for each in known if self._losses.root_of(each) is not None])

    async def has_moved(self, file: FoundFile, origin: Known) -> bool:
        """Whether a known file is not at its own path any more, so that this one is it and no copy or hard link."""
        root = self._losses.root_of(origin)
        if root is None or self._losses.is_out_of_sight(root, origin.path):
            return False
        there = await asyncio.to_thread(look_at_all, root, [origin.path])
        what = there.get(origin.path, file)
        return what is None or (isinstance(what, FoundFile) and what.signature.inode != origin.signature.inode)

    async def displaced(self, root: Root, paths: Collection[str]) -> None:
        """Hear that the files of these paths are gone: each may turn up elsewhere."""
        for some in chunks(paths):
            sounds = await patiently(self._files.sounds_at, root.id, some)
            self._displaced.update(sounds)

    async def sounds_before(self, work: Collection[Work]) -> dict[str, str]:
        """Return the sounds that changed files had, by file id; each may turn up elsewhere."""
        ids = [each.known.id for each in work if each.known is not None]
        sounds: dict[str, str] = {}
        for some in chunks(ids):
            sounds |= await patiently(self._files.sounds_of, some)
        self._displaced.update(sounds.values())
        return sounds

    async def with_sound(self, file: FoundFile, sound: str) -> Known | None:
        """Return the file that this one was before it was moved and tagged anew; None for a new one and for a copy."""
        if not await self._may_have_moved(sound):
            return None
        candidates = await patiently(self._files.with_sound, sound, SAME_SOUND)
        if len(candidates) == SAME_SOUND:
            return None
        name = file.path.rpartition("/")[2]
        for each in sorted(candidates, key=lambda each: (each.is_missing, not each.path.endswith(name), each.path)):
            root = self._losses.root_of(each)
            if root is None or self._losses.is_out_of_sight(root, each.path):
                continue
            what = (await asyncio.to_thread(look_at_all, root, [each.path])).get(each.path, file)
            if what is None or (isinstance(what, FoundFile) and await self._sounds_other(what, each, sound)):
                return each
        return None

    async def _may_have_moved(self, sound: str) -> bool:
        async with self._loading:
            if not self._is_loaded:
                self._displaced.update(await patiently(self._files.sounds_missing))
                self._is_loaded = True
        return sound in self._displaced

    async def _sounds_other(self, there: FoundFile, known: Known, sound: str) -> bool:
        """Whether the file at a known path is another by now."""
        if there.is_as(known.signature):
            return False
        reading = await self._readers.read(there.full_path)
        return reading.tags is not None and reading.tags.fingerprint != sound
