"""Judges the daemon's health: a state with reasons, a status line for systemd, and a watchdog for stuck work."""

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
"""Seconds without a finished file, beyond the time limit of the slowest files, after which the work is stuck."""
SHOWN_UNREADABLE: Final = 3
"""Unreadable paths that the reasons name, per folder."""

State = Literal["ok", "degraded", "paused", "failed"]
STATES: Final[tuple[State, ...]] = get_args(State)


@dataclass(frozen=True, slots=True)
class Health:
    """`failed`: work is stuck; `paused`: it waits for the database or a person; `degraded`: only a part works."""

    state: State
    reasons: tuple[str, ...] = ()


def judge(
    stats: PipelineStats,
    faults: Mapping[Root, str],
    held: Mapping[Root, int],
    *,
    is_stuck: bool,
    unreadable: Mapping[Root, Mapping[str, str]] = MappingProxyType({}),
) -> Health:
    """Return the worst state that applies, with every reason."""
    reasons = [f"folder {path_to_text(root.path)} is offline: {fault}" for root, fault in faults.items()]
    for root, paths in unreadable.items():
        if root not in faults:
            reasons += _unreadable(root, paths)
    reasons += [
        f"{count} files of {path_to_text(root.path)} are missing; if you removed them, confirm it: "
        "`soulspot scan --confirm-missing`"
        for root, count in held.items()
    ]
    if stats.held_up is not None:
        reasons.insert(0, _held_up(stats.held_up))
    if stats.paused is not None:
        return Health("paused", (f"the database refuses ({stats.paused})", *reasons))
    if stats.held_up is not None:
        return Health("paused", tuple(reasons))
    if is_stuck:
        return Health("failed", (f"{stats.in_hand} files in progress, and none advances", *reasons))
    return Health("degraded" if reasons else "ok", tuple(reasons))


def _unreadable(root: Root, paths: Mapping[str, str]) -> Iterator[str]:
    """Yield a reason for each of the first unreadable paths, and the number of the others."""
    for path, why in list(paths.items())[:SHOWN_UNREADABLE]:
        yield f"{path_to_text(root.full(path))} cannot be read: {why}"
    if len(paths) > SHOWN_UNREADABLE:
        yield f"{len(paths) - SHOWN_UNREADABLE} more paths in {path_to_text(root.path)} cannot be read"


def _held_up(paused: Paused) -> str:
    since, until = paused.since.astimezone(), paused.until
    end = "until `soulspot resume`" if until is None else f"until {until.astimezone():%Y-%m-%d %H:%M}"
    return f"paused by {paused.by} since {since:%Y-%m-%d %H:%M}, {end}; changes are processed later"


def status_line(health: Health, stats: PipelineStats, roots: Sequence[Root]) -> str:
    """Return the line for `systemctl status`."""
    if health.state in {"paused", "failed"}:
        return f"{health.state}: {health.reasons[0]}"
    doing = f"watching {', '.join(path_to_text(root.path) for root in roots)}"
    if stats.in_hand:
        doing += f"; {stats.in_hand} files in progress, {stats.finished} done"
    return "; ".join((doing, *health.reasons))


class Watchdog:
    """Detects that no file makes progress although some could.

    Args:
        time_limit: seconds that reading one file may take.

    """

    def __init__(self, time_limit: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = STUCK_AFTER + 3 * time_limit  # a hung reader gets a second try, maybe after another file's
        self._clock = clock
        self._finished = -1
        self._progress_at = clock()

    def is_stuck(self, stats: PipelineStats) -> bool:
        """Return whether work is stuck. A wait for the database or a person is not: a restart would not help."""
        is_waiting = stats.paused is not None or stats.held_up is not None
        if stats.finished != self._finished or not stats.in_hand or is_waiting:
            self._finished, self._progress_at = stats.finished, self._clock()
        return self._clock() - self._progress_at > self._limit
