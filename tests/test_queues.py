"""Complete files wait for a worker; incomplete ones wait until they are due."""

import asyncio
import time

from soulspot.infrastructure.filesystem import Signature
from soulspot.ingest.activity import Pending
from soulspot.ingest.disk.planner import Work
from soulspot.ingest.disk.walker import FoundFile, Root
from soulspot.ingest.intake.due_queue import DueQueue
from soulspot.ingest.intake.queues import Ready


def pending(path: str, *, is_fresh: bool = False) -> Pending:
    return Pending(Work(FoundFile(Root("1", "/music"), path, Signature(1, 1, 1, 1))), is_fresh, 0.0)


async def test_cancelling_a_waiting_worker_loses_no_file() -> None:
    ready = Ready(fresh_room=8, bulk_room=8)
    cancelled, left = asyncio.create_task(ready.take()), asyncio.create_task(ready.take())
    await asyncio.sleep(0)
    cancelled.cancel()

    file = pending("a.mp3")
    await ready.put(file)

    async with asyncio.timeout(1):
        assert await left is file


async def test_each_file_goes_to_one_worker_and_hinted_files_go_first() -> None:
    ready = Ready(fresh_room=8, bulk_room=8)
    bulk, fresh = [pending(f"{number}.mp3") for number in range(3)], pending("dropped.mp3", is_fresh=True)
    for file in [*bulk, fresh]:
        await ready.put(file)

    workers = [asyncio.create_task(ready.take()) for _number in range(6)]
    await asyncio.sleep(0)
    late = pending("late.mp3")
    await ready.put(late)
    await asyncio.sleep(0)
    ready.close()

    assert await asyncio.gather(*workers) == [fresh, *bulk, late, None]


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


async def test_items_come_in_the_order_in_which_they_are_due() -> None:
    clock = Clock()
    queue: DueQueue[str] = DueQueue(clock)
    queue.put("second", 2.0)
    queue.put("first", 1.0)
    queue.put("later", 9.0)

    clock.now = 2.0

    assert await queue.take_due() == ["first", "second"]


async def test_a_rescheduled_item_is_due_once_at_its_new_time() -> None:
    clock = Clock()
    queue: DueQueue[str] = DueQueue(clock)
    queue.put("later", 1.0)
    queue.put("later", 3.0)
    queue.put("sooner", 9.0)
    queue.put("sooner", 2.0)

    clock.now = 2.0
    first = await queue.take_due()
    clock.now = 9.0

    assert (first, await queue.take_due()) == (["sooner"], ["later"])


async def test_an_earlier_item_wakes_a_task_that_waits_for_a_later_one() -> None:
    queue: DueQueue[str] = DueQueue(time.monotonic)
    queue.put("late", 60.0)
    waiting = asyncio.create_task(queue.take_due())
    await asyncio.sleep(0)

    queue.put("soon", 0.0)

    async with asyncio.timeout(1):
        assert await waiting == ["soon"]
