"""Who makes what is new: of the files that name one new artist or album at once, the first; the others wait for it.

Without, each of them would find nothing, all would insert, and all but one would fail and start again. Files in other
processes still can: there the database's unique constraints decide, and the loser looks again.
"""

import asyncio
from collections.abc import AsyncIterator, Container, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from typing import Final

_NOTHING: Final = nullcontext()


class Claims:
    """Names that somebody is making just now."""

    def __init__(self) -> None:
        self._locks: dict[str, asyncio.Lock] = {}
        self._users: dict[str, int] = {}

    def claimed(self, names: Iterable[str], *, existing: Container[str]) -> AbstractAsyncContextManager[None]:
        """Be the only one who makes those of these names that do not exist.

        One that is being made is waited for, and when it exists then, all who waited go on together.
        """
        wanted = sorted({name for name in names if name in self._locks or name not in existing})
        return self._made_by_one(wanted, existing) if wanted else _NOTHING

    @asynccontextmanager
    async def _made_by_one(self, wanted: Sequence[str], existing: Container[str]) -> AsyncIterator[None]:
        for name in wanted:
            self._locks.setdefault(name, asyncio.Lock())
            self._users[name] = self._users.get(name, 0) + 1
        try:
            async with AsyncExitStack() as claims:
                for name in wanted:  # in one order, so that no two wait for each other
                    async with AsyncExitStack() as turn:
                        await turn.enter_async_context(self._locks[name])
                        if name not in existing:
                            claims.push_async_exit(turn.pop_all())
                yield
        finally:
            for name in wanted:
                self._users[name] -= 1
                if not self._users[name]:
                    del self._locks[name], self._users[name]
