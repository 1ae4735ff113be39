"""Serializes the creation of new artists and albums: of several files that name a new one, the first creates it.

Without it each file would find nothing, all would insert, and all but one would fail and retry. Another process can
still create the same one: then the unique constraints of the database decide, and the loser retries.
"""

import asyncio
from collections.abc import AsyncIterator, Container, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from typing import Final

_NOTHING: Final = nullcontext()


class KeyLocks:
    """One lock for each key that is being created."""

    def __init__(self) -> None:
        self._locks: dict[str, asyncio.Lock] = {}
        self._users: dict[str, int] = {}

    def held(self, keys: Iterable[str], *, existing: Container[str]) -> AbstractAsyncContextManager[None]:
        """Hold the locks of those keys that do not exist yet.

        A task that finds a key locked waits; once the key exists, all that waited continue together.
        """
        wanted = sorted({key for key in keys if key in self._locks or key not in existing})
        return self._held(wanted, existing) if wanted else _NOTHING

    @asynccontextmanager
    async def _held(self, wanted: Sequence[str], existing: Container[str]) -> AsyncIterator[None]:
        for key in wanted:
            self._locks.setdefault(key, asyncio.Lock())
            self._users[key] = self._users.get(key, 0) + 1
        try:
            async with AsyncExitStack() as locks:
                for key in wanted:  # sorted, so that no two tasks deadlock
                    async with AsyncExitStack() as lock:
                        await lock.enter_async_context(self._locks[key])
                        if key not in existing:
                            locks.push_async_exit(lock.pop_all())
                yield
        finally:
            for key in wanted:
                self._users[key] -= 1
                if not self._users[key]:
                    del self._locks[key], self._users[key]
