"""If several files name one new artist, one of them creates it."""

import asyncio

from soulspot.ingest.catalogue.key_locks import KeyLocks


async def test_waiting_tasks_continue_together_once_the_key_exists() -> None:
    locks, existing, all_inside = KeyLocks(), set[str](), asyncio.Barrier(5)
    makers = []

    async def ingest(number: int) -> None:
        async with locks.held(["artist", "album"], existing=existing):
            if not existing:
                makers.append(number)
                await asyncio.sleep(0)  # its transaction
                existing.update({"artist", "album"})
            else:
                await all_inside.wait()

    async with asyncio.timeout(5):
        await asyncio.gather(*(ingest(number) for number in range(6)))

    assert makers == [0]


async def test_after_a_failed_creation_the_next_task_tries_alone() -> None:
    locks, inside, most = KeyLocks(), 0, 0

    async def fail() -> None:
        nonlocal inside, most
        async with locks.held(["artist"], existing=()):
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0)
            inside -= 1
            raise ValueError

    results = await asyncio.gather(*(fail() for _number in range(4)), return_exceptions=True)

    assert [type(result) for result in results] == [ValueError] * 4
    assert most == 1


async def test_a_key_is_locked_until_its_creator_has_committed() -> None:
    locks, existing, order = KeyLocks(), set[str](), []

    async def make() -> None:
        async with locks.held(["artist"], existing=existing):
            existing.add("artist")  # a repository caches it before the commit
            await asyncio.sleep(0.01)
            order.append("committed")

    async def use() -> None:
        async with locks.held(["artist"], existing=existing):
            order.append("used")

    making = asyncio.create_task(make())
    await asyncio.sleep(0)
    await asyncio.gather(making, use())

    assert order == ["committed", "used"]
