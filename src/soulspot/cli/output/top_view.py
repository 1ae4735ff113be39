"""What `soulspot top` shows: the state that it has received, and how that state becomes lines of text."""

import time
import unicodedata
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import groupby, islice
from typing import Any, Final

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from soulspot.cli.output.text import printable
from soulspot.cli.output.time_spans import ago, in_words

SILENT_AFTER: Final = 3.0
"""Seconds without a line from the daemon after which the header says so; it sends two a second."""
MESSAGE_SECONDS: Final = 6.0
BARS: Final = "▁▂▃▄▅▆▇█"
_HEALTH: Final = {"ok": "bold green", "degraded": "bold yellow", "paused": "bold cyan", "failed": "bold red"}
_KINDS: Final = {"failed": "red", "file_failed": "red", "missing": "yellow", "track_missing": "yellow"}

Piece = tuple[str, str]
"""A text and its style."""


@dataclass(slots=True)
class View:
    """The last state of the daemon, or of the catalogue while no daemon runs."""

    daemon: dict[str, Any] | None = None
    vitals: dict[str, Any] = field(default_factory=dict)
    events: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=200))
    reason: str = ""
    updated_at: float = 0.0
    had_daemon: bool = False
    message: str = ""
    message_at: float = -MESSAGE_SECONDS

    @property
    def is_admin(self) -> bool:
        return self.daemon is not None and bool(self.daemon.get("may_steer"))

    def update(self, line: dict[str, Any]) -> None:
        """Apply one line of the stream."""
        self.updated_at = time.monotonic()
        self.reason = str(line.get("error", self.reason))
        if "pid" in line:
            self.daemon, self.had_daemon, self.reason = line, True, ""
        self.vitals = line.get("vitals", self.vitals)
        if "happened" in line:
            if self.daemon is None or "pid" in line:
                self.events.clear()
            self.events.extend(line["happened"])

    def relative(self, path: str) -> str:
        """Return a path relative to the music folder if there is only one."""
        folders = self.vitals.get("folders", {})
        return path.removeprefix(f"{next(iter(folders))}/") if len(folders) == 1 else path

    def disconnect(self) -> None:
        self.daemon, self.vitals = None, {}

    def notify(self, message: str) -> None:
        """Show a message in the footer for a few seconds."""
        self.message, self.message_at = message, time.monotonic()


def screen(view: View, columns: int, rows: int) -> Text:
    """Return exactly `rows` lines, none wider than `columns`."""
    top = [*_header(view, columns), *_numbers(view, columns), *_folders(view, columns, rows)]
    room = max(rows - len(top) - 1, 0)
    failures = _failures(view, columns)[: max(room // 4, 2)]
    arriving = _arriving(view, columns)[: max(room // 3, 2)]
    outcomes = _outcomes(view, columns, room - len(failures) - len(arriving))
    body = [*top, *arriving, *outcomes, *failures][: rows - 1]
    padding = [Text()] * (rows - 1 - len(body))
    return Text("\n", no_wrap=True, overflow="crop").join([*body, *padding, _footer(view, columns)])


def _header(view: View, columns: int) -> Iterator[Text]:
    clock = f" {datetime.now().astimezone():%H:%M:%S}"
    if view.daemon is None:
        shown = "the daemon has stopped; waiting for another" if view.had_daemon else "no soulspot is running"
        colour, rest, reasons = "bold yellow", "", [view.reason] if view.reason else []
    else:
        silent = time.monotonic() - view.updated_at
        shown = f"silent for {silent:.0f} s" if silent > SILENT_AFTER else str(view.vitals.get("health", "…"))
        colour, reasons = _HEALTH.get(shown, "bold red"), view.vitals.get("reasons", [])
        up = (datetime.now(UTC) - datetime.fromisoformat(view.daemon["since"])).total_seconds()
        rest = f"   up {in_words(up)}   pid {view.daemon['pid']}"
    title = _line([("soulspot  ", "bold"), ("● ", colour), (shown, colour), (rest, "")], columns - len(clock))
    title.pad_right(columns - len(clock) - title.cell_len)
    yield title.append(clock)
    yield from (_line([("  " + each, "yellow")], columns) for each in reasons[:2])


def _numbers(view: View, columns: int) -> Iterator[Text]:
    vitals = view.vitals
    if rates := vitals.get("rates"):
        text = f"{sum(rates[-3:]) / 3:,.1f} now   {sum(rates) / len(rates):,.1f} last minute   "
        bars = _bars(rates, max(min(60, columns - 44), 0))
        yield _line([("files/s   ", "dim"), (text, ""), (bars, "green")], columns)
    if queue := vitals.get("queue"):
        is_busy = queue["in_hand"] or queue["settling"]
        oldest = f", the oldest for {in_words(queue['oldest_seconds'])}" if is_busy else ""
        text = f"{queue['in_hand']:,} in progress, {queue['settling']:,} still being written{oldest}"
        yield _line([("queue     ", "dim"), (text, "")], columns)
    yield from (_scan(scan, columns) for scan in vitals.get("walks", ())[:2])
    if totals := vitals.get("totals"):
        files = Counter(totals["files"])
        text = f"{files['catalogued']:,} catalogued, {files['missing']:,} missing, "
        failed = (f"{files['failed']:,} failed", "red" if files["failed"] else "")
        yield _line([("files     ", "dim"), (text, ""), failed], columns)


def _scan(scan: dict[str, Any], columns: int) -> Text:
    done, total, seconds = scan["done"], scan["total"], max(scan["seconds"], 1)
    if not total:
        return _line([("scanning  ", "dim"), (f"{scan['folder']}: {done:,} files so far", "")], columns)
    share = min(done / total, 1.0)
    left = in_words((total - done) * seconds / done) if 0 < done < total else "?"
    text = f"{done:,} of {total:,}, {share:.0%}, {left} left  "
    width = max(min(30, columns - cell_len(text) - 11), 0)
    filled = round(share * width)
    bar = [("━" * filled, "green"), ("━" * (width - filled), "dim")]
    return _line([("scanning  ", "dim"), (text, ""), *bar], columns)


def _folders(view: View, columns: int, rows: int) -> list[Text]:
    folders, most = view.vitals.get("folders", {}), max(rows // 6, 1)
    shown = [_folder(path, folder, columns) for path, folder in islice(folders.items(), most)]
    more = [_line([(f"          and {len(folders) - most} more", "dim")], columns)] if len(folders) > most else []
    return shown + more


def _folder(path: str, folder: dict[str, Any], columns: int) -> Text:
    state, style = "", "bold yellow"
    if folder.get("offline"):
        state = f"offline: {folder['offline']}"
    elif folder.get("held"):
        state = f"held: {folder['held']} files are missing"
    elif "watched" in folder:
        state, style = f"event {ago(folder['last_event'])}, reconcile {ago(folder['last_reconcile'])}", ""
    name = cut(path, max(columns - 12 - min(cell_len(state), columns // 2), 10), keep_end=True)
    return _line([("folder    ", "dim"), (name, ""), ("  ", ""), (state, style)], columns)


def _arriving(view: View, columns: int) -> list[Text]:
    shown = [_line([("arriving and settling", "bold")], columns)]
    for each in view.vitals.get("arriving", ()):
        stage, style = ("settles", "cyan") if each["settles"] else ("reading", "dim")
        begin = f"  {stage}  {in_words(each['seconds']):>7}  "
        path = cut(view.relative(each["path"]), columns - cell_len(begin), keep_end=True)
        shown.append(_line([(begin, style), (path, "")], columns))
    return shown if len(shown) > 1 else []


def _outcomes(view: View, columns: int, room: int) -> Iterator[Text]:
    if not view.events or room < 2:  # noqa: PLR2004 - the heading and one line
        return
    yield _line([("last outcomes", "bold")], columns)
    for each in list(view.events)[:-room:-1]:
        at = datetime.fromisoformat(each["at"]).astimezone()
        begin = [(f"  {at:%H:%M:%S}  ", "dim"), (f"{each['kind']:<9} ", _KINDS.get(each["kind"], "green"))]
        rest, detail = columns - sum(cell_len(text) for text, _style in begin), each.get("detail") or ""
        path = cut(view.relative(each["path"]), max(rest * 2 // 3 if detail else rest, 10), keep_end=True)
        yield _line([*begin, (path, ""), (f"  {detail}" if detail else "", "dim")], columns)


def _failures(view: View, columns: int) -> list[Text]:
    totals = view.vitals.get("totals") or {}
    if not totals.get("failures"):
        return []
    by_code = ", ".join(f"{count:,} {code}" for code, count in totals["failures"].items())
    shown = [_line([("failures to look into  ", "bold"), (by_code, "red")], columns)]
    for each in totals["last_failures"]:
        path = cut(view.relative(each["path"]), max(columns * 3 // 5, 10), keep_end=True)
        shown.append(_line([("  ", ""), (path, ""), (f"  {each['code']}: {each['detail']}", "dim")], columns))
    return shown


def _footer(view: View, columns: int) -> Text:
    if time.monotonic() - view.message_at < MESSAGE_SECONDS:
        return _line([(view.message, "bold")], columns)
    keys = {"q": "quit"} | ({"p": "pause", "r": "resume", "s": "scan"} if view.is_admin else {})
    return _line(
        [piece for key, verb in keys.items() for piece in ((f" {key} ", "reverse"), (f" {verb}  ", ""))], columns
    )


def _line(pieces: Iterable[Piece], columns: int) -> Text:
    """Return one line, cut to `columns`, of texts that may hold anything."""
    line = Text()
    for text, style in pieces:
        line.append(cut(text, columns - line.cell_len), style)
    return line


def cut(text: str, cells: int, *, keep_end: bool = False) -> str:
    """Return a text without control codes, cut to so many cells; "…" marks the cut."""
    if cells <= 0:
        return ""
    some = text[-4 * cells - 4 :] if keep_end else text[: 4 * cells + 4]  # it may have a million characters
    shown = _unstacked(printable(unicodedata.normalize("NFC", some)))
    if len(some) == len(text) and cell_len(shown) <= cells:
        return shown
    if not keep_end:
        return f"{set_cell_size(shown, cells - 1).rstrip()}…"
    while shown and cell_len(shown) > cells - 1:
        shown = shown[max((cell_len(shown) - cells + 1) // 2, 1) :]
    return f"…{shown}"


def _unstacked(text: str) -> str:
    """Drop combining marks beyond the second on one letter: they would cover the lines above."""
    runs = groupby(text, key=lambda each: bool(unicodedata.combining(each)))
    return "".join(each for are_marks, run in runs for each in (islice(run, 2) if are_marks else run))


def _bars(numbers: Sequence[int], width: int) -> str:
    shown = numbers[-width:] if width else ()
    most = max(shown, default=0) or 1
    return "".join(BARS[min(number * len(BARS) // most, len(BARS) - 1)] for number in shown)
