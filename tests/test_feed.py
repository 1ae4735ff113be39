"""The feed: told once, kept for each who listens, waited for by nobody."""

import asyncio

from soulspot.daemon.events import Feed, News
from soulspot.ingest.outcome import Outcome


def outcome(number: int) -> Outcome:
    return Outcome("added", f"/music/{number}.mp3")


def paths(news: News) -> list[str]:
    return [each.outcome.path for each in news.happened]


async def test_each_listener_hears_all_of_it_in_its_order():
    feed = Feed()
    with feed.listening() as one, feed.listening() as other:
        for number in range(3):
            feed.tell(outcome(number))

        for listener in (one, other):
            assert paths(await anext(listener.news())) == [f"/music/{number}.mp3" for number in range(3)]


async def test_who_does_not_come_for_it_loses_the_oldest_and_is_told_how_many():
    feed = Feed()
    with feed.listening(room=2) as listener:
        for number in range(5):
            feed.tell(outcome(number))

        news = await anext(listener.news())

    assert (news.lost, paths(news)) == (3, ["/music/3.mp3", "/music/4.mp3"])


async def test_what_happens_in_quick_succession_is_told_together():
    feed = Feed()
    with feed.listening() as listener:
        feed.tell(outcome(0))
        told = listener.news(pause=0.05)
        first = await anext(told)
        for number in range(1, 4):
            feed.tell(outcome(number))

        second = await asyncio.wait_for(anext(told), 5)

    assert (len(first.happened), len(second.happened)) == (1, 3)


async def test_who_has_gone_is_told_no_more():
    feed = Feed()
    with feed.listening() as listener:
        pass

    feed.tell(outcome(0))

    with feed.listening():
        feed.tell(outcome(1))
    assert not listener._room
