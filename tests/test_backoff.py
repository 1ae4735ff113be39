"""Growing pauses between retries."""

from itertools import islice

from soulspot.infrastructure.backoff import Backoff


def test_each_pause_is_twice_the_one_before_up_to_the_limit() -> None:
    assert list(islice(Backoff(1.0, 5.0), 5)) == [1.0, 2.0, 4.0, 5.0, 5.0]


def test_a_reset_starts_over_with_the_first_pause() -> None:
    backoff = Backoff(1.0, 5.0)
    pauses = list(islice(backoff, 3))

    backoff.reset()

    assert [*pauses, next(backoff)] == [1.0, 2.0, 4.0, 1.0]
