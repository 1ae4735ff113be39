"""The daemon's health: ok, degraded, paused or failed."""

from soulspot.daemon import health
from soulspot.daemon.health import Health, Watchdog
from soulspot.ingest.disk.walker import Root
from soulspot.ingest.outcome import PipelineStats

LIMIT = health.STUCK_AFTER + 60


def stats(*, finished: int = 0, in_hand: int = 0, paused: str | None = None) -> PipelineStats:
    return PipelineStats(finished, in_hand, settling=0, oldest=0.0, paused=paused)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def stuck_after(seconds: float, before: PipelineStats, after: PipelineStats) -> bool:
    clock = Clock()
    watchdog = Watchdog(20.0, clock=clock)
    watchdog.is_stuck(before)
    clock.now = seconds
    return watchdog.is_stuck(after)


def test_work_without_progress_is_stuck_only_after_the_limit() -> None:
    assert not stuck_after(LIMIT - 1, stats(in_hand=3), stats(in_hand=3))
    assert stuck_after(LIMIT + 1, stats(in_hand=3), stats(in_hand=3))


def test_work_is_not_stuck_while_it_progresses_rests_or_is_paused() -> None:
    assert not stuck_after(LIMIT + 1, stats(in_hand=3), stats(finished=1, in_hand=3))
    assert not stuck_after(LIMIT + 1, stats(), stats())
    assert not stuck_after(LIMIT + 1, stats(in_hand=3), stats(in_hand=3, paused="disk full"))


def test_health_is_the_worst_state_with_every_reason() -> None:
    root = Root("1", "/srv/music")

    assert health.judge(stats(), {}, {}, is_stuck=False) == Health("ok")
    degraded = health.judge(stats(), {root: "it is empty"}, {}, is_stuck=False)
    assert degraded == Health("degraded", ("folder /srv/music is offline: it is empty",))
    paused = health.judge(stats(paused="disk full"), {root: "it is empty"}, {}, is_stuck=False)
    assert paused == Health("paused", ("the database refuses (disk full)", "folder /srv/music is offline: it is empty"))
    assert health.judge(stats(in_hand=2), {}, {}, is_stuck=True).state == "failed"


def test_the_line_for_systemd_shows_progress_and_problems() -> None:
    root = Root("1", "/srv/music")
    busy = stats(finished=5, in_hand=2)

    assert health.status_line(Health("ok"), busy, [root]) == "watching /srv/music; 2 files in progress, 5 done"
    assert health.status_line(Health("degraded", ("it is so",)), stats(), [root]) == "watching /srv/music; it is so"
    assert health.status_line(Health("paused", ("disk full",)), busy, [root]) == "paused: disk full"
