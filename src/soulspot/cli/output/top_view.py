"""What `soulspot top` shows: what was heard, and how that is told in so many columns and rows."""

import os
import time
import unicodedata
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from rich.cells import cell_len, set_cell_size
from rich.color import ColorSystem
from rich.style import Style

from soulspot.cli.output.text import printable

SILENT_AFTER: Final = 3.0
"""Seconds without a line after which that is said: it comes twice a second."""
SAID_FOR: Final = 6.0
BARS: Final = "▁▂▃▄▅▆▇█"
_COLOURS: Final = None if os.environ.get("NO_COLOR") else ColorSystem.STANDARD
_STATES: Final = {"ok": "bold green", "degraded": "bold yellow", "paused": "bold cyan", "failed": "bold red"}
_KINDS: Final = {"failed": "red", "file_failed": "red", "missing": "yellow", "track_missing": "yellow"}

Piece = tuple[str, str]
"""A text, and its style."""


@dataclass(slots=True)
class View:
    """What was heard of the daemon, or of the catalogue while there is none."""

    daemon: dict[str, Any] | None = None
    vitals: dict[str, Any] = field(default_factory=dict)
    happened: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=200))
    reason: str = ""
    heard_at: float = 0.0
    had_daemon: bool = False
    message: str = ""
    message_at: float = -SAID_FOR

    @property
    def may_steer(self) -> bool:
        return self.daemon is not None and bool(self.daemon.get("may_steer"))

    def hear(self, told: dict[str, Any]) -> None:
        """Take a line of the stream."""
        self.heard_at = time.monotonic()
        if "error" in told:
            self.reason = str(told["error"])
        if "pid" in told:
            self.daemon, self.had_daemon, self.reason = told, True, ""
            self.happened.clear()
        if "vitals" in told:
            self.vitals = told["vitals"]
        if "happened" in told:
            if self.daemon is None:
                self.happened.clear()
            self.happened.extend(told["happened"])

    def below(self, path: str) -> str:
        """Return a path without the folder, where there is but one."""
        folders = self.vitals.get("folders", {})
        return path.removeprefix(f"{next(iter(folders))}/") if len(folders) == 1 else path

    def lose(self) -> None:
        """Have no daemon any more."""
        self.daemon, self.vitals = None, {}

    def say(self, message: str) -> None:
        self.message, self.message_at = message, time.monotonic()


def lines(view: View, columns: int, rows: int) -> list[str]:
    """Return what there is to see, a line each, none wider than that and no more than there is room for."""
    top = [*_header(view, columns), *_numbers(view, columns), *_folders(view, columns, rows)]
    room = max(rows - len(top) - 1, 0)
    failures = _failures(view, columns)[: max(room // 4, 2)]
    arriving = _arriving(view, columns)[: max(room // 3, 2)]
    last = _happened(view, columns, room - len(failures) - len(arriving))
    body = [*top, *arriving, *last, *failures][: rows - 1]
    return [*body, *[""] * (rows - 1 - len(body)), _footer(view, columns)]


def _header(view: View, columns: int) -> list[str]:
    clock = f"{datetime.now().astimezone():%H:%M:%S}"
    if view.daemon is None:
        gone = "it has stopped; another is waited for" if view.had_daemon else "no soulspot is running"
        state: list[Piece] = [("● ", "bold yellow"), (gone, "bold yellow")]
        more = [view.reason] if view.reason else []
    else:
        health = str(view.vitals.get("health", "…"))
        silent = time.monotonic() - view.heard_at
        shown = f"silent for {silent:.0f} s" if silent > SILENT_AFTER else health
        colour = _STATES.get(shown, "bold red")
        since = _span((datetime.now(UTC) - datetime.fromisoformat(view.daemon["since"])).total_seconds())
        state = [("● ", colour), (shown, colour), (f"   up {since}   pid {view.daemon['pid']}", "")]
        more = list(view.vitals.get("reasons", ()))
    left = row([("soulspot  ", "bold"), *state], columns - len(clock) - 1, pad=True)
    reasons = [row([("  " + each, "yellow")], columns) for each in more[:2]]
    return [f"{left} {clock}", *reasons]


def _numbers(view: View, columns: int) -> list[str]:
    vitals, shown = view.vitals, []
    if rates := vitals.get("rates"):
        now, minute = sum(rates[-3:]) / 3, sum(rates) / len(rates)
        width = max(min(60, columns - 44), 0)
        shown.append(
            row(
                [
                    ("files/s   ", "dim"),
                    (f"{now:,.1f} now   {minute:,.1f} last minute   ", ""),
                    (_bars(rates, width), "green"),
                ],
                columns,
            )
        )
    if queue := vitals.get("queue"):
        oldest = f", the oldest for {_span(queue['oldest_seconds'])}" if queue["in_hand"] or queue["settling"] else ""
        text = f"{queue['in_hand']:,} in hand, {queue['settling']:,} not complete yet{oldest}"
        shown.append(row([("queue     ", "dim"), (text, "")], columns))
    shown += [_walk(walk, columns) for walk in vitals.get("walks", ())[:2]]
    if totals := vitals.get("totals"):
        files = totals["files"]
        text = f"{files.get('catalogued', 0):,} catalogued, {files.get('missing', 0):,} missing, "
        failed = files.get("failed", 0)
        shown.append(row([("files     ", "dim"), (text, ""), (f"{failed:,} failed", "red" if failed else "")], columns))
    return shown


def _walk(walk: dict[str, Any], columns: int) -> str:
    done, total, seconds = walk["done"], walk["total"], max(walk["seconds"], 1)
    if not total:
        return row([("walking   ", "dim"), (f"{walk['folder']}: {done:,} files so far", "")], columns)
    share = min(done / total, 1.0)
    left = _span((total - done) * seconds / done) if 0 < done < total else "?"
    text = f"{done:,} of {total:,}, {share:.0%}, {left} left  "
    width = max(min(30, columns - cell_len(text) - 11), 0)
    filled = round(share * width)
    return row([("walking   ", "dim"), (text, ""), ("━" * filled, "green"), ("━" * (width - filled), "dim")], columns)


def _folders(view: View, columns: int, rows: int) -> list[str]:
    shown = []
    for path, folder in view.vitals.get("folders", {}).items():
        if folder.get("offline"):
            told: Piece = (f"offline: {folder['offline']}", "bold yellow")
        elif folder.get("held"):
            told = (f"held: {folder['held']} files are not there", "bold yellow")
        elif "watched" in folder:
            event, looked = _ago(folder["last_event"]), _ago(folder["last_reconcile"])
            told = (f"event {event}, reconcile {looked}", "")
        else:
            told = ("", "")
        room = max(columns - 12 - min(cell_len(told[0]), columns // 2), 10)
        shown.append(row([("folder    ", "dim"), (cut(path, room, keep_end=True), ""), ("  ", ""), told], columns))
    most = max(rows // 6, 1)
    return [
        *shown[:most],
        *([row([(f"          and {len(shown) - most} more", "dim")], columns)] if shown[most:] else []),
    ]


def _arriving(view: View, columns: int) -> list[str]:
    shown = [row([("arriving and settling", "bold")], columns)] if view.vitals.get("arriving") else []
    for each in view.vitals.get("arriving", ()):
        what = "settles" if each["settles"] else "in hand"
        begin = f"  {what}  {_span(each['seconds']):>7}  "
        path = cut(view.below(each["path"]), columns - cell_len(begin), keep_end=True)
        shown.append(row([(begin, "cyan" if each["settles"] else "dim"), (path, "")], columns))
    return shown


def _happened(view: View, columns: int, room: int) -> list[str]:
    if not view.happened or room < 2:  # noqa: PLR2004 - the heading and one
        return []
    shown = [row([("last outcomes", "bold")], columns)]
    for each in list(view.happened)[:-room:-1]:
        at = datetime.fromisoformat(each["at"]).astimezone()
        begin: list[Piece] = [(f"  {at:%H:%M:%S}  ", "dim"), (f"{each['kind']:<9} ", _KINDS.get(each["kind"], "green"))]
        rest = columns - sum(cell_len(text) for text, _style in begin)
        detail = each.get("detail") or ""
        path = cut(view.below(each["path"]), max(rest * 2 // 3 if detail else rest, 10), keep_end=True)
        shown.append(row([*begin, (path, ""), (f"  {detail}" if detail else "", "dim")], columns))
    return shown


def _failures(view: View, columns: int) -> list[str]:
    totals = view.vitals.get("totals") or {}
    if not totals.get("failures"):
        return []
    by_code = ", ".join(f"{count:,} {code}" for code, count in totals["failures"].items())
    shown = [row([("failures to look into  ", "bold"), (by_code, "red")], columns)]
    for each in totals["last_failures"]:
        path = cut(view.below(each["path"]), max(columns * 3 // 5, 10), keep_end=True)
        shown.append(row([("  ", ""), (path, ""), (f"  {each['code']}: {each['detail']}", "dim")], columns))
    return shown


def _footer(view: View, columns: int) -> str:
    if time.monotonic() - view.message_at < SAID_FOR:
        return row([(view.message, "bold")], columns)
    keys = [("q", "quit")]
    if view.may_steer:
        keys += [("p", "pause"), ("r", "resume"), ("s", "scan")]
    pieces = [piece for key, verb in keys for piece in ((f" {key} ", "reverse"), (f" {verb}  ", ""))]
    return row(pieces, columns)


def row(pieces: Iterable[Piece], columns: int, *, pad: bool = False) -> str:
    """Return one line of so many columns at most, as the terminal wants it; whatever the texts hold."""
    left, written = columns, []
    for text, style in pieces:
        shown = cut(text, left)
        left -= cell_len(shown)
        written.append(Style.parse(style).render(shown, color_system=_COLOURS) if style else shown)
    return "".join(written) + (" " * left if pad else "")


def cut(text: str, cells: int, *, keep_end: bool = False) -> str:
    """Return a text that harms no terminal and takes so many cells at most; "…" stands for what was left out."""
    if cells <= 0:
        return ""
    some = text[-4 * cells - 4 :] if keep_end else text[: 4 * cells + 4]  # it may have a million characters
    shown = _unstacked(printable(unicodedata.normalize("NFC", some)))
    is_whole = len(some) == len(text)
    if is_whole and cell_len(shown) <= cells:
        return shown
    if not keep_end:
        return f"{set_cell_size(shown, cells - 1).rstrip()}…"
    while shown and cell_len(shown) > cells - 1:
        shown = shown[max((cell_len(shown) - cells + 1) // 2, 1) :]
    return f"…{shown}"


def _unstacked(text: str) -> str:
    """Leave out marks beyond the second on one letter: they would stand in the lines above."""
    kept: list[str] = []
    for each in text:
        if unicodedata.combining(each) and len(kept) > 1 and all(map(unicodedata.combining, kept[-2:])):
            continue
        kept.append(each)
    return "".join(kept)


def _bars(numbers: Sequence[int], width: int) -> str:
    shown = numbers[-width:] if width else ()
    most = max(shown, default=0) or 1
    return "".join(BARS[min(number * len(BARS) // most, len(BARS) - 1)] for number in shown)


def _span(seconds: float) -> str:
    """Return a time as a person says it."""
    for size, unit, smaller, name in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if seconds >= size:
            return f"{int(seconds // size)} {unit} {int(seconds % size // smaller)} {name}"
    return f"{seconds:.0f} s"


def _ago(moment: str | None) -> str:
    if moment is None:
        return "none yet"
    return f"{_span(max((datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds(), 0))} ago"
