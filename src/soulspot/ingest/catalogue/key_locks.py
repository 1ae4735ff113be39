"""Serializes the creation of new artists and albums: of several files that name a new one, the first creates it.

Without it each file would find nothing, all would insert, and all but one would fail and retry. Another process can
still create the same one: then the unique constraints of the database decide, and the loser retries.
"""

import asyncio
from collections.abc import AsyncIterator, Container, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager, nullcontext
from typing import Final
from weakref import WeakValueDictionary

_NOTHING: Final = nullcontext()


class KeyLocks:
    """One lock for each key that is being created; a lock lives for as long as a task uses it."""

    def __init__(self) -> None:
        self._locks = WeakValueDictionary[str, asyncio.Lock]()

    def held(self, keys: Iterable[str], *, existing: Container[str]) -> AbstractAsyncContextManager[None]:
        """Hold the locks of those keys that do not exist yet.

        A task that finds a key locked waits; once the key exists, all that waited continue together.
        """
        wanted = sorted({key for key in keys if key in self._locks or key not in existing})
        return self._held(wanted, existing) if wanted else _NOTHING

    @asynccontextmanager
    async def _held(self, wanted: Sequence[str], existing: Container[str]) -> AsyncIterator[None]:
        locks = [self._locks.setdefault(key, asyncio.Lock()) for key in wanted]
        with ExitStack() as held:
            for key, lock in zip(wanted, locks, strict=True):  # sorted, so that no two tasks deadlock
                await lock.acquire()
                if key in existing:
                    lock.release()
                else:
                    held.callback(lock.release)
            yield
