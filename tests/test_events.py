"""The event feed publishes once, buffers for each subscriber, and waits for none of them."""

import asyncio

from soulspot.daemon.events import EventBatch, EventFeed
from soulspot.ingest.outcome import Outcome


def outcome(number: int) -> Outcome:
    return Outcome("added", f"/music/{number}.mp3")


def paths(batch: EventBatch) -> list[str]:
    return [event.outcome.path for event in batch.events]


async def test_each_subscriber_gets_all_events_in_order():
    feed = EventFeed()
    with feed.subscribe() as one, feed.subscribe() as other:
        for number in range(3):
            feed.publish(outcome(number))

        for subscription in (one, other):
            assert paths(await anext(subscription.batches())) == [f"/music/{number}.mp3" for number in range(3)]


async def test_a_slow_subscriber_loses_the_oldest_events_and_gets_their_number():
    feed = EventFeed()
    with feed.subscribe(buffer=2) as subscription:
        for number in range(5):
            feed.publish(outcome(number))

        batch = await anext(subscription.batches())

    assert (batch.lost, paths(batch)) == (3, ["/music/3.mp3", "/music/4.mp3"])


async def test_events_in_quick_succession_come_in_one_batch():
    feed = EventFeed()
    with feed.subscribe() as subscription:
        feed.publish(outcome(0))
        batches = subscription.batches(interval=0.05)
        first = await anext(batches)
        for number in range(1, 4):
            feed.publish(outcome(number))

        second = await asyncio.wait_for(anext(batches), 5)

    assert (len(first.events), len(second.events)) == (1, 3)


async def test_an_ended_subscription_gets_no_more_events():
    feed = EventFeed()
    with feed.subscribe() as subscription:
        pass

    feed.publish(outcome(0))

    with feed.subscribe():
        feed.publish(outcome(1))
    assert subscription.take() is None
