"""How the daemon judges itself."""

from soulspot.daemon import health
from soulspot.daemon.health import Health, Watchdog
from soulspot.ingest.disk.walker import Root
from soulspot.ingest.outcome import PipelineStats

LIMIT = health.STUCK_AFTER + 60


def vitals(*, finished: int = 0, in_hand: int = 0, paused: str | None = None) -> PipelineStats:
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


def test_work_that_does_not_move_is_stuck_after_its_time_and_not_before() -> None:
    assert not stuck_after(LIMIT - 1, vitals(in_hand=3), vitals(in_hand=3))
    assert stuck_after(LIMIT + 1, vitals(in_hand=3), vitals(in_hand=3))


def test_work_that_moves_rests_or_waits_for_the_database_is_not_stuck() -> None:
    assert not stuck_after(LIMIT + 1, vitals(in_hand=3), vitals(finished=1, in_hand=3))
    assert not stuck_after(LIMIT + 1, vitals(), vitals())
    assert not stuck_after(LIMIT + 1, vitals(in_hand=3), vitals(in_hand=3, paused="disk full"))


def test_the_worst_comes_first_and_nothing_is_left_out() -> None:
    root = Root("1", "/srv/music")

    assert health.judge(vitals(), {}, {}, is_stuck=False) == Health("ok")
    degraded = health.judge(vitals(), {root: "it is empty"}, {}, is_stuck=False)
    assert degraded == Health("degraded", ("folder /srv/music is offline: it is empty",))
    paused = health.judge(vitals(paused="disk full"), {root: "it is empty"}, {}, is_stuck=False)
    assert paused == Health("paused", ("the database refuses (disk full)", "folder /srv/music is offline: it is empty"))
    assert health.judge(vitals(in_hand=2), {}, {}, is_stuck=True).state == "failed"


def test_the_line_for_systemd_says_what_is_done_and_what_is_wrong() -> None:
    root = Root("1", "/srv/music")
    busy = vitals(finished=5, in_hand=2)

    assert health.status_line(Health("ok"), busy, [root]) == "watching /srv/music; 2 files in hand, 5 done"
    assert health.status_line(Health("degraded", ("it is so",)), vitals(), [root]) == "watching /srv/music; it is so"
    assert health.status_line(Health("paused", ("disk full",)), busy, [root]) == "paused: disk full"
