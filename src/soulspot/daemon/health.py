"""How the daemon is: one word with its reasons, a line for systemd, and whether its work goes on."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal, get_args

from soulspot.infrastructure.filesystem import path_to_text
from soulspot.ingest.disk.walker import Root
from soulspot.ingest.outcome import PipelineStats
from soulspot.ingest.pause_gate import Paused

STUCK_AFTER: Final = 60.0
"""Seconds without a file done with, beyond what the slowest files may take, after which the work is stuck."""
SHOWN: Final = 3
"""Places in one folder that are named when they cannot be read."""

State = Literal["ok", "degraded", "paused", "failed"]
STATES: Final[tuple[State, ...]] = get_args(State)


@dataclass(frozen=True, slots=True)
class Health:
    """`failed`: it does not work; `paused`: it waits for its database or a person; `degraded`: not all of it works."""

    state: State
    reasons: tuple[str, ...] = ()


def judge(
    vitals: PipelineStats,
    faults: Mapping[Root, str],
    held: Mapping[Root, int],
    *,
    is_stuck: bool,
    unreadable: Mapping[Root, Mapping[str, str]] = MappingProxyType({}),
) -> Health:
    """Return the worst that there is to say, with every reason."""
    reasons = [f"folder {path_to_text(root.path)} is offline: {fault}" for root, fault in faults.items()]
    for root, paths in unreadable.items():
        if root not in faults:
            reasons += _unreadable(root, paths)
    reasons += [
        f"{count} files of {path_to_text(root.path)} are not there; if they are gone for good: "
        "`soulspot scan --confirm-missing`"
        for root, count in held.items()
    ]
    if vitals.held_up is not None:
        reasons.insert(0, _held_up(vitals.held_up))
    if vitals.paused is not None:
        return Health("paused", (f"the database refuses ({vitals.paused})", *reasons))
    if vitals.held_up is not None:
        return Health("paused", tuple(reasons))
    if is_stuck:
        return Health("failed", (f"{vitals.in_hand} files in hand, and none of them gets done", *reasons))
    return Health("degraded" if reasons else "ok", tuple(reasons))


def _unreadable(root: Root, paths: Mapping[str, str]) -> Iterator[str]:
    """Yield a reason for each place that could not be looked at, and a number for those beyond the first few."""
    for path, why in list(paths.items())[:SHOWN]:
        yield f"{path_to_text(root.full(path))} cannot be read: {why}"
    if len(paths) > SHOWN:
        yield f"{len(paths) - SHOWN} more places in {path_to_text(root.path)} cannot be read"


def _held_up(paused: Paused) -> str:
    since, until = paused.since.astimezone(), paused.until
    end = "until `soulspot resume`" if until is None else f"until {until.astimezone():%Y-%m-%d %H:%M}"
    return f"paused by {paused.by} since {since:%Y-%m-%d %H:%M}, {end}: nothing is lost meanwhile"


def in_a_line(health: Health, vitals: PipelineStats, roots: Sequence[Root]) -> str:
    """Return what `systemctl status` shows."""
    if health.state in {"paused", "failed"}:
        return f"{health.state}: {health.reasons[0]}"
    doing = f"watching {', '.join(path_to_text(root.path) for root in roots)}"
    if vitals.in_hand:
        doing += f"; {vitals.in_hand} files in hand, {vitals.finished} done"
    return "; ".join((doing, *health.reasons))


class Watchdog:
    """Tells whether files get done, for as long as there are any that could be.

    Args:
        time_limit: seconds that reading one file may take.

    """

    def __init__(self, time_limit: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = STUCK_AFTER + 3 * time_limit  # a reader that hangs is given a second try, after another file's
        self._clock = clock
        self._finished = -1
        self._moved = clock()

    def is_stuck(self, vitals: PipelineStats) -> bool:
        """Whether nothing has moved for too long. To wait, for a database or a person, is nothing to restart for."""
        waits = vitals.paused is not None or vitals.held_up is not None
        if vitals.finished != self._finished or not vitals.in_hand or waits:
            self._finished, self._moved = vitals.finished, self._clock()
        return self._clock() - self._moved > self._limit
