"""Where files wait for a lane."""

import asyncio

from soulspot.infrastructure.filesystem import Signature
from soulspot.ingest.disk.planner import Work
from soulspot.ingest.disk.walker import FoundFile, Root
from soulspot.ingest.intake.queues import Pending, Ready


def pending(path: str, *, is_fresh: bool = False) -> Pending:
    return Pending(Work(FoundFile(Root("1", "/music"), path, Signature(1, 1, 1, 1))), is_fresh, 0.0)


async def test_a_lane_that_is_cancelled_while_it_waits_takes_no_file_with_it() -> None:
    ready = Ready(fresh_room=8, bulk_room=8)
    gone, left = asyncio.create_task(ready.take()), asyncio.create_task(ready.take())
    await asyncio.sleep(0)
    gone.cancel()

    file = pending("a.mp3")
    await ready.put(file)

    async with asyncio.timeout(1):
        assert await left is file


async def test_each_file_goes_to_one_lane_and_what_a_hint_named_first() -> None:
    ready = Ready(fresh_room=8, bulk_room=8)
    bulk, fresh = [pending(f"{number}.mp3") for number in range(3)], pending("dropped.mp3", is_fresh=True)
    for file in [*bulk, fresh]:
        await ready.put(file)

    lanes = [asyncio.create_task(ready.take()) for _number in range(6)]
    await asyncio.sleep(0)
    late = pending("late.mp3")
    await ready.put(late)
    await asyncio.sleep(0)
    ready.close()

    assert await asyncio.gather(*lanes) == [fresh, *bulk, late, None]
